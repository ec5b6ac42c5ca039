"""What runs are held against, computed by the judge: always on-demand and the two forms of Uniform Progress.

Uniform Progress (Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under Deadlines", NSDI 2024) keeps the
work done in step with elapsed time * work / deadline. The form of the paper stays on an on-demand instance until a spot
instance is there and progress is ahead by two overheads; the form that the public repository ships as its reference
goes to spot as soon as there is any. The tests hold both against the programs in `baselines/`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import compiled
from .kernel import (
    CLUSTER,
    COST,
    DEADLINE_S,
    DONE_S,
    FINISH,
    HAS_SPOT,
    NONE,
    NOW,
    ON_DEMAND,
    OVERHEAD_S,
    SEEN,
    SPOT,
    STATES,
    decide,
    observe,
)

ALWAYS_ON_DEMAND, UP, UP_SHIPPED = 0, 1, 2
_REST_S = 1e-3


@compiled("uint8(int64, int64, boolean, float64, float64, float64, float64, float64, float64)")
def uniform_progress(form, now, has_spot, elapsed_s, done_s, gap, work_s, deadline_s, overhead_s):  # type: ignore[no-untyped-def]
    """The cluster type that a form of Uniform Progress asks for."""
    rest_s = work_s - done_s
    if rest_s <= _REST_S:
        return NONE
    behind = elapsed_s * work_s / deadline_s - done_s > 0
    ahead = (elapsed_s + 2 * overhead_s) * work_s / deadline_s - done_s < 0
    gaps_left = np.floor((deadline_s - elapsed_s) / gap)
    spot_or = ON_DEMAND if behind else NONE
    if form == UP:
        if np.ceil((rest_s + 2 * overhead_s) / gap) >= gaps_left:
            return SPOT if now == SPOT and has_spot else ON_DEMAND
        if now == ON_DEMAND and not (has_spot and ahead):
            return ON_DEMAND
        return SPOT if has_spot else spot_or
    if np.ceil((rest_s + overhead_s) / gap) >= gaps_left:
        return ON_DEMAND
    if has_spot:
        return SPOT
    return ON_DEMAND if now == ON_DEMAND and not ahead else spot_or


@compiled("void(int64, boolean[::1], float64[:, ::1], float64[::1], float64[::1], boolean, float64[:, ::1])")
def play(policy, available, jobs, clock, prices, mended, state):  # type: ignore[no-untyped-def]
    """Run a policy on every job of a trace; `state` is that of `kernel`, fresh."""
    runs = jobs.shape[0]
    seen = np.zeros((runs, SEEN))
    requests = np.zeros(runs, np.uint8)
    tick = 0
    while observe(tick, available, clock, prices, False, state, seen) > 0:
        for run in range(runs):
            if policy == ALWAYS_ON_DEMAND:
                requests[run] = ON_DEMAND
            else:
                requests[run] = uniform_progress(
                    policy,
                    int(seen[run, NOW]),
                    seen[run, HAS_SPOT] > 0,
                    tick * clock[0],
                    state[run, DONE_S],
                    clock[0],
                    clock[1],
                    jobs[run, DEADLINE_S],
                    jobs[run, OVERHEAD_S],
                )
        decide(tick, available, requests, jobs, clock, mended, state, seen)
        tick += 1


def fresh_state(runs: int) -> NDArray[np.float64]:
    """The state of runs before the first tick: nothing runs, nothing is done."""
    state = np.zeros((runs, STATES))
    state[:, CLUSTER] = NONE
    state[:, FINISH] = -1
    return state


def cost(
    policy: int,
    available: NDArray[np.bool_],
    jobs: NDArray[np.float64],
    clock: NDArray[np.float64],
    prices: NDArray[np.float64],
    mended: bool,
) -> NDArray[np.float64]:
    """Dollars of each run under a policy."""
    state = fresh_state(len(jobs))
    play(policy, available, jobs, clock, prices, mended, state)
    return np.ascontiguousarray(state[:, COST])
