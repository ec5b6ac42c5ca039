"""Generated traffic: a gravity model with a daily rhythm, routed over shortest paths.

The recorded Abilene snapshots were looked at for their shape only: each counter there is the sum of the demands on its
link times a factor of its own in 0.98 .. 1.02, links differ by a factor of some thousand, and now and then one large
transfer fills its whole path. Flow is conserved at routers once traffic that starts or ends there is counted;
candidates are not told of that traffic, in the recorded data as here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .network import Backbone, Floats

SKEW = 0.02
"""Counters of one flow differ between its two ends by this at most, either way."""
DECIMALS = 3
"""Counters are in Mbit/s to three decimals, as recorded."""


@dataclass(frozen=True, slots=True)
class Load:
    """How much traffic there is."""

    total_mbps: float = 3_700.0
    """Of all demands, mean over a day."""
    idle: float = 0.0
    """Share of the demands that are zero."""
    transfer: float = 0.2
    """Probability that a snapshot has one large transfer."""


def snapshots(backbone: Backbone, rows: int, seed: int, load: Load = Load()) -> Floats:
    """True counters in Mbit/s, rows x interfaces x (rx, tx), each row under a traffic matrix of its own.

    A row says nothing about another but by the routes, so that a program that gets hold of both has no advantage.
    """
    rng = np.random.default_rng(seed)
    flow = np.stack([_demands(backbone, rng, load) for _ in range(rows)]) @ backbone.routes.T
    both = np.stack((flow[:, backbone.network.peer], flow), axis=-1)
    counters: Floats = np.round(both * rng.uniform(1.0 - SKEW, 1.0 + SKEW, both.shape), DECIMALS)
    return counters


def _demands(backbone: Backbone, rng: np.random.Generator, load: Load) -> Floats:
    """Mbit/s of each demand at some hour."""
    routers = len(backbone.network.routers)
    sends, receives = rng.lognormal(0.0, 0.8, (2, routers))
    stub = int(rng.integers(routers))
    sends[stub] *= 0.01
    receives[stub] *= 0.01
    demands = sends[backbone.sources] * receives[backbone.targets] * rng.lognormal(0.0, 0.7, backbone.sources.size)
    demands *= load.total_mbps / demands.sum()
    demands[rng.random(demands.size) < load.idle] = 0.0
    hour = rng.uniform(0.0, 24.0)
    busiest = 18.0 + rng.normal(0.0, 2.0, routers)[backbone.sources]
    rhythm = 1.0 + 0.4 * np.cos((hour - busiest) * (2.0 * np.pi / 24.0))
    now: Floats = demands * rhythm * rng.lognormal(0.0, 0.3, demands.size)
    if rng.random() < load.transfer:
        now[rng.integers(demands.size)] += load.total_mbps * rng.uniform(0.2, 1.5)
    return now
