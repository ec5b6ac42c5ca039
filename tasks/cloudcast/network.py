"""Networks of cloud regions: which pairs can send, at what price and how fast.

The recorded one is the public profile (egress prices and measured throughputs of 71 regions of three providers); the
generated ones have the same make-up: three providers with regions on a map, price tiers by provider and distance,
throughputs that fall with distance.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]

NUM_VMS = 2
"""Virtual machines per region; a measured throughput is that of one."""


@dataclass(frozen=True, slots=True)
class Network:
    """Directed links between regions. Names are `provider:region`; link i leads from `links[i, 0]` to `links[i, 1]`."""

    regions: tuple[str, ...]
    links: Ints
    """Shape (links, 2), indices of regions, no pair twice, none to itself."""
    cost: Floats
    """USD per GB sent over each link."""
    throughput: Floats
    """Gbit/s of each link, with all virtual machines of its ends."""

    def matrices(self) -> tuple[Floats, Floats]:
        """Cost and throughput as (regions, regions) matrices, NaN where there is no link."""
        shape = (len(self.regions), len(self.regions))
        cost, throughput = np.full(shape, np.nan), np.full(shape, np.nan)
        cost[self.links[:, 0], self.links[:, 1]] = self.cost
        throughput[self.links[:, 0], self.links[:, 1]] = self.throughput
        return cost, throughput

    def providers(self) -> list[str]:
        """The provider of each region, in order."""
        return [provider(region) for region in self.regions]

    def by_provider(self) -> dict[str, list[str]]:
        """Region names by provider, both sorted."""
        return {p: sorted(r for r in self.regions if provider(r) == p) for p in sorted(set(self.providers()))}


def provider(region: str) -> str:
    """`aws` of `aws:us-east-1`."""
    return region.split(":", 1)[0]


def read_profiles(cost_csv: Path, throughput_csv: Path) -> Network:
    """The network of the public profile files. Links and regions keep the order of the throughput file.

    Raises KeyError for a pair without a price.
    """
    with cost_csv.open(newline="", encoding="utf-8") as file:
        price = {(row["src"], row["dest"]): float(row["cost"]) for row in csv.DictReader(file)}
    measured: dict[tuple[str, str], float] = {}
    with throughput_csv.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            pair = (row["src_region"], row["dst_region"])
            if pair[0] != pair[1]:
                measured[pair] = NUM_VMS * float(row["throughput_sent"]) / 1e9
    index = {region: i for i, region in enumerate(dict.fromkeys(region for pair in measured for region in pair))}
    return Network(
        regions=tuple(index),
        links=np.array([[index[a], index[b]] for a, b in measured], dtype=np.int64),
        cost=np.array([price[pair] for pair in measured]),
        throughput=np.array(list(measured.values())),
    )


@dataclass(frozen=True, slots=True)
class _Tariff:
    """USD per GB and Gbit/s: within a continent, to another one, to another provider; dear_ from a dear region."""

    near: float
    far: float
    out: float
    dear_far: float
    dear_out: float
    near_gbps: float
    far_gbps: float
    out_gbps: float


_TARIFFS: Mapping[str, _Tariff] = {
    "aws": _Tariff(0.02, 0.02, 0.09, 0.09, 0.115, 10.4, 9.8, 10.1),
    "azure": _Tariff(0.02, 0.05, 0.0875, 0.08, 0.12, 36.0, 26.0, 14.0),
    "gcp": _Tariff(0.02, 0.08, 0.12, 0.08, 0.14, 60.0, 38.0, 14.0),
}

_EVERY = ("aws", "azure", "gcp")
_CONTINENTS: Mapping[str, tuple[float, float, tuple[str, ...]]] = {
    "na": (-95.0, 40.0, ()),
    "eu": (10.0, 50.0, ()),
    "ap": (120.0, 20.0, ("aws",)),
    "sa": (-55.0, -20.0, _EVERY),
    "af": (20.0, -15.0, _EVERY),
}
"""Centre on a flat map (degrees), and whose regions there are dear to send from."""


def generate(seed: int, sizes: Mapping[str, int] | None = None) -> Network:
    """A network of `sizes` regions per provider (25 aws, 22 azure, 24 gcp by default), complete.

    All figures are rounded, so that they are the same on every machine.
    """
    rng = np.random.default_rng(seed)
    sizes = sizes or {"aws": 25, "azure": 22, "gcp": 24}
    names, places, owners, homes = [], [], [], []
    for owner, count in sizes.items():
        for i in range(count):
            home = list(_CONTINENTS)[int(rng.choice(5, p=[0.3, 0.3, 0.24, 0.08, 0.08]))]
            names.append(f"{owner}:{home}-{i}")
            places.append(np.array(_CONTINENTS[home][:2]) + rng.uniform(-15, 15, size=2))
            owners.append(owner)
            homes.append(home)
    order = rng.permutation([(a, b) for a in range(len(names)) for b in range(len(names)) if a != b])
    local_price = {name: float(rng.choice([0.0, 0.0, 0.0, 0.005, 0.03])) for name in names}
    lane = {
        (owner, home, away): float(rng.choice([1.0, 1.0, 1.0, 0.6, 1.7]))
        for owner in sizes
        for home in _CONTINENTS
        for away in _CONTINENTS
    }
    cost, throughput = np.empty(len(order)), np.empty(len(order))
    for i, (a, b) in enumerate(order):
        tariff = _TARIFFS[owners[a]]
        offset = places[a] - places[b]
        distance = float(np.sqrt((offset * offset).sum())) / 100
        price, gbps = _price_and_gbps(tariff, owners[a], owners[b], homes[a], homes[b])
        cost[i] = round(price * lane[owners[a], homes[a], homes[b]] + local_price[names[a]], 4)
        throughput[i] = round(max(0.3, gbps / (1 + 0.15 * distance) * float(rng.uniform(0.6, 1.15))), 3)
    return Network(tuple(names), order.astype(np.int64), cost, throughput)


def _price_and_gbps(tariff: _Tariff, owner: str, other: str, home: str, away: str) -> tuple[float, float]:
    """USD per GB and Gbit/s before what is random, from one continent to another."""
    dear = owner in _CONTINENTS[home][2]
    if owner != other:
        return (tariff.dear_out if dear else tariff.out), tariff.out_gbps
    if home == away:
        return tariff.near, tariff.near_gbps
    return (tariff.dear_far if dear else tariff.far), tariff.far_gbps


def relabelled(network: Network, seed: int) -> Network:
    """The same network with regions renamed within their provider, and regions and links in another order."""
    rng = np.random.default_rng(seed)
    count = len(network.regions)
    place = rng.permutation(count)
    regions = [""] * count
    numbers = rng.permutation(count)
    for i, region in enumerate(network.regions):
        regions[place[i]] = f"{provider(region)}:r{numbers[i]}"
    order = rng.permutation(len(network.links))
    return Network(
        tuple(regions), place[network.links[order]].astype(np.int64), network.cost[order], network.throughput[order]
    )


def perturbed(network: Network, seed: int, cost_spread: float, throughput_spread: float) -> Network:
    """Prices and throughputs each times a factor of its own, exp(uniform(-spread, spread)), rounded."""
    rng = np.random.default_rng(seed)
    size = len(network.links)
    factors = np.exp(rng.uniform(-1, 1, size=(2, size)) * [[cost_spread], [throughput_spread]])
    return Network(
        network.regions,
        network.links,
        np.round(network.cost * factors[0], 4),
        np.round(np.maximum(0.01, network.throughput * factors[1]), 3),
    )


def thinned(network: Network, seed: int, share: float, kept: Sequence[tuple[str, str]]) -> Network:
    """Only a random `share` of the links, and the pairs `kept` in any case."""
    rng = np.random.default_rng(seed)
    index = {region: i for i, region in enumerate(network.regions)}
    wanted = {(index[a], index[b]) for a, b in kept}
    keep = rng.random(len(network.links)) < share
    keep |= np.array([(int(a), int(b)) in wanted for a, b in network.links])
    return Network(network.regions, network.links[keep], network.cost[keep], network.throughput[keep])
