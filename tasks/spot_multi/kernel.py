"""Compiled parts of the judge: the clairvoyant bound's inner problem, and Uniform Progress in one zone.

Compiled for their one signature when imported and cached on disk, so that a process forked later compiles nothing.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled


@compiled(
    "UniTuple(float64, 2)(boolean[:,::1], float64[:,::1], float64[::1], int64[::1], int64[::1], float64, float64)"
)
def relaxed_run(available, bill, on_demand_bill, regions, times, egress, reward):  # type: ignore[no-untyped-def]
    """The least of (bill - reward * seconds of work) over all runs that know the future, and the work of such a run.

    `available` and `bill` (dollars per gap) are [zones, ticks], `regions` numbers the zones' regions from 0, `times`
    holds gap, restart and transfer seconds. A run may stop at any amount of work, 0 included, and work on beyond the
    job's. It is a sequence of instances that each outlive their overhead: one that does not costs and gives nothing.
    """
    gap, restart, transfer = times[0], times[1], times[2]
    zones, ticks = available.shape
    groups = 0
    for zone in range(zones):
        groups = max(groups, regions[zone] + 1)
    # idle[t, g]: nothing runs at tick t and the newest checkpoint lies in region g; g = groups: there is none
    idle = np.zeros((ticks + 1, groups + 1))
    idle_work = np.zeros((ticks + 1, groups + 1))
    # running[t, z, k]: an instance without overhead is there at tick t if it can be; k = 0 spot, 1 on demand
    running = np.zeros((ticks + 1, zones, 2))
    running_work = np.zeros((ticks + 1, zones, 2))
    ahead = np.zeros((ticks + 1, zones), np.int64)
    to_come = np.zeros((ticks + 1, zones))
    for t in range(ticks - 1, -1, -1):
        for zone in range(zones):
            ahead[t, zone] = ahead[t + 1, zone] + 1 if available[zone, t] else 0
            to_come[t, zone] = to_come[t + 1, zone] + bill[zone, t]
        for group in range(groups + 1):
            best = idle[t + 1, group]
            best_work = idle_work[t + 1, group]
            for zone in range(zones):
                far = group < groups and regions[zone] != group
                overhead = restart + transfer if far else restart
                gaps = max(1, -(-overhead // gap))
                if t + gaps > ticks:
                    continue
                worked = gaps * gap - overhead
                fixed = (egress if far else 0.0) - reward * worked
                if ahead[t, zone] >= gaps:
                    value = fixed + to_come[t, zone] - to_come[t + gaps, zone] + running[t + gaps, zone, 0]
                    if value < best:
                        best = value
                        best_work = worked + running_work[t + gaps, zone, 0]
                value = fixed + gaps * on_demand_bill[zone] + running[t + gaps, zone, 1]
                if value < best:
                    best = value
                    best_work = worked + running_work[t + gaps, zone, 1]
            idle[t, group] = best
            idle_work[t, group] = best_work
        for zone in range(zones):
            for kind in range(2):
                best = idle[t, regions[zone]]
                best_work = idle_work[t, regions[zone]]
                if kind == 1 or available[zone, t]:
                    price = on_demand_bill[zone] if kind == 1 else bill[zone, t]
                    value = price - reward * gap + running[t + 1, zone, kind]
                    if value < best:
                        best = value
                        best_work = gap + running_work[t + 1, zone, kind]
                running[t, zone, kind] = best
                running_work[t, zone, kind] = best_work
    return idle[0, groups], idle_work[0, groups]


@compiled("float64(boolean[::1], float64[::1], float64, int64[::1])")
def uniform_progress(available, bill, on_demand_bill, times):  # type: ignore[no-untyped-def]
    """Dollars of Uniform Progress with hysteresis in one zone, under the rules of this task.

    `bill` is dollars per gap [ticks]; `times` holds gap, duration, deadline and restart seconds. Source: "Can't Be
    Late" (NSDI 2024): progress is held at the pace duration/deadline; behind it and without spot, on demand runs, and
    is left again only when the job is ahead of the pace by two restarts.
    """
    gap, duration, deadline, restart = times[0], times[1], times[2], times[3]
    last_tick = deadline // gap
    rem, overhead, kind, cost, t = duration, 0, 0, 0.0, 0
    while rem > 0:
        if kind == 1 and not available[t]:
            kind = 0
        done = duration - rem
        if -(-(rem + restart) // gap) >= last_tick - t:
            request = kind if kind == 2 or (kind == 1 and overhead == 0) else 2
        elif kind == 2 and done * deadline < duration * (t * gap + 2 * restart):
            request = 2
        elif available[t]:
            request = 1
        elif done * deadline < duration * t * gap:
            request = 2
        else:
            request = 0
        if request != 0 and request != kind:
            overhead = restart
        kind = request
        if kind != 0:
            cost += bill[t] if kind == 1 else on_demand_bill
            burnt = min(overhead, gap)
            overhead -= burnt
            rem -= min(gap - burnt, rem)
        t += 1
    return cost
