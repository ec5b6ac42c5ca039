"""Slow versions of what the task spot_multi computes, second by second and by exhaustion, kept for comparison."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from adrs_ray.private_import import import_private
from adrs_ray.task import Case, CaseResult, Combined, builtin_tasks

FOLDER = builtin_tasks()["spot_multi"]
MARKET: ModuleType = import_private(FOLDER, "market")
ADAPTER: ModuleType = import_private(FOLDER, "adapter")

Policy = Callable[[list[float]], tuple[int, int]]
"""From an observation to (zone, request)."""


def drive(judge: Any, source: str, case: Case) -> Any:
    """The ledger of a program's run, in this process."""
    random.seed(case.seed)
    np.random.seed(case.seed)
    program = ADAPTER.load(source)
    game = judge.referee(case)
    try:
        observation = next(game)
        while True:
            observation = game.send(ADAPTER.act(program, observation))
    except StopIteration as ended:
        return SimpleNamespace(**ended.value)


def judged(judge: Any, source: str, split: str) -> Combined:
    """The result of a program on a split, in this process."""
    results = [CaseResult(c.id, judge.score(c, vars(drive(judge, source, c))), 0.25, 0.5) for c in judge.cases(split)]
    combined: Combined = judge.combine(results)
    return combined


def played(play: Any, scenario: Any, policy: Policy) -> Any:
    """The ledger of a policy's run under the rules `play`."""
    game = play(scenario)
    try:
        observation = next(game)
        while True:
            row = observation["tick"] if isinstance(observation, dict) else observation
            observation = game.send(np.array(policy(row.tolist()), dtype=np.int64))
    except StopIteration as ended:
        return ended.value


def literal_run(scenario: Any, policy: Policy) -> dict[str, float]:
    """A run under the sound rules, its seconds counted one by one and its money entry by entry."""
    job, market, migration = scenario.job, scenario.market, scenario.migration
    region = [MARKET.region_of(zone) for zone in market.zones]
    bills: list[float] = []
    launched: list[int] = []
    focus, last, instance, checkpoint, overhead, worked, total, tick, asked = 0, 0, None, None, 0, 0, 0, 0, 0
    while total < job.duration_s:
        if instance is not None and instance[1] == 1 and not market.available[instance[0], tick]:
            instance = None
        ticks_on_demand = 0
        while ticks_on_demand * job.gap_s < job.restart_s + job.duration_s - total:
            ticks_on_demand += 1
        if tick + 1 + ticks_on_demand > job.deadline_s // job.gap_s:  # waiting for one gap would be too long
            wanted: tuple[int, int] | None = _forced(scenario, instance, checkpoint, overhead, total, tick, focus)
        else:
            asked += 1
            price = [
                market.spot_usd_h[z, tick] if market.available[z, tick] else np.nan for z in range(len(market.zones))
            ]
            kind = 0 if instance is None else instance[1]
            focus, request = policy([tick, focus, last, kind, worked, overhead, *price])
            wanted = None if request == 0 or (request == 1 and not market.available[focus, tick]) else (focus, request)
        if wanted is not None and wanted != instance:
            launched.append(wanted[0])
            overhead = job.restart_s
            if checkpoint is not None and region[wanted[0]] != region[checkpoint]:
                overhead += migration.transfer_s
                bills.append(migration.checkpoint_gb * migration.egress_usd_per_gb)
        instance = wanted
        worked = 0
        if instance is not None:
            focus = instance[0]
            price_h = market.spot_usd_h[focus, tick] if instance[1] == 1 else market.on_demand_usd_h[focus]
            bills.append(price_h * job.gap_s / 3600)
            for _ in range(job.gap_s):
                if overhead:
                    overhead -= 1
                elif total < job.duration_s:
                    total += 1
                    worked += 1
            if worked:
                checkpoint = focus
        last = 0 if instance is None else instance[1]
        tick += 1
    moves = sum(a != b for a, b in pairwise(launched))
    return {"cost": sum(bills), "finish": tick, "launches": len(launched), "moves": moves, "asked": asked}


def _forced(
    scenario: Any, instance: Any, checkpoint: int | None, overhead: int, total: int, tick: int, focus: int
) -> tuple[int, int]:
    job = scenario.job
    if instance is not None and instance[1] == 1 and overhead == 0:
        return instance[0], 1
    if instance is not None and instance[1] == 2:
        seconds = overhead + job.duration_s - total
        if tick * job.gap_s + seconds <= (job.deadline_s // job.gap_s) * job.gap_s:
            return instance[0], 2
    return (focus if checkpoint is None else checkpoint), 2


def least_cost(scenario: Any) -> float:
    """The cheapest of all runs that meet the deadline, by trying every decision at every tick."""
    job, market, migration = scenario.job, scenario.market, scenario.migration
    zones = range(len(market.zones))
    region = [MARKET.region_of(zone) for zone in market.zones]
    ticks = job.deadline_s // job.gap_s

    @cache
    def least(tick: int, instance: tuple[int, int] | None, overhead: int, checkpoint: int | None, rem: int) -> float:
        if rem == 0:
            return 0.0
        if tick == ticks:
            return float("inf")
        best = least(tick + 1, None, 0, checkpoint, rem)
        for zone in zones:
            for kind in (1, 2):
                if kind == 1 and not market.available[zone, tick]:
                    continue
                price = market.spot_usd_h[zone, tick] if kind == 1 else market.on_demand_usd_h[zone]
                cost, burn = price * job.gap_s / 3600, overhead
                if instance != (zone, kind):
                    burn = job.restart_s
                    if checkpoint is not None and region[zone] != region[checkpoint]:
                        burn += migration.transfer_s
                        cost += migration.egress_usd
                work = min(max(job.gap_s - burn, 0), rem)
                kept = zone if work else checkpoint
                best = min(best, cost + least(tick + 1, (zone, kind), max(burn - job.gap_s, 0), kept, rem - work))
        return best

    return least(0, None, 0, None, job.duration_s)
