"""One case: runs of one trace under several deadlines and overheads, played in lock step against a candidate.

The referee is told a request per run and tick, and tells what the gap brought; the future of the trace stays here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import Case, InvalidOutput, MalformedOutput

from . import policies
from .kernel import (
    BEYOND_TRACE,
    COST,
    DEADLINE_S,
    DECIDED,
    FINISH,
    IDLE_GAPS,
    LAUNCHES,
    ON_DEMAND_GAPS,
    OVERHEAD_S,
    RESCUED,
    SEEN,
    SPOT_GAPS,
    STATES,
    decide,
    observe,
    open_decisions,
)
from .optimum import optimum
from .traces import Trace

PRICES = np.array([0.0, 0.9731, 3.06])
"""Dollars per hour: idle, spot, on-demand."""

_LINGER_TICKS = 3
"""Ticks after the last deadline in which the public rules still ask; a run that is not done then never will be."""

LEADERBOARD_ENVIRONMENTS = ("us-west-2b_k80_1", "us-west-2a_v100_1", "us-west-2b_v100_1")
LEADERBOARD_SETTINGS = ((52 * 3600.0, 72.0), (70 * 3600.0, 72.0))
"""Those of the leaderboard's that are among the recorded traces and the nine settings."""


def make_case(trace: Trace, mended: bool) -> Case:
    """The case of a trace, with what its runs are held against. Raises ValueError for a job that no schedule ends."""
    settings = np.array(trace.settings)
    clock = np.array([trace.gap_s, trace.task_s])
    available = np.ascontiguousarray(trace.available)
    needed, given = (trace.task_s + settings[:, OVERHEAD_S]) / trace.gap_s, settings[:, DEADLINE_S] / trace.gap_s
    if np.any(np.ceil(needed) > np.floor(given)):
        raise ValueError(f"{trace.id}: work and overhead do not fit before the deadline in whole gaps")
    if available.size <= given.max():
        raise ValueError(f"{trace.id}: the trace must go on for a gap after the last deadline, to see what was done")
    by_leaderboard = [
        trace.environment in LEADERBOARD_ENVIRONMENTS and setting in LEADERBOARD_SETTINGS for setting in trace.settings
    ]
    late = np.array([0.0 if mended else trace.gap_s, 0.0])  # without mending, a run may end a tick after its deadline
    public = {
        "gap_seconds": trace.gap_s,
        "task_seconds": trace.task_s,
        "deadlines": np.ascontiguousarray(settings[:, DEADLINE_S]),
        "overheads": np.ascontiguousarray(settings[:, OVERHEAD_S]),
    }
    hidden = {
        "available": available,
        "leaderboard": np.array(by_leaderboard),
        "on_demand": policies.cost(policies.ALWAYS_ON_DEMAND, available, settings, clock, PRICES, mended),
        "up": policies.cost(policies.UP, available, settings, clock, PRICES, mended),
        "up_shipped": policies.cost(policies.UP_SHIPPED, available, settings, clock, PRICES, mended),
        "optimum": optimum(available, settings + late, clock, PRICES),
    }
    return Case(id=trace.id, seed=trace.seed, public=public, hidden=hidden)


def play(case: Case, mended: bool) -> Any:
    """The referee of a case: a generator whose value is the final state of the runs (float64 [runs, STATES]).

    With `mended` the rules are sound: the guarantee holds, and a candidate is not asked about a run whose work is done
    or whose every further gap the guarantee decides. Without, they are the public simulator's. Raises MalformedOutput
    for what is no request, InvalidOutput for a request for spot after the last gap of the trace.
    """
    public, available = case.public, case.hidden["available"]
    jobs = np.ascontiguousarray(np.stack([public["deadlines"], public["overheads"]], axis=1))
    clock = np.array([public["gap_seconds"], public["task_seconds"]])
    runs = len(jobs)
    state = policies.fresh_state(runs)
    seen, shown, requests = np.zeros((runs, SEEN)), np.zeros((runs, SEEN)), np.zeros(runs, np.uint8)
    begun = yield public
    if type(begun) is not int or begun != runs:
        raise MalformedOutput(f"expected the number of runs, {runs}")
    last_tick = int(jobs[:, DEADLINE_S].max() // clock[0]) + _LINGER_TICKS
    tick = 0
    while observe(tick, available, clock, PRICES, not mended, state, seen) and tick <= last_tick:
        if not mended or open_decisions(tick, jobs, clock, state, seen, shown):
            answer = yield shown if mended else seen
            if not isinstance(answer, np.ndarray) or answer.dtype != np.uint8 or answer.shape != (runs,):
                raise MalformedOutput(answer if isinstance(answer, str) else f"expected {runs} cluster types")
            requests[:] = answer
        outcome = decide(tick, available, requests, jobs, clock, mended, state, seen)
        if outcome != DECIDED:
            _refuse(outcome, tick)
        tick += 1
    return state


def _refuse(outcome: int, tick: int) -> None:
    if outcome == BEYOND_TRACE:
        raise InvalidOutput(f"tick {tick}: asked for spot after the end of the trace, which ends the public simulator")
    raise MalformedOutput(f"tick {tick}: a request is no cluster type")


def outcome(case: Case, raw: Any) -> dict[str, float]:
    """Metrics of one played case: `cost_*` by run and sums (`dollars*`) in dollars, the rest means over its runs.

    Raises MalformedOutput when `raw` is not what `play` gives.
    """
    hidden: Mapping[str, NDArray[Any]] = case.hidden
    deadlines = case.public["deadlines"]
    if not isinstance(raw, np.ndarray) or raw.shape != (len(deadlines), STATES) or raw.dtype != np.float64:
        raise MalformedOutput("expected the final state of the runs")
    cost = raw[:, COST]
    metrics = {
        setting_name(deadline_s, overhead_s): float(value)
        for deadline_s, overhead_s, value in zip(deadlines, case.public["overheads"], cost, strict=True)
    }
    saving, saving_shipped = 1 - cost / hidden["up"], 1 - cost / hidden["up_shipped"]
    return metrics | {
        "runs": float(len(cost)),
        "calls": float(raw[:, FINISH].sum()),
        "dollars": float(cost.sum()),
        "dollars_on_demand": float(hidden["on_demand"].sum()),
        "dollars_up": float(hidden["up"].sum()),
        "dollars_up_shipped": float(hidden["up_shipped"].sum()),
        "dollars_optimum": float(hidden["optimum"].sum()),
        "saved": 1 - float(cost.sum() / hidden["on_demand"].sum()),
        "saving_vs_up": 100 * float(saving.mean()),
        "saving_vs_up_max": 100 * float(saving.max()),
        "saving_vs_up_shipped": 100 * float(saving_shipped.mean()),
        "saving_vs_up_shipped_max": 100 * float(saving_shipped.max()),
        "late_runs": float(late_runs(case, raw)),
        "changeovers": float(raw[:, LAUNCHES].mean()),
        "rescued_ticks": float(raw[:, RESCUED].mean()),
        "spot_gaps": float(raw[:, SPOT_GAPS].mean()),
        "on_demand_gaps": float(raw[:, ON_DEMAND_GAPS].mean()),
        "idle_gaps": float(raw[:, IDLE_GAPS].mean()),
        "leaderboard_runs": float(hidden["leaderboard"].sum()),
        "leaderboard_cost": float(cost[hidden["leaderboard"]].sum()),
    }


def late_runs(case: Case, raw: NDArray[np.float64]) -> int:
    """How many runs ended after their deadline, or not at all."""
    ended_s = raw[:, FINISH] * case.public["gap_seconds"]
    return int(np.count_nonzero((raw[:, FINISH] < 0) | (ended_s > case.public["deadlines"])))


def setting_name(deadline_s: float, overhead_s: float) -> str:
    """The metric that holds the cost of a setting, such as `cost_d52_o0.02` (hours)."""
    return f"cost_d{deadline_s / 3600:g}_o{overhead_s / 3600:g}"
