"""The generated splits: six scenarios each, as the public set has, with zones that do not exist.

`train` and `validation` share the make-up of the scenarios and differ in zones, seeds, deadlines and gaps;
`test_stand_in` takes the place of the public set when that is not there; `stress` leaves the ranges of the others.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from .families import ON_DEMAND_USD_H, Shortage, Zone, generate
from .market import Job, Market, Scenario

_GAP_S = 195
_RESTART_S = 720


@cache
def train() -> tuple[Scenario, ...]:
    """Twelve runs of a day's job in gaps of 390 s."""
    scarce = (Zone("alder-1a", 2.0, 9.0, 0.52), Zone("alder-1b", 4.0, 6.0, 0.47))
    apart = (Zone("birch-1a", 9.0, 2.5, 0.31), Zone("cedar-2a", 20.0, 1.2, 0.34))
    diverse = (Zone("alder-1b", 2.5, 7.0, 0.50), Zone("birch-1c", 5.0, 3.0, 0.32), Zone("cedar-2b", 12.0, 1.0, 0.35))
    together = (Zone("elder-3a", 1.5, 6.0, 0.53), Zone("elder-3b", 3.0, 5.0, 0.44), Zone("elder-3c", 4.0, 3.5, 0.45))
    five = (
        *scarce,
        Zone("cedar-2a", 6.0, 5.0, 0.33),
        Zone("cedar-2c", 9.0, 4.0, 0.36),
        Zone("birch-1a", 5.0, 4.0, 0.3),
    )
    eight = (*diverse, *together, Zone("fir-1a", 0.8, 1.5, 0.40), Zone("fir-1b", 1.2, 2.0, 0.38))
    make_up = [
        ("two_zones", scarce, 26.0),
        ("two_regions", apart, 26.0),
        ("three_regions", diverse, 26.5),
        ("three_zones", together, 27.0),
        ("five_zones", five, 26.0),
        ("eight_zones", eight, 28.0),
    ]
    return _runs(1_000, make_up, counts=[2] * 6, hours=24, gap_s=2 * _GAP_S)


@cache
def validation() -> tuple[Scenario, ...]:
    """Twenty-four runs of a two days' job in gaps of 195 s."""
    scarce = (Zone("gorse-1a", 3.0, 10.0, 0.50), Zone("gorse-1b", 3.0, 5.0, 0.46))
    apart = (Zone("hazel-1a", 14.0, 4.0, 0.31), Zone("ivy-2a", 24.0, 2.0, 0.33))
    diverse = (Zone("gorse-1b", 2.0, 8.0, 0.51), Zone("hazel-1c", 6.0, 4.0, 0.31), Zone("ivy-2b", 16.0, 1.5, 0.36))
    together = (Zone("larch-3a", 2.0, 7.0, 0.51), Zone("larch-3b", 4.0, 6.0, 0.45), Zone("larch-3c", 5.0, 4.0, 0.43))
    five = (*scarce, Zone("ivy-2a", 7.0, 6.0, 0.32), Zone("ivy-2c", 8.0, 3.0, 0.35), Zone("hazel-1a", 6.0, 5.0, 0.3))
    nine = (*diverse, *together, Zone("maple-1a", 1.0, 2.0, 0.41), Zone("maple-1b", 0.7, 1.0, 0.37),
            Zone("oak-2a", 10.0, 6.0, 0.34))  # fmt: skip
    make_up = [
        ("two_zones", scarce, 52.0),
        ("two_regions", apart, 52.0),
        ("three_regions", diverse, 53.0),
        ("three_zones", together, 54.0),
        ("five_zones", five, 52.0),
        ("nine_zones", nine, 55.0),
    ]
    return _runs(2_000, make_up, counts=[4] * 6, hours=48, gap_s=_GAP_S)


@cache
def test_stand_in() -> tuple[Scenario, ...]:
    """Thirty-four runs with the public job and the public numbers of zones and runs."""
    pool = (
        Zone("rowan-2a", 18.0, 3.0, 0.31), Zone("sorrel-2c", 24.0, 2.0, 0.33), Zone("teak-1d", 7.0, 6.0, 0.42),
        Zone("rowan-2b", 12.0, 5.0, 0.30), Zone("sorrel-2a", 22.0, 3.0, 0.33), Zone("teak-1f", 9.0, 6.0, 0.43),
        Zone("teak-1a", 2.0, 7.0, 0.54), Zone("sorrel-2b", 26.0, 2.5, 0.32), Zone("teak-1c", 6.0, 6.0, 0.44),
    )  # fmt: skip
    make_up = [
        ("2_zones_same_region", (pool[6], pool[8]), 52.0),
        ("2_regions_east_west", (pool[0], pool[4]), 52.0),
        ("3_regions_diverse", (pool[6], pool[3], pool[1]), 52.0),
        ("3_zones_same_region", (pool[6], pool[8], pool[2]), 52.0),
        ("5_regions_high_diversity", (pool[6], pool[5], pool[4], pool[7], pool[3]), 52.0),
        ("all_9_regions", pool, 52.0),
    ]
    return _runs(3_000, make_up, counts=[8, 8, 6, 6, 4, 2], hours=48, gap_s=_GAP_S)


@cache
def stress() -> tuple[Scenario, ...]:
    """Flapping, relabelled, twenty zones, no spot at all, traps and dear spot."""
    job = Job(2 * _GAP_S, 24 * 3600, 27 * 3600, _RESTART_S)
    tight = Job(2 * _GAP_S, 24 * 3600, 24 * 3600 + 3600, _RESTART_S)
    known = train()[8]
    flapping = tuple(Zone(f"reed-{1 + i // 2}{'ab'[i % 2]}", 0.4, 0.4, 0.33 + 0.03 * i) for i in range(4))
    many = tuple(Zone(f"vetch-{1 + i // 4}{'abcd'[i % 4]}", 1.0 + i, 8.0, 0.31 + 0.01 * i) for i in range(20))
    return (
        Scenario("flapping/0", job, generate(4_000, flapping, 27, job.gap_s, Shortage(6.0, 0.5))),
        Scenario("relabelled/0", known.job, _relabelled(known.market)),
        Scenario("twenty_zones/0", job, generate(4_001, many, 27, job.gap_s)),
        Scenario("no_spot/0", job, _constant(2, job.deadline_ticks, np.zeros((2, job.deadline_ticks), dtype=np.bool_))),
        Scenario("traps/0", job, _traps(4, job.deadline_ticks)),
        Scenario("dear_spot/0", tight, _dear_spot(tight)),
    )


def _runs(
    seed: int, make_up: list[tuple[str, tuple[Zone, ...], float]], counts: list[int], hours: int, gap_s: int
) -> tuple[Scenario, ...]:
    runs = []
    for row, ((name, zones, deadline_h), count) in enumerate(zip(make_up, counts, strict=True)):
        job = Job(gap_s, hours * 3600, int(deadline_h * 3600), _RESTART_S)
        for index in range(count):
            market = generate(seed + 20 * row + index, zones, deadline_h, gap_s)
            runs.append(Scenario(f"{name}/{index}", job, market))
    return tuple(runs)


def _relabelled(market: Market) -> Market:
    """The same market, zones in reverse order and under other names: what was learnt by name or place is of no use."""
    letters = {region: f"yew-{7 + region}" for region in range(max(market.regions) + 1)}
    seen: dict[int, int] = {}
    names = []
    for region in market.regions[::-1]:
        seen[region] = seen.get(region, -1) + 1
        names.append(f"{letters[region]}{'pqrstuvw'[seen[region]]}")
    return Market(
        tuple(names),
        np.ascontiguousarray(market.available[::-1]),
        np.ascontiguousarray(market.spot_usd_h[::-1]),
        np.ascontiguousarray(market.on_demand_usd_h[::-1]),
    )


def _constant(zones: int, ticks: int, available: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> Market:
    names = tuple(f"thorn-{1 + zone}a" for zone in range(zones))
    prices = np.full((zones, ticks), 0.30 * ON_DEMAND_USD_H)
    return Market(names, available, prices, np.full(zones, ON_DEMAND_USD_H))


def _traps(zones: int, ticks: int) -> Market:
    """One zone after the other is up, each just long enough to finish a restart there: who follows gets nothing."""
    turn = np.arange(ticks) // 3 % zones
    return _constant(zones, ticks, np.equal.outer(np.arange(zones), turn))


def _dear_spot(job: Job) -> Market:
    """Spot that is always there in one zone and costs more than on demand, and cheap spot that comes and goes."""
    zones = (Zone("briar-1a", 500.0, 0.1, 0.5), Zone("briar-2a", 3.0, 3.0, 0.31))
    market = generate(4_002, zones, 25, job.gap_s)
    prices = market.spot_usd_h.copy()
    prices[0] = np.round(1.2 * ON_DEMAND_USD_H, 4)
    return Market(market.zones, market.available, prices, market.on_demand_usd_h)
