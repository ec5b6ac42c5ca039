"""Routers, their interfaces and who is at the other end; the published Abilene backbone and generated ones.

An interface is one direction-less end of a link: its `tx` leaves the router, its `rx` arrives, and each equals the
opposite counter of the interface at the other end but for noise. Interfaces are numbered by router, then neighbour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import networkx as nx
import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ABILENE_KM = (
    ("ATLAM5", "ATLAng", 132.40),
    ("ATLAng", "HSTNng", 1079.45),
    ("ATLAng", "IPLSng", 590.24),
    ("ATLAng", "WASHng", 899.49),
    ("CHINng", "IPLSng", 259.17),
    ("CHINng", "NYCMng", 1145.19),
    ("DNVRng", "KSCYng", 744.22),
    ("DNVRng", "SNVAng", 1514.43),
    ("DNVRng", "STTLng", 1571.42),
    ("HSTNng", "KSCYng", 1027.12),
    ("HSTNng", "LOSAng", 2193.58),
    ("IPLSng", "KSCYng", 901.52),
    ("LOSAng", "SNVAng", 503.79),
    ("NYCMng", "WASHng", 335.08),
    ("SNVAng", "STTLng", 1136.31),
)
"""Links of the Abilene research backbone of 2004 and their lengths in km, as SNDlib publishes them."""


@dataclass(frozen=True)
class Network:
    """A network whose routers are joined by at most one link per pair."""

    routers: tuple[str, ...]
    interfaces: tuple[str, ...]
    local: Ints
    """Router index of each interface."""
    peer: Ints
    """Interface index at the other end; an involution."""

    @classmethod
    def of(cls, ends: Iterable[tuple[str, str]]) -> Network:
        """From the directed pairs (router, neighbour) of all interfaces, in their order, each with its reverse.

        Interfaces are named `A_to_B`. Raises ValueError when a pair occurs twice or lacks its reverse.
        """
        pairs = list(ends)
        index = {pair: i for i, pair in enumerate(pairs)}
        if len(index) != len(pairs):
            raise ValueError("an interface occurs twice")
        lone = [f"{a}_to_{b}" for a, b in pairs if (b, a) not in index]
        if lone:
            raise ValueError(f"interface {lone[0]} has nothing at its other end")
        routers = tuple(dict.fromkeys(a for a, _ in pairs))
        number = {router: i for i, router in enumerate(routers)}
        return cls(
            routers=routers,
            interfaces=tuple(f"{a}_to_{b}" for a, b in pairs),
            local=np.array([number[a] for a, _ in pairs], np.int64),
            peer=np.array([index[b, a] for a, b in pairs], np.int64),
        )

    @property
    def size(self) -> int:
        """Number of interfaces."""
        return len(self.interfaces)

    @cached_property
    def public(self) -> dict[str, Any]:
        """What a candidate is told, as JSON: names, other ends, routers of both ends, interfaces of each router."""
        local = [self.routers[router] for router in self.local]
        topology: dict[str, list[str]] = {router: [] for router in self.routers}
        for router, interface in zip(local, self.interfaces, strict=True):
            topology[router].append(interface)
        return {
            "interfaces": list(self.interfaces),
            "connected_to": [self.interfaces[peer] for peer in self.peer],
            "local_router": local,
            "remote_router": [local[peer] for peer in self.peer],
            "topology": topology,
        }

    def relabelled(self, seed: int) -> tuple[Network, Ints]:
        """The same network in another order, under names that tell nothing of who is at the other end.

        Also the order: interface i of the result is interface `order[i]` of this one.
        """
        rng = np.random.default_rng(seed)
        order = rng.permutation(self.size)
        place = np.argsort(order)
        router_names = rng.permutation(len(self.routers))
        interface_names = rng.permutation(self.size)
        relabelled = Network(
            routers=tuple(f"r{name:03d}" for name in router_names),
            interfaces=tuple(f"port{name:04d}" for name in interface_names),
            local=self.local[order],
            peer=place[self.peer[order]],
        )
        return relabelled, order


@dataclass(frozen=True)
class Backbone:
    """A network with shortest-path routing: `routes[i, d]` is 1 where demand d leaves through interface i."""

    network: Network
    routes: Floats
    """Interfaces x demands."""
    sources: Ints
    """Router index of each demand's source."""
    targets: Ints

    @classmethod
    def of(cls, links: Sequence[tuple[str, str, float]]) -> Backbone:
        """From undirected links with lengths; demands are all ordered pairs of routers, on the shortest path."""
        ends = sorted([(a, b) for a, b, _ in links] + [(b, a) for a, b, _ in links])
        network = Network.of(ends)
        graph: nx.Graph[str] = nx.Graph()
        graph.add_weighted_edges_from(links)
        interface = {pair: i for i, pair in enumerate(ends)}
        number = {router: i for i, router in enumerate(network.routers)}
        pairs = [(a, b) for a in network.routers for b in network.routers if a != b]
        paths = dict(nx.all_pairs_dijkstra_path(graph))
        routes = np.zeros((network.size, len(pairs)))
        for demand, (a, b) in enumerate(pairs):
            path = paths[a][b]
            for hop in pairwise(path):
                routes[interface[hop], demand] = 1.0
        sources = np.array([number[a] for a, _ in pairs], np.int64)
        return cls(network, routes, sources, np.array([number[b] for _, b in pairs], np.int64))


@cache
def abilene() -> Backbone:
    """12 routers, 15 links, 30 interfaces."""
    return Backbone.of(ABILENE_KM)


@cache
def generated(routers: int, seed: int) -> Backbone:
    """Points in a square, joined by their shortest spanning tree and each to its two nearest neighbours."""
    points = np.random.default_rng(seed).uniform(0.0, 4000.0, (routers, 2))
    km = np.hypot(*(points[:, None, :] - points[None, :, :]).transpose(2, 0, 1))
    complete: nx.Graph[int] = nx.Graph()
    complete.add_weighted_edges_from((i, j, float(km[i, j])) for i in range(routers) for j in range(i))
    joined = {(min(i, j), max(i, j)) for i, j in nx.minimum_spanning_edges(complete, data=False)}
    for i, nearest in enumerate(np.argsort(km, axis=1)[:, 1:3].tolist()):
        joined |= {(min(i, j), max(i, j)) for j in nearest}
    return Backbone.of([(f"R{i:02d}", f"R{j:02d}", float(km[i, j])) for i, j in sorted(joined)])
