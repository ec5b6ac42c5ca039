"""The trusted side: the runs of a split, the referee, what a run cost against what it might have, and the score.

The score of a split is 1 - (cost / cost of always on-demand), first averaged over the runs of a scenario, then over
scenarios: 0 is always on-demand, above it is saved. `score_bound` is the same with proven lower bounds as costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Referee, Split, quality

from . import splits
from .bound import lower_bound, uniform_progress_costs
from .market import HOUR_S, Scenario
from .recorded import data, public_runs
from .rules import Ledger, play

_SEEDS = {"train": 1_000, "validation": 2_000, "test": 3_000, "stress": 4_000}
ON_DEMAND_USD_H, SPOT_USD_H = 3.06, 0.9731
"""What the leaderboard takes for the prices in every zone."""

_Ledger = TypeVar("_Ledger")


@dataclass(frozen=True, slots=True)
class References:
    """What a run is held against, in dollars."""

    on_demand: float
    """Always on demand, where that is cheapest."""
    bound: float
    first_zone: float
    """Uniform Progress in the first zone."""
    best_zone: float
    """Uniform Progress in the zone where it costs least, known in hindsight."""


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the judge keeps of a case."""

    scenario: Scenario
    recorded: bool


def cases(split: Split) -> list[Case]:
    """The runs of a split. Raises UsageError when the recorded file is there with another content."""
    public = public_runs() if split == "test" else None
    if public is not None:
        return [_case(run, index, split, recorded=True) for index, run in enumerate(public)]
    generated = {
        "train": splits.train,
        "validation": splits.validation,
        "test": splits.test_stand_in,
        "stress": splits.stress,
    }[split]()
    return [_case(run, index, split, recorded=False) for index, run in enumerate(generated)]


def split_note(split: Split) -> str | None:
    """Says so when the test split is generated because the public traces are not on this machine."""
    if split != "test" or public_runs() is not None:
        return None
    return f"generated: {data().file} is not here (`adrs data pull spot_multi` fetches the public traces)"


def referee(case: Case) -> Referee:
    """One run as a game, see `rules.play`; it returns the ledger's fields."""
    return asdict((yield from play(case.hidden.scenario)))


def as_ledger(kind: type[_Ledger], raw: Any) -> _Ledger:
    """The ledger that a referee gave back as its fields. Raises MalformedOutput."""
    try:
        return kind(**raw)
    except TypeError:
        raise MalformedOutput(f"expected the ledger of a run, got {str(raw)[:100]}") from None


def score(case: Case, raw: Any) -> dict[str, float]:
    """What a run cost and what it is held against, from the referee's ledger.

    Raises InvalidOutput for a run that ended after its deadline.
    """
    ledger = as_ledger(Ledger, raw)
    scenario: Scenario = case.hidden.scenario
    job = scenario.job
    if ledger.finish_tick > job.deadline_ticks:
        raise InvalidOutput(f"done {(ledger.finish_tick * job.gap_s - job.deadline_s) / 60:.1f} minutes late")
    held = references(scenario)
    return {
        "cost": ledger.cost,
        "relative_cost": ledger.cost / held.on_demand,
        "egress": ledger.egress,
        "moves": float(ledger.moves),
        "changeovers": float(max(0, ledger.launches - 1)),
        "rescued_ticks": float(ledger.guaranteed_ticks),
        "spot_hours": ledger.spot_ticks * job.gap_s / HOUR_S,
        "on_demand_hours": ledger.on_demand_ticks * job.gap_s / HOUR_S,
        "on_demand_cost": held.on_demand,
        "bound": held.bound,
        "saved_best_zone": 100.0 * (1.0 - ledger.cost / held.best_zone),
        "saved_first_zone": 100.0 * (1.0 - ledger.cost / held.first_zone),
        "cost_per_hour": ledger.cost / (job.duration_s / HOUR_S),
        "recorded": float(case.hidden.recorded),
        "observed": float(ledger.asked_ticks * len(scenario.market.zones)),
    }


@cache
def references(scenario: Scenario) -> References:
    """What a run is held against; computed once per process."""
    job, market = scenario.job, scenario.market
    zones = uniform_progress_costs(scenario)
    gap_usd = market.on_demand_usd_h.min() * job.gap_s / HOUR_S
    return References(
        on_demand=float(np.cumsum(np.full(job.on_demand_ticks, gap_usd))[-1]),  # added up as a ledger is
        bound=lower_bound(scenario),
        first_zone=zones[0],
        best_zone=min(zones),
    )


def by_scenario(results: Sequence[CaseResult], metric: str) -> dict[str, float]:
    """Mean of a case metric per scenario, in the order of the cases."""
    found: dict[str, list[float]] = {}
    for result in results:
        found.setdefault(result.case.rpartition("/")[0], []).append(result.metrics[metric])
    return {scenario: fmean(values) for scenario, values in found.items()}


def combine(results: Sequence[CaseResult]) -> Combined:
    """Scenario means and their mean; everything else is a mean over runs."""
    mean = {name: fmean(result.metrics[name] for result in results) for name in results[0].metrics}
    costs = by_scenario(results, "cost")
    on_demand = by_scenario(results, "on_demand_cost")
    bounds = by_scenario(results, "bound")
    value = 1.0 - fmean(costs[name] / on_demand[name] for name in costs)
    best = 1.0 - fmean(bounds[name] / on_demand[name] for name in costs)
    metrics = {
        "mean_cost": fmean(costs.values()),
        **{f"cost_scenario_{i}": cost for i, cost in enumerate(costs.values(), start=1)},
        "relative_cost": mean["relative_cost"],
        "score_bound": best,
        "gap_closed": value / best if best > 0 else 1.0,
        "savings_vs_best_single_region": mean["saved_best_zone"],
        "savings_vs_first_region": mean["saved_first_zone"],
        "egress_cost": mean["egress"],
        "moves": mean["moves"],
        "changeovers": mean["changeovers"],
        "rescued_ticks": mean["rescued_ticks"],
        "spot_hours": mean["spot_hours"],
        "on_demand_hours": mean["on_demand_hours"],
        "late_runs": 0.0,
        "leaderboard_formula": leaderboard_formula(fmean(by_scenario(results, "cost_per_hour").values())),
        "leaderboard_coverage": 100.0 * mean["recorded"],
        **quality(results, value="relative_cost", direction="min", size="observed"),
    }
    return Combined(score=value, metrics=metrics, artifacts={"cases": _table(results)})


def leaderboard_formula(usd_h: float) -> float:
    """The ADRS leaderboard's score, 0..100, of dollars per hour of the job: 0 at on demand, 100 at spot throughout.

    Comparable with published numbers only on the public runs (metric `leaderboard_coverage` = 100).
    """
    return 100.0 * min(1.0, max(0.0, (ON_DEMAND_USD_H - usd_h) / (ON_DEMAND_USD_H - SPOT_USD_H)))


def _table(results: Sequence[CaseResult]) -> str:
    lines = [
        f"{'run':<28} {'cost':>8} {'bound':>8} {'UP best':>8} {'on dem.':>8} {'spot h':>7} {'od h':>6}"
        f" {'moves':>5} {'starts':>6} {'forced':>6}"
    ]
    for result in results:
        m = result.metrics
        best_zone = m["cost"] / (1.0 - m["saved_best_zone"] / 100.0)
        lines.append(
            f"{result.case:<28} {m['cost']:>8.2f} {m['bound']:>8.2f} {best_zone:>8.2f} {m['on_demand_cost']:>8.2f}"
            f" {m['spot_hours']:>7.1f} {m['on_demand_hours']:>6.1f} {m['moves']:>5.0f} {m['changeovers'] + 1:>6.0f}"
            f" {m['rescued_ticks']:>6.0f}"
        )
    return "\n".join(lines)


def _case(run: Scenario, index: int, split: Split, recorded: bool) -> Case:
    return Case(id=run.id, seed=_SEEDS[split] + index, public=run.digest(), hidden=Hidden(run, recorded))
