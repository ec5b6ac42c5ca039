"""The trusted side: one case, and a score that differs from program to program."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, MalformedOutput, Split


def cases(split: Split) -> Sequence[Case]:
    """One, the same for every split."""
    return [Case(id="one", seed=0, public={"x": 3}, hidden={})]


def score(case: Case, raw: Any) -> dict[str, float]:
    """Raises MalformedOutput for anything but an integer."""
    if not isinstance(raw, int):
        raise MalformedOutput(f"expected an integer, got {type(raw).__name__}")
    return {"value": float(raw * 7919 % 10007)}


def combine(results: Sequence[CaseResult]) -> Combined:
    """The one case's value."""
    return Combined(results[0].metrics["value"], {})
