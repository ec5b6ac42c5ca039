"""Stand-in for the public module of this name: programs `from txn_simulator import Workload`."""

from ..workload import Workload

__all__ = ["Workload"]
