"""The simulator's kernel: one tick of several runs over one spot trace, in lock step.

Time goes in gaps of `gap` seconds; tick t is the start of gap t. At each tick a run is observed (what ran in the gap
that just ended, what work that did), the candidate asks for a cluster type, the guarantee may overrule it, and what is
left of the request runs during the gap. README.md holds the rules; the tests compare this with a literal version.

`jobs` is float64 [runs, 2], `state` float64 [runs, STATES], `seen` float64 [runs, SEEN]; columns are named below.
Times are in seconds, costs in dollars. Compiled for one signature when imported and cached on disk, so that a process
forked later compiles nothing.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

NONE, SPOT, ON_DEMAND = 0, 1, 2
"""Cluster types, as they travel."""

DEADLINE_S, OVERHEAD_S = 0, 1
"""Columns of `jobs`."""

CLUSTER, OVERHEAD_LEFT, DONE_S, COST, FINISH, LAUNCHES, RESCUED, SPOT_GAPS, ON_DEMAND_GAPS, IDLE_GAPS = range(10)
"""Columns of `state`: type that runs (or ran in the gap that just ended), overhead still to burn, work done, dollars
billed, tick at which the work was done (-1: not yet), launches, ticks that the guarantee decided (by the
public rules: otherwise than the request), gaps billed by type (idle ones from tick 0 on)."""
STATES = 10

TICK, HAS_SPOT, ASKED, LAST, NOW, BURN, WORK = range(7)
"""Columns of `seen`: the tick, whether spot can run in the gap that starts, whether the candidate is asked, the type of
the gap that just ended, the type that still runs (NONE after a preemption), overhead still to burn, work of the gap
that just ended."""
SEEN = 7

DECIDED, NO_TYPE, BEYOND_TRACE = range(3)
"""What becomes of a decision; NO_TYPE: a request is no cluster type. BEYOND_TRACE: it is for spot, there."""

DONE_EPS_S = 1e-8
GUARANTEE_EPS_S = 1e-3
OVERHEAD_EPS_S = 1e-3


@compiled("int64(int64, boolean[::1], float64[::1], float64[::1], boolean, float64[:, ::1], float64[:, ::1])")
def observe(tick, available, clock, prices, linger, state, seen):  # type: ignore[no-untyped-def]
    """Account for the gap that just ended and fill `seen`; the number of runs whose candidate is asked.

    `clock` is (gap, work of the job) in seconds, `prices` dollars per hour by type. With `linger` a candidate is also
    asked at the tick that finds the work done and at the one after that, as the public evaluator does.
    """
    gap, work_s = clock[0], clock[1]
    in_trace = tick < available.size
    has_spot = in_trace and available[tick]
    asked = 0
    for run in range(state.shape[0]):
        last = int(state[run, CLUSTER]) if in_trace else NONE
        work = 0.0
        if state[run, FINISH] < 0:
            if in_trace:
                state[run, COST] += prices[last] * gap / 3600
            if last == SPOT:
                state[run, SPOT_GAPS] += 1
            elif last == ON_DEMAND:
                state[run, ON_DEMAND_GAPS] += 1
            elif tick > 0:
                state[run, IDLE_GAPS] += 1
        if last != NONE:
            work = max(gap - state[run, OVERHEAD_LEFT], 0.0)
            state[run, OVERHEAD_LEFT] -= gap - work
            if state[run, OVERHEAD_LEFT] < OVERHEAD_EPS_S:
                state[run, OVERHEAD_LEFT] = 0.0
            work = min(work, work_s - state[run, DONE_S])
        state[run, DONE_S] += work
        if state[run, FINISH] < 0 and work_s - state[run, DONE_S] <= DONE_EPS_S:
            state[run, FINISH] = tick
        finish = state[run, FINISH]
        ask = finish < 0 or (linger and tick <= finish + 1)
        asked += ask
        seen[run, TICK] = tick
        seen[run, HAS_SPOT] = has_spot
        seen[run, ASKED] = ask
        seen[run, LAST] = last
        seen[run, NOW] = NONE if last == SPOT and not has_spot else last
        seen[run, BURN] = state[run, OVERHEAD_LEFT]
        seen[run, WORK] = work
    return asked


@compiled(
    "int64(int64, boolean[::1], uint8[::1], float64[:, ::1], float64[::1], boolean, float64[:, ::1], float64[:, ::1])"
)
def decide(tick, available, requests, jobs, clock, mended, state, seen):  # type: ignore[no-untyped-def]
    """Turn requests into what runs in the gap that starts: DECIDED, NO_TYPE or BEYOND_TRACE, which end the game.

    With `mended` the guarantee falls back to on-demand where the spot instance it would keep has just been lost;
    without, as in the public simulator, nothing runs then.
    """
    gap, work_s = clock[0], clock[1]
    in_trace = tick < available.size
    has_spot = in_trace and available[tick]
    for run in range(state.shape[0]):
        if seen[run, ASKED] == 0:
            continue
        request = int(requests[run])
        if request > ON_DEMAND:
            return NO_TYPE
        last, overhead = int(seen[run, LAST]), jobs[run, OVERHEAD_S]
        remaining = work_s - state[run, DONE_S]
        if remaining > GUARANTEE_EPS_S:
            left = np.floor((jobs[run, DEADLINE_S] - tick * gap) / gap) * gap
            need = np.ceil((remaining + overhead) / gap) * gap
            if need >= left:
                keep = last == SPOT and state[run, OVERHEAD_LEFT] < OVERHEAD_EPS_S and (has_spot or not mended)
                forced = SPOT if keep else ON_DEMAND
                state[run, RESCUED] += mended or forced != request
                request = forced
        if request == SPOT and not has_spot:
            if not in_trace:
                return BEYOND_TRACE
            request = NONE
        if request != NONE and request != int(seen[run, NOW]):
            state[run, OVERHEAD_LEFT] = overhead
            state[run, LAUNCHES] += state[run, FINISH] < 0
        state[run, CLUSTER] = request
    return DECIDED


@compiled("int64(int64, float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1])")
def open_decisions(tick, jobs, clock, state, seen, shown):  # type: ignore[no-untyped-def]
    """Copy `seen` to `shown` without the runs that the guarantee decides; the number of runs that are left to ask.

    Once the guarantee decides it does so until the work is done: neither work nor deadline can come closer by more than
    the gap that passes.
    """
    gap, work_s = clock[0], clock[1]
    asked = 0
    for run in range(state.shape[0]):
        shown[run] = seen[run]
        remaining = work_s - state[run, DONE_S]
        left = np.floor((jobs[run, DEADLINE_S] - tick * gap) / gap) * gap
        need = np.ceil((remaining + jobs[run, OVERHEAD_S]) / gap) * gap
        if remaining > GUARANTEE_EPS_S and need >= left:
            shown[run, ASKED] = 0
        asked += shown[run, ASKED] != 0
    return asked
