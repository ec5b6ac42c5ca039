"""The trusted side under the public evaluator's rules, faults included: its figures on the public traces.

Runs may end late, the guarantee has its hole, candidates are asked again when their work is done, and the score is
-(mean cost) - 0.25 * (population standard deviation), in dollars, over all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, Split

from . import game, splits, summary


def cases(split: Split) -> list[Case]:
    """The public traces, or their stand-ins. Raises UsageError for a split other than test."""
    splits.only_test(split)
    return splits.cases(split, mended=False)


def split_note(split: Split) -> str | None:
    """Says so when the traces are generated because the public ones are not on this machine."""
    return splits.note(split)


def referee(case: Case) -> Any:
    """Plays a case by the public rules; see `game.play`."""
    return game.play(case, mended=False)


def score(case: Case, raw: Any) -> dict[str, float]:
    """Metrics of a case from the final state of its runs; late runs are counted, not refused."""
    return game.outcome(case, raw)


def combine(results: Sequence[CaseResult]) -> Combined:
    """The public combined score, which is also the metric `paper_combined`, and the metrics of the split.

    `score_bound` is minus the cheapest mean that knowing the future allows (runs may end one tick late); the deviation
    is at least 0.
    """
    metrics = summary.metrics(results)
    combined = -metrics["mean_cost"] - 0.25 * metrics["cost_std"]
    metrics["paper_combined"] = combined
    metrics["score_bound"] = -metrics["optimum_cost"]
    return Combined(score=combined, metrics=metrics, artifacts={"cases": summary.table(results)})
