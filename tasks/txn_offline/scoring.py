"""From the makespans of a triple to its metrics, and from those of its cases to the score of a split.

Let B be the sum of the three makespans in arrival order, M that of the candidate's schedules and L that of proven lower
bounds. The improvement of a case is (B - M) / (B - L): 0 is arrival order, 1 cannot be beaten, below 0 is worse than
doing nothing. The score of a split is the mean improvement of its cases. Shared by the offline and the online task.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from adrs_ray.task import CaseResult, Combined, quality

from .triples import Reference


def figures(reference: Reference, makespans: Sequence[int]) -> dict[str, float]:
    """The metrics of one case from the makespans of its three schedules, in ticks."""
    total = sum(makespans)
    return {
        **{f"makespan_{i}": float(makespan) for i, makespan in enumerate(makespans, start=1)},
        "makespan": float(total),
        "arrival_makespan": float(reference.arrival),
        "lower_bound": float(reference.lower_bound),
        "operations": float(reference.operations),
        "improvement": (reference.arrival - total) / (reference.arrival - reference.lower_bound),
        "score_bound": 1.0,
        "leaderboard_formula": leaderboard_formula(total, reference.arrival, reference.longest),
        "leaderboard_coverage": 100.0 if reference.recorded else 0.0,
    }


def leaderboard_formula(makespan: float, arrival: float, longest: float) -> float:
    """The ADRS leaderboard's score, 0..100: 100 at or below E = O + 0.10 (B - O), 0 at or above arrival order B.

    Comparable with published numbers only on the public triple (metric `leaderboard_coverage` = 100).
    """
    good = longest + 0.10 * (arrival - longest)
    return 100.0 * min(1.0, max(0.0, (arrival - makespan) / (arrival - good)))


def combine_cases(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases of a split, with `quality`. The score is the mean improvement."""
    metrics = {name: fmean(result.metrics[name] for result in results) for name in results[0].metrics}
    metrics |= quality(results, value="improvement", direction="max", size="operations")
    lines = [f"{'case':<18} {'makespans':>18} {'sum':>6} {'arrival':>8} {'bound':>6} {'improvement':>12}"]
    for result in results:
        m = result.metrics
        parts = " + ".join(f"{m[f'makespan_{i}']:.0f}" for i in (1, 2, 3))
        lines.append(
            f"{result.case:<18} {parts:>18} {m['makespan']:>6.0f} {m['arrival_makespan']:>8.0f}"
            f" {m['lower_bound']:>6.0f} {m['improvement']:>12.4f}"
        )
    return Combined(score=metrics["improvement"], metrics=metrics, artifacts={"cases": "\n".join(lines)})
