"""Stand-in for the public module of this name: the adapter binds the three names to the workloads of the case."""

from collections.abc import Mapping

WORKLOAD_1: Mapping[str, str] = {}
WORKLOAD_2: Mapping[str, str] = {}
WORKLOAD_3: Mapping[str, str] = {}
