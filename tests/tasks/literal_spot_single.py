"""A slow simulator of spot_single, one run at a time, kept close to the words of the rules, and a search of schedules.

It shares no code with the task.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

NONE, SPOT, ON_DEMAND = 0, 1, 2
DOLLARS_PER_HOUR = {NONE: 0.0, SPOT: 0.9731, ON_DEMAND: 3.06}


@dataclass
class Run:
    """A run under way, as a strategy may see it, and its books."""

    deadline: float
    overhead: float
    gap: float
    task: float
    tick: int = 0
    cluster: int = NONE
    overhead_left: float = 0.0
    history: list[int] = field(default_factory=list)
    work: list[float] = field(default_factory=list)
    cost: float = 0.0
    finish: int = -1
    rescued: int = 0
    launches: int = 0

    @property
    def rest(self) -> float:
        return self.task - sum(self.work)


class BeyondTraceError(Exception):
    """Spot was asked for after the last gap of the trace."""


Strategy = Callable[[Run, int, bool], int]
"""(run, what ran in the gap that ended, whether spot can run) -> what is wanted."""


def simulate(available: Sequence[bool], run: Run, strategy: Strategy, mended: bool) -> Run:
    """Play a run to its end; by the public rules two more decisions follow the one that finds the work done."""
    while run.finish < 0:
        last, has_spot = observe(available, run)
        run.cost = sum_left_to_right(DOLLARS_PER_HOUR[kind] * run.gap / 3600 for kind in run.history)
        if run.rest <= 1e-8:
            run.finish = run.tick
            if mended:
                break
        decide(available, run, last, has_spot, strategy(run, last, has_spot), mended)
    if not mended:
        last, has_spot = observe(available, run)
        decide(available, run, last, has_spot, strategy(run, last, has_spot), mended)
    return run


def sum_left_to_right(values: object) -> float:
    total = 0.0
    for value in values:  # type: ignore[attr-defined]
        total += value
    return total


def observe(available: Sequence[bool], run: Run) -> tuple[int, bool]:
    if run.tick < len(available):
        last, has_spot = run.cluster, bool(available[run.tick])
        run.history.append(last)
    else:
        last, has_spot = NONE, False
    if last == SPOT and not has_spot:
        run.cluster = NONE
    if last == NONE:
        run.work.append(0.0)
    else:
        work = max(run.gap - run.overhead_left, 0)
        run.overhead_left -= run.gap - work
        if run.overhead_left < 1e-3:
            run.overhead_left = 0.0
        run.work.append(min(work, run.task - sum(run.work)))
    return last, has_spot


def decide(available: Sequence[bool], run: Run, last: int, has_spot: bool, wanted: int, mended: bool) -> None:
    request = wanted
    if run.rest > 1e-3:
        left = math.floor((run.deadline - run.tick * run.gap) / run.gap) * run.gap
        need = math.ceil((run.rest + run.overhead) / run.gap) * run.gap
        if need >= left:
            request = SPOT if last == SPOT and run.overhead_left < 1e-3 else ON_DEMAND
            if mended and request == SPOT and not has_spot:
                request = ON_DEMAND
            run.rescued += mended or request != wanted
    if request == SPOT and not has_spot:
        if run.tick >= len(available):
            raise BeyondTraceError
        request = NONE
    current = NONE if last == SPOT and not has_spot else last
    if request != NONE and request != current:
        run.overhead_left = run.overhead
        run.launches += run.finish < 0
    run.cluster = request
    run.tick += 1


def cheapest(
    available: Sequence[bool], deadline: float, overhead: float, gap: float, task: float, guarantee: bool
) -> float:
    """Dollars of the cheapest schedule by trying all, with the whole trace known; inf when none meets the deadline."""

    @cache
    def rest_of(tick: int, last: int, overhead_left: float, done: float) -> float:
        if task - done <= 1e-8:
            return 0.0
        if (tick + 1) * gap > deadline:
            return math.inf
        has_spot = bool(available[tick])
        current = NONE if last == SPOT and not has_spot else last
        options = {NONE, ON_DEMAND, SPOT} if has_spot else {NONE, ON_DEMAND}
        left = math.floor((deadline - tick * gap) / gap)
        if guarantee and math.ceil((task - done + overhead) / gap) >= left:
            options = {SPOT if last == SPOT and overhead_left < 1e-3 and has_spot else ON_DEMAND}
        best = math.inf
        for kind in options:
            burn = overhead if kind not in (NONE, current) else overhead_left
            work = 0.0 if kind == NONE else max(gap - burn, 0.0)
            burn_left = burn if kind == NONE else max(burn - gap, 0.0)
            price = DOLLARS_PER_HOUR[kind] * gap / 3600
            best = min(best, price + rest_of(tick + 1, kind, burn_left, min(done + work, task)))
        return best

    return rest_of(0, NONE, 0.0, 0.0)
