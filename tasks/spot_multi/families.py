"""Generated spot markets: availability as semi-Markov processes, prices as slow walks, both shared within a region.

Shapes, from published facts about the V100 instances of AWS: on demand 3.06 $/h; spot 0.30 to 0.60 of it, changing a
few times a day by a percent or two and never below 0.30 (AWS smooths prices since 2017); zones that are there nearly
always beside zones that hardly are; spells from minutes to days, with a long tail; zones of a region run short
together. No recorded trace goes in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .market import Market, region_of

ON_DEMAND_USD_H = 3.06
_FLOOR = 0.30
_SPREAD = 1.3
"""Standard deviation of the logarithm of a spell's length."""
_WARM_UP_H = 96.0
_PRICE_CHANGE_H = 5.0
_PRICE_STEP = 0.012


@dataclass(frozen=True, slots=True)
class Zone:
    """A zone's long-run behaviour: mean hours with and without spot, and spot's share of the on-demand price."""

    name: str
    up_h: float
    down_h: float
    discount: float


@dataclass(frozen=True, slots=True)
class Shortage:
    """When a whole region has no spot: mean hours between shortages and of one."""

    between_h: float = 30.0
    lasts_h: float = 1.5


def generate(seed: int, zones: tuple[Zone, ...], hours: float, gap_s: int, shortage: Shortage | None = None) -> Market:
    """A market of `zones` for `hours`, in gaps of `gap_s` seconds; equal for equal arguments."""
    rng = np.random.default_rng(seed)
    at_h = np.arange(int(np.ceil(hours * 3600 / gap_s)), dtype=np.float64) * np.float64(gap_s / 3600)
    shortage = shortage or Shortage()
    regions = list(dict.fromkeys(region_of(zone.name) for zone in zones))
    plenty = {region: _spells(rng, at_h, shortage.between_h, shortage.lasts_h) for region in regions}
    drift = {region: _walk(rng, at_h) for region in regions}
    available = np.array(
        [_spells(rng, at_h, zone.up_h, zone.down_h) & plenty[region_of(zone.name)] for zone in zones], dtype=np.bool_
    )
    share = np.array([zone.discount * np.exp(drift[region_of(zone.name)] + 0.5 * _walk(rng, at_h)) for zone in zones])
    price = np.round(np.maximum(share, _FLOOR) * ON_DEMAND_USD_H, 4)
    return Market(tuple(zone.name for zone in zones), available, price, np.full(len(zones), ON_DEMAND_USD_H))


def _spells(rng: np.random.Generator, at_h: NDArray[np.float64], up_h: float, down_h: float) -> NDArray[np.bool_]:
    """Whether the process is up at each time: log-normal spells with these means, begun long before time 0."""
    up = bool(rng.random() < up_h / (up_h + down_h))
    first = up
    ends = []
    now = -_WARM_UP_H * (0.5 + rng.random())
    while now <= at_h[-1]:
        mean = up_h if up else down_h
        now += mean * float(np.exp(_SPREAD * rng.standard_normal() - 0.5 * _SPREAD**2))
        ends.append(now)
        up = not up
    spells = np.searchsorted(np.array(ends), at_h, side="right")
    return np.asarray(spells % 2 == (0 if first else 1), dtype=np.bool_)


def _walk(rng: np.random.Generator, at_h: NDArray[np.float64]) -> NDArray[np.float64]:
    """A walk in the logarithm of a price, 0 at the start, with steps at exponential times."""
    steps = int(at_h[-1] / _PRICE_CHANGE_H * 2) + 10
    times = np.cumsum(_PRICE_CHANGE_H * -np.log(1.0 - rng.random(steps)))
    level = np.concatenate(([0.0], np.cumsum(_PRICE_STEP * rng.standard_normal(steps))))
    return np.asarray(level[np.searchsorted(times, at_h, side="right")])
