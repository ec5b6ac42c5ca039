"""What judges tell beside a score: figures that every verdict has, and a few words for a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import linear_regression
from typing import Any, Literal

from adrs_ray.candidate import CaseResult

_MEASURABLE_CPU_S = 1e-3


def quality(
    results: Sequence[CaseResult], value: str, direction: Literal["min", "max"] = "max", size: str | None = None
) -> dict[str, float]:
    """What every verdict tells beside the score; `value` and `size` name metrics of the cases.

    - `correctness`: share of the cases whose answer kept all rules. 1 wherever there is a score at all: the first
      broken rule ends a verdict.
    - `cpu_s`, `cpu_s_per_case`: the candidate's CPU seconds, summed and mean.
    - `cpu_growth`: exponent b of CPU time ~ size^b, least squares in logarithms over cases of a millisecond or more;
      left out when there are fewer than three of them or all have one size.
    - `worst_decile`: mean of `value` over the worst tenth of the cases, at least one.
    """
    cpu_s = [result.cpu_s for result in results]
    ranked = sorted((result.metrics[value] for result in results), reverse=direction == "min")
    worst = ranked[: max(1, math.ceil(len(ranked) / 10))]
    metrics = {
        "correctness": 1.0,
        "cpu_s": sum(cpu_s),
        "cpu_s_per_case": sum(cpu_s) / len(cpu_s),
        "worst_decile": sum(worst) / len(worst),
    }
    if size is not None:
        points = [
            (math.log(result.metrics[size]), math.log(result.cpu_s))
            for result in results
            if result.cpu_s >= _MEASURABLE_CPU_S and result.metrics[size] > 0
        ]
        if len(points) >= 3 and len({x for x, _ in points}) > 1:
            metrics["cpu_growth"] = linear_regression(*zip(*points, strict=True)).slope
    return metrics


def shown(value: Any) -> str:
    """A few words for what a program gave back, at a cost that does not depend on how much it is.

    Messages of a judge need this in place of `repr`: printing an array of many axes, or a list of many arrays, takes
    minutes, and nothing limits the judge's time.
    """
    if isinstance(value, str):
        return repr(value[:_SHOWN_CHARS]) + ("..." if len(value) > _SHOWN_CHARS else "")
    if value is None or isinstance(value, bool | int | float):
        return repr(value)
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


_SHOWN_CHARS = 80
