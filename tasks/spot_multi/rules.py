"""The rules of a run, as the score counts them: `play` is one run as a game against a candidate.

A job works or not in gaps of equal length. Before each gap the candidate sees the current tick and names a zone and
what shall run there. An instance lives in the zone where it was launched: another zone or another kind of instance is
a new launch with the restart overhead, and when the newest checkpoint lies in another region also with a transfer and
its price. Each gap is billed where it ran, at the price of its tick. The public rules differ, see `public_rules`.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import InvalidOutput, MalformedOutput

from .market import HOUR_S, NONE, ON_DEMAND, SPOT, Scenario

STATE = 6
"""Leading entries of an observation: tick, zone in focus, what ran in the gap that ended, what runs now, seconds of
work done in that gap, seconds of overhead left. Then one spot price per zone, NaN where spot is not available."""

Observation: TypeAlias = NDArray[np.float64] | dict[str, Any]


@dataclass(slots=True)
class Ledger:
    """What a run came to."""

    cost: float = 0.0
    """Dollars, egress included."""
    egress: float = 0.0
    finish_tick: int = 0
    """Gaps until the job was done."""
    spot_ticks: int = 0
    on_demand_ticks: int = 0
    launches: int = 0
    moves: int = 0
    """Launches in another zone than the launch before."""
    asked_ticks: int = 0
    """Gaps that the candidate decided."""
    guaranteed_ticks: int = 0
    """Gaps at the end that the guarantee decided."""


def play(scenario: Scenario) -> Generator[Observation, Any, Ledger]:
    """Yield an observation per tick, be sent `int64[2]` (zone, request) and return the ledger.

    The first observation is a dict: `Scenario.opening()` and the array as `tick`. From the tick on at which an
    on-demand launch with its restart overhead must not wait any longer, the candidate is not asked: the guarantee keeps
    a working spot instance as long as it lives, or an on-demand instance that is in time, and else launches on demand
    beside the checkpoint. So no run is late.

    Raises MalformedOutput for what is no decision and InvalidOutput for a zone or request that does not exist.
    """
    run = _Run(scenario)
    zones = len(scenario.market.zones)
    board = observations(scenario)
    first = True
    while run.rem > 0 and not run.critical():
        row = board[run.tick]
        row[:STATE] = (run.tick, run.focus, run.last, run.kind, run.work, run.overhead)
        action = yield ({**scenario.opening(), "tick": row} if first else row)
        first = False
        zone, request = decision(action, zones)
        run.decide(zone, request)
    while run.rem > 0:
        run.guarantee()
    run.ledger.finish_tick = run.tick
    run.ledger.asked_ticks = run.tick - run.ledger.guaranteed_ticks
    run.ledger.cost += run.ledger.egress
    return run.ledger


def observations(scenario: Scenario) -> NDArray[np.float64]:
    """A row per tick with the prices filled in and the state still empty. float64 [ticks, STATE + zones]."""
    market = scenario.market
    board = np.zeros((market.ticks, STATE + len(market.zones)))
    board[:, STATE:] = np.where(market.available, market.spot_usd_h, np.nan).T
    return board


def decision(action: Any, zones: int) -> tuple[int, int]:
    """(zone, request) of what a candidate's process gave back. Raises MalformedOutput, InvalidOutput."""
    if isinstance(action, str):  # what the adapter says of an answer that is no ClusterType
        raise MalformedOutput(action[:200])
    if not isinstance(action, np.ndarray) or action.shape != (2,) or action.dtype.kind not in "iu":
        raise MalformedOutput(f"a decision is a {type(action).__name__}, expected int64 [zone, request]")
    zone, request = action.tolist()
    if not 0 <= zone < zones:
        raise InvalidOutput(f"zone {zone} does not exist: there are 0..{zones - 1}")
    if not NONE <= request <= ON_DEMAND:
        raise InvalidOutput(f"request {request} does not exist: 0 is none, 1 spot, 2 on demand")
    return zone, request


class _Run:
    """The state between two gaps."""

    __slots__ = ("_available", "_bill", "_checkpoint", "_egress", "_job", "_last_zone", "_on_demand_bill", "_regions",
                 "_transfer_s", "focus", "kind", "last", "ledger", "overhead", "rem", "tick", "work")  # fmt: skip

    def __init__(self, scenario: Scenario) -> None:
        market, job = scenario.market, scenario.job
        self._job = job
        self._available = market.available.tolist()
        self._bill = (market.spot_usd_h * job.gap_s / HOUR_S).tolist()
        self._on_demand_bill = (market.on_demand_usd_h * job.gap_s / HOUR_S).tolist()
        self._regions = market.regions
        self._transfer_s = scenario.migration.transfer_s
        self._egress = scenario.migration.egress_usd
        self._checkpoint = -1
        """Zone where the job last worked, -1 before it has."""
        self._last_zone = -1
        self.tick = 0
        self.focus = 0
        """Zone in focus; that of the instance when there is one."""
        self.last = NONE
        self.kind = NONE
        self.work = 0
        self.overhead = 0
        self.rem = job.duration_s
        self.ledger = Ledger()

    def critical(self) -> bool:
        """Whether an on-demand launch beside the checkpoint must not wait any longer."""
        job = self._job
        return -(-(self.rem + job.restart_s) // job.gap_s) >= job.deadline_ticks - self.tick

    def decide(self, zone: int, request: int) -> None:
        """Let the next gap pass with what was asked for; spot where there is none is nothing."""
        if request == SPOT and not self._available[zone][self.tick]:
            request = NONE
        if request != NONE and (request != self.kind or zone != self.focus):
            self._launch(zone)
        self.focus = zone
        self.kind = request
        self._pass_gap()

    def guarantee(self) -> None:
        """Let a gap pass from whose start on only work without pause, or on demand, makes the deadline.

        At the first such gap a launch beside the checkpoint is exactly in time, and remains so while spot works at
        full speed; an on-demand instance that is in time remains so.
        """
        job = self._job
        own_finish = self.tick - (-(self.rem + self.overhead) // job.gap_s)
        on_time = self.kind == ON_DEMAND and own_finish <= job.deadline_ticks
        if not on_time and not (self.kind == SPOT and self.overhead == 0):
            self.focus = self._checkpoint if self._checkpoint >= 0 else self.focus
            self._launch(self.focus)
            self.kind = ON_DEMAND
        self.ledger.guaranteed_ticks += 1
        self._pass_gap()

    def _launch(self, zone: int) -> None:
        ledger = self.ledger
        ledger.launches += 1
        ledger.moves += self._last_zone not in (-1, zone)
        self._last_zone = zone
        self.overhead = self._job.restart_s
        if self._checkpoint >= 0 and self._regions[zone] != self._regions[self._checkpoint]:
            self.overhead += self._transfer_s
            ledger.egress += self._egress

    def _pass_gap(self) -> None:
        """The gap of this tick runs and is billed; then comes the next tick and with it, maybe, a preemption."""
        tick, zone, gap = self.tick, self.focus, self._job.gap_s
        self.last = self.kind
        self.tick = tick + 1
        if self.kind == NONE:
            self.work = 0
            return
        if self.kind == SPOT:
            self.ledger.spot_ticks += 1
            self.ledger.cost += self._bill[zone][tick]
        else:
            self.ledger.on_demand_ticks += 1
            self.ledger.cost += self._on_demand_bill[zone]
        burnt = min(self.overhead, gap)
        self.overhead -= burnt
        self.work = min(gap - burnt, self.rem)
        self.rem -= self.work
        if self.work:
            self._checkpoint = zone
        if self.kind == SPOT and self.rem and not self._available[zone][tick + 1]:
            self.kind = NONE
