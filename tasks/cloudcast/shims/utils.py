"""Stand-in for the public module of this name: programs `from utils import make_nx_graph`.

The adapter binds `_make` to the network of the case.
"""

from __future__ import annotations

from collections.abc import Callable

import networkx as nx


def _no_case(num_vms: int) -> nx.DiGraph:
    raise RuntimeError("make_nx_graph has a network only while search_algorithm or the program's top level runs")


_make: Callable[[int], nx.DiGraph] = _no_case


def make_nx_graph(cost_path: str | None = None, throughput_path: str | None = None, num_vms: int = 1) -> nx.DiGraph:
    """The case's network with edge attributes `cost` (USD per GB) and `throughput` (Gbit/s of `num_vms` machines).

    Raises ValueError when a profile file is named: there are none in the jail.
    """
    if cost_path is not None or throughput_path is not None:
        raise ValueError("profile files cannot be named here: make_nx_graph() gives the network of the case")
    return _make(num_vms)


__all__ = ["make_nx_graph", "nx"]
