"""The trusted side under sound rules: a run is never late, and the score is the share of dollars saved.

A case is one spot trace with several runs (deadline, overhead). The score of a split is 1 - C / B, C the dollars of all
its runs and B those of always on-demand: 0 saves nothing, `score_bound` is what knowing the future would save.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, Split

from . import game, splits, summary


def cases(split: Split) -> list[Case]:
    """The traces of a split. Raises UsageError when the recorded file is there with another content."""
    return splits.cases(split, mended=True)


def split_note(split: Split) -> str | None:
    """Says so when the test split is generated because the public traces are not on this machine."""
    return splits.note(split)


def referee(case: Case) -> Any:
    """Plays a case; see `game.play`."""
    return game.play(case, mended=True)


def score(case: Case, raw: Any) -> dict[str, float]:
    """Metrics of a case from the final state of its runs.

    Raises InvalidOutput when a run ended after its deadline, whatever the candidate asked for.
    """
    metrics = game.outcome(case, raw)
    if metrics["late_runs"]:
        raise InvalidOutput(f"{case.id}: {metrics['late_runs']:.0f} of {metrics['runs']:.0f} runs missed the deadline")
    return metrics


def combine(results: Sequence[CaseResult]) -> Combined:
    """The score, the share of always-on-demand dollars that was saved, and the metrics of a split."""
    metrics = summary.metrics(results)
    metrics["score_bound"] = 1 - metrics["optimum_cost"] / metrics["on_demand_cost"]
    return Combined(score=metrics["saved"], metrics=metrics, artifacts={"cases": summary.table(results)})
