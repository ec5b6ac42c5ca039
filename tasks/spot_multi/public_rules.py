"""The rules of the public evaluator, its faults included: what `--scoring paper` counts.

Unlike under `rules`: a running instance follows the focus to another zone without a restart; whether it was preempted
is asked of the zone in focus, not of the one where it ran; the whole run is billed at the end, spot at the first price
of the zone that is in focus then; the guarantee may ask for spot that is not there; a late run is a run like others.
"""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .market import HOUR_S, NONE, ON_DEMAND, SPOT, Scenario
from .rules import STATE, Observation, decision, observations

_DONE_S = 1e-8
_NO_OVERHEAD_S = 1e-3
_BEYOND_TICKS = 2
"""A run may end a gap after the deadline and is observed once more; generated markets end at the deadline."""


@dataclass(slots=True)
class PublicLedger:
    """What a run came to, as the public evaluator counts."""

    cost: float
    """Dollars as billed: all gaps at the prices of the last zone."""
    honest_cost: float
    """Dollars had each gap been billed in the zone in focus while it ran, at that zone's first price."""
    finish_tick: int
    spot_ticks: int
    on_demand_ticks: int
    last_zone: int


def play(scenario: Scenario) -> Generator[Observation, Any, PublicLedger]:
    """Yield an observation per tick, be sent `int64[2]` (zone, request) and return the ledger.

    Observations are those of `rules.play`. The candidate is asked in the critical zone too, where only its choice of a
    zone has an effect, and once more when the job is done. Raises MalformedOutput, InvalidOutput.
    """
    market, job = scenario.market, scenario.job
    gap, duration, restart = float(job.gap_s), float(job.duration_s), float(job.restart_s)
    available = np.pad(market.available, ((0, 0), (0, _BEYOND_TICKS))).tolist()
    board = np.pad(observations(scenario), ((0, _BEYOND_TICKS), (0, 0)), constant_values=np.nan)
    zones = len(market.zones)
    tick, focus, kind = 0, 0, NONE
    done = overhead = 0.0
    ran: list[tuple[int, int]] = []  # kind and zone of each gap

    while duration - done > _DONE_S:
        last, has_spot = kind, available[focus][tick]
        if kind == SPOT and not has_spot:
            kind = NONE
        work = 0.0
        if last != NONE:
            work = max(gap - overhead, 0.0)
            overhead -= gap - work
            overhead = overhead if overhead >= _NO_OVERHEAD_S else 0.0
            work = min(work, duration - done)
            done += work
        row = board[tick]
        row[:STATE] = (tick, focus, last, kind, work, overhead)
        action = yield row if tick else {**scenario.opening(), "tick": row}
        focus, request = decision(action, zones)
        request = _guaranteed(scenario, tick, duration - done, last, overhead, request)
        if request == SPOT and not available[focus][tick]:
            request = NONE
        if request not in (NONE, kind):
            overhead = restart
        kind = request
        ran.append((kind, focus))
        tick += 1
    return _ledger(scenario, ran[:-1], focus)


def _guaranteed(scenario: Scenario, tick: int, rem: float, last: int, overhead: float, request: int) -> int:
    """The request, or what replaces it where only on demand can still be in time."""
    if rem <= _NO_OVERHEAD_S:
        return request
    job = scenario.job
    left = math.floor((job.deadline_s - tick * job.gap_s) / job.gap_s)
    if math.ceil((rem + job.restart_s) / job.gap_s) < left:
        return request
    return SPOT if last == SPOT and overhead < _NO_OVERHEAD_S else ON_DEMAND


def _ledger(scenario: Scenario, ran: list[tuple[int, int]], last_zone: int) -> PublicLedger:
    """The bill of the gaps that ran; what was asked for in the finishing round never ran."""
    market, gap = scenario.market, scenario.job.gap_s
    first_price = market.spot_usd_h[:, 0].tolist()
    on_demand = market.on_demand_usd_h.tolist()

    def billed(kind: int, zone: int) -> float:
        if kind == NONE:
            return 0.0
        return float((first_price[zone] if kind == SPOT else on_demand[zone]) * gap / HOUR_S)

    cost = honest = 0.0
    for kind, zone in ran:
        cost += billed(kind, last_zone)
        honest += billed(kind, zone)
    kinds = np.array([kind for kind, _ in ran])
    return PublicLedger(
        cost=cost,
        honest_cost=honest,
        finish_tick=len(ran),
        spot_ticks=int((kinds == SPOT).sum()),
        on_demand_ticks=int((kinds == ON_DEMAND).sum()),
        last_zone=last_zone,
    )
