"""What a run would cost if the future were known: the cheapest schedule of one trace, exactly.

A schedule says for every gap: idle, spot (only where the trace allows it) or on-demand. It is cut into segments, runs
of gaps of one type that is not idle; each segment begins with a launch. One that has s gaps does
max(s * gap - overhead, 0) of work. Segments without any work can be made idle: that costs less, and whatever comes next
has to be launched anyway. So among cheapest schedules there is one in which every segment burns its whole overhead, and
there

    work = gap * (gaps run) - overhead * (launches)

holds for every overhead at once. One dynamic programme over (tick, launches, gaps run, type) that keeps the least
number of on-demand gaps therefore serves all deadlines and overheads of a trace. A schedule that runs more gaps than
n(m) = ceil((work of the job + overhead * m) / gap) with m launches can drop its last one, so n(m) is all that is read.

m needs no more than 2 * (number of spells with spot) + 1: two spot segments within one spell can be joined (what lies
between becomes spot, or is moved aside when idle), which saves a launch, and so can two on-demand segments with nothing
but idle gaps between them.

The guarantee is left out: it only takes choices away, so no program can cost less than this.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled
from .kernel import DEADLINE_S, ON_DEMAND, OVERHEAD_S, SPOT

_NEVER = 20_000
"""More on-demand gaps than any trace has: no such schedule."""
_LONGEST_TRACE = 10_000
"""Gaps; `_NEVER` grows by one per gap and must stay below 2^15."""


@compiled("int16[:, :, ::1](boolean[::1], int64[::1], int64, int64)")
def fewest_on_demand(available, horizons, launches, gaps):  # type: ignore[no-untyped-def]
    """Least on-demand gaps [horizon, launches, gaps run] of schedules that end by the horizons (gaps, ascending)."""
    best = np.full((horizons.size, launches + 1, gaps + 1), _NEVER, np.int16)
    idle = np.full((launches + 1, gaps + 1), _NEVER, np.int16)
    spot = np.full((launches + 1, gaps + 1), _NEVER, np.int16)
    demand = np.full((launches + 1, gaps + 1), _NEVER, np.int16)
    idle[0, 0] = 0
    at = 0
    for tick in range(horizons[-1] + 1):
        while at < horizons.size and horizons[at] == tick:
            for m in range(launches + 1):
                for n in range(gaps + 1):
                    best[at, m, n] = min(idle[m, n], spot[m, n], demand[m, n])
            at += 1
        if tick == horizons[-1]:
            break
        has_spot = tick < available.size and available[tick]
        top = min(gaps, tick + 1)
        for m in range(min(launches, tick + 1), -1, -1):  # descending: row m reads row m - 1 as it was
            old_idle, old_spot, old_demand = idle[m], spot[m, : top + 1].copy(), demand[m, : top + 1].copy()
            for n in range(top + 1):
                old_idle[n] = min(old_idle[n], old_spot[n], old_demand[n])
            if m == 0:
                continue
            for n in range(1, top + 1):
                demand[m, n] = 1 + min(old_demand[n - 1], idle[m - 1, n - 1], spot[m - 1, n - 1])
            if has_spot:
                for n in range(1, top + 1):
                    spot[m, n] = min(old_spot[n - 1], idle[m - 1, n - 1], demand[m - 1, n - 1])
            else:
                spot[m, : top + 1] = _NEVER
    return best


def optimum(
    available: NDArray[np.bool_], jobs: NDArray[np.float64], clock: NDArray[np.float64], prices: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Dollars of the cheapest schedule of each run in `jobs` (see `kernel`), whole gaps billed; inf if there is none.

    A deadline between two ticks counts as the earlier one. Raises ValueError for traces beyond 10,000 gaps.
    """
    gap, work_s = clock
    ends = [int(job[DEADLINE_S] // gap) for job in jobs]
    if max(ends) > _LONGEST_TRACE:
        raise ValueError(f"a deadline of {max(ends)} gaps, more than {_LONGEST_TRACE}")
    horizons = np.array(sorted(set(ends)), np.int64)
    starts = int(available[0]) + int(np.count_nonzero(available[1:] & ~available[:-1]))
    launches = 2 * starts + 1
    most = min(max(ends), math.ceil((work_s + jobs[:, OVERHEAD_S].max() * launches) / gap))
    best = fewest_on_demand(available, horizons, launches, most)
    costs = np.full(len(jobs), np.inf)
    for run, (end, job) in enumerate(zip(ends, jobs, strict=True)):
        table = best[int(np.searchsorted(horizons, end))]
        for m in range(1, launches + 1):
            n = math.ceil((work_s + job[OVERHEAD_S] * m) / gap)
            if n > most or table[m, n] >= _NEVER:
                continue
            demand = int(table[m, n])
            cost = (prices[SPOT] * (n - demand) + prices[ON_DEMAND] * demand) * gap / 3600
            costs[run] = min(costs[run], cost)
    return costs
