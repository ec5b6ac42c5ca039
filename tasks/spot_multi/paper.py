"""The public evaluator's figures on the public runs (`adrs eval --scoring paper`), its faults included.

Its score is minus the mean over scenarios of their mean cost in dollars. What is not reproduced: a cost is the run's
and never read from what a program prints, and a run that fails ends the verdict, where publicly it drops from a mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from statistics import fmean
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, Referee, Split, UsageError, quality

from . import judge
from .market import HOUR_S, Migration
from .public_rules import PublicLedger, play

_NO_MIGRATION = Migration(checkpoint_gb=0.0)


def cases(split: Split) -> list[Case]:
    """The runs of the test split, without migration. Raises UsageError for other splits: publicly there are none."""
    if split != "test":
        raise UsageError(
            f"the public evaluator has one set of runs: use --split test with --scoring paper, not {split}"
        )
    return [
        replace(case, hidden=replace(case.hidden, scenario=replace(case.hidden.scenario, migration=_NO_MIGRATION)))
        for case in judge.cases("test")
    ]


def split_note(split: Split) -> str | None:
    """As in judge.py: whether the test split is generated."""
    return judge.split_note(split)


def referee(case: Case) -> Referee:
    """One run under the public rules, see `public_rules.play`; it returns the ledger's fields."""
    return asdict((yield from play(case.hidden.scenario)))


def score(case: Case, raw: Any) -> dict[str, float]:
    """What a run cost as the public evaluator counts. A late run is not refused."""
    ledger = judge.as_ledger(PublicLedger, raw)
    job = case.hidden.scenario.job
    return {
        "cost": ledger.cost,
        "honest_cost": ledger.honest_cost,
        "late": float(ledger.finish_tick * job.gap_s > job.deadline_s),
        "finish_tick": float(ledger.finish_tick),
        "spot_ticks": float(ledger.spot_ticks),
        "on_demand_ticks": float(ledger.on_demand_ticks),
        "last_zone": float(ledger.last_zone),
        "cost_per_hour": ledger.cost / (job.duration_s / HOUR_S),
        "recorded": float(case.hidden.recorded),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Minus the mean of the scenarios' mean costs."""
    costs = judge.by_scenario(results, "cost")
    metrics = {
        "mean_cost": fmean(costs.values()),
        **{f"cost_scenario_{i}": cost for i, cost in enumerate(costs.values(), start=1)},
        "honest_mean_cost": fmean(judge.by_scenario(results, "honest_cost").values()),
        "late_runs": sum(result.metrics["late"] for result in results),
        "leaderboard_formula": judge.leaderboard_formula(fmean(judge.by_scenario(results, "cost_per_hour").values())),
        "leaderboard_coverage": 100.0 * fmean(result.metrics["recorded"] for result in results),
        **quality(results, value="cost", direction="min"),
    }
    lines = [f"{'run':<28} {'cost':>9} {'honest':>9} {'ticks':>6} {'spot':>5} {'od':>5} {'zone':>5} {'late':>5}"]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<28} {m['cost']:>9.3f} {m['honest_cost']:>9.3f} {m['finish_tick']:>6.0f}"
            f" {m['spot_ticks']:>5.0f} {m['on_demand_ticks']:>5.0f} {m['last_zone']:>5.0f} {m['late']:>5.0f}"
        )
    return Combined(score=-metrics["mean_cost"], metrics=metrics, artifacts={"cases": "\n".join(lines)})
