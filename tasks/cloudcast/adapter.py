"""The untrusted side: builds the graph of a case, asks the candidate for a topology, and hands its edges out as arrays.

Prices and throughputs that the topology carries go out only when the case asks for them, for the public evaluator's
scoring, which believes them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType
from typing import Any

import networkx as nx
import numpy as np

from .candidate import MODULE, code_of, new_module
from .shims import broadcast, utils

ENTRY = "search_algorithm"
UNSET = -1
"""In `counts`: the topology has no list of edges there."""


class InterfaceError(Exception):
    """The program does not define the entry function."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled candidate. It is executed per case, because its top level may ask for that case's network."""

    code: CodeType


def load(source: str) -> Program:
    """Compile a candidate. Raises SyntaxError."""
    return Program(code_of(source))


def run(program: Program, public: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate's topology for one job, as plain data, or {"problem": text} where it is none.

    - regions: all region names that occur; destinations: indices into it, in the topology's order;
    - counts: (destinations, partitions) numbers of edges listed, UNSET where there is no list;
    - edges: (sum of the counts, 2) indices of regions, in the order of destinations, partitions and lists;
    - data, if `public["edge_data"]`: (edges, 2) cost and throughput as the edges themselves tell.

    Raises InterfaceError, and whatever the candidate raises.
    """
    graph = make_graph(public)
    with _public_modules(public):
        module = new_module()
        try:
            exec(program.code, module.__dict__)
            search = getattr(module, ENTRY, None)
            if not callable(search):
                raise InterfaceError(f"the program does not define {ENTRY}(src, dsts, G, num_partitions)")
            topology = search(public["source"], list(public["destinations"]), graph, public["partitions"])
        finally:
            del sys.modules[MODULE]
    return _Reading(public["partitions"], public["edge_data"], len(public["links"])).read(topology)


def make_graph(public: Mapping[str, Any], num_vms: int | None = None) -> nx.DiGraph:
    """The network of a case, nodes and edges in its order. `num_vms` machines per region, by default the case's."""
    regions = public["regions"]
    factor = 1.0 if num_vms is None else num_vms / public["num_vms"]
    graph = nx.DiGraph(
        data_vol=public["data_vol"],
        num_vms=public["num_vms"],
        ingress_limit=dict(public["ingress_limit"]),
        egress_limit=dict(public["egress_limit"]),
        instance_cost_per_hour=public["instance_cost_per_hour"],
    )
    graph.add_edges_from(
        (regions[a], regions[b], {"cost": cost, "throughput": throughput})
        for (a, b), cost, throughput in zip(
            public["links"].tolist(), public["cost"].tolist(), (public["throughput"] * factor).tolist(), strict=True
        )
    )
    return graph


class _NoTopologyError(Exception):
    """The message says what the answer is instead."""


@dataclass(slots=True)
class _Reading:
    """Reads a topology, believing nothing about its shape."""

    partitions: int
    edge_data: bool
    most_edges: int
    """In one list: no more than the network has."""
    index: dict[str, int] = field(default_factory=dict)
    edges: list[tuple[int, int]] = field(default_factory=list)
    data: list[tuple[float, float]] = field(default_factory=list)

    def read(self, topology: Any) -> dict[str, Any]:
        try:
            paths = getattr(topology, "paths", None)
            if not isinstance(paths, Mapping):
                raise _NoTopologyError(f"{ENTRY} returned {_describe(topology)}, expected a BroadCastTopology")
            destinations = [self._region(name, "a key of paths") for name in paths]
            counts = [self._destination(name, partitions) for name, partitions in paths.items()]
        except _NoTopologyError as error:
            return {"problem": str(error)}
        answer = {
            "regions": list(self.index),
            "destinations": np.array(destinations, dtype=np.int64),
            "counts": np.array(counts, dtype=np.int64).reshape(len(counts), self.partitions),
            "edges": np.array(self.edges, dtype=np.int64).reshape(-1, 2),
        }
        if self.edge_data:
            answer["data"] = np.array(self.data, dtype=np.float64).reshape(-1, 2)
        return answer

    def _destination(self, name: str, partitions: Any) -> list[int]:
        if not isinstance(partitions, Mapping):
            raise _NoTopologyError(f"paths[{name!r}] is {_describe(partitions)}, expected a dict of partitions")
        counts = []
        for partition in range(self.partitions):
            listed = partitions.get(str(partition))
            if listed is None:
                counts.append(UNSET)
                continue
            where = f"paths[{name!r}]['{partition}']"
            if not isinstance(listed, list | tuple):
                raise _NoTopologyError(f"{where} is {_describe(listed)}, expected a list of [from, to, data]")
            if len(listed) > self.most_edges:
                raise _NoTopologyError(f"{where} lists {len(listed)} edges, the network has {self.most_edges}")
            for edge in listed:
                self._edge(edge, where)
            counts.append(len(listed))
        return counts

    def _edge(self, edge: Any, where: str) -> None:
        if not isinstance(edge, Sequence) or isinstance(edge, str) or len(edge) < (3 if self.edge_data else 2):
            raise _NoTopologyError(f"{where} holds {_describe(edge)}, expected [from, to, data]")
        self.edges.append((self._region(edge[0], where), self._region(edge[1], where)))
        if self.edge_data:
            try:
                self.data.append((float(edge[2]["cost"]), float(edge[2]["throughput"])))
            except (KeyError, TypeError, ValueError, IndexError):
                raise _NoTopologyError(f"{where}: an edge's data has no number for cost or throughput") from None

    def _region(self, name: Any, where: str) -> int:
        if not isinstance(name, str):
            raise _NoTopologyError(f"{where} names {_describe(name)}, expected a region's name")
        return self.index.setdefault(name, len(self.index))


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:80]}"


@contextmanager
def _public_modules(public: Mapping[str, Any]) -> Iterator[None]:
    stand_ins = {"broadcast": broadcast, "utils": utils}
    before = {name: sys.modules.get(name) for name in stand_ins}
    unbound = utils._make
    utils._make = lambda num_vms: make_graph(public, num_vms)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        utils._make = unbound
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
