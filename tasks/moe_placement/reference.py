"""What a case's wall time is held against (`gpu_eval.serving_reference`), computed once per process."""

from __future__ import annotations

from functools import lru_cache

from gpu_eval.serving_reference import Reference
from gpu_eval.serving_reference import reference as held_against

from .scenario import Scenario, initial_placement, trace_of

__all__ = ["Reference", "reference"]


@lru_cache(maxsize=64)
def reference(scenario: Scenario) -> Reference:
    """All of a case."""
    return held_against(trace_of(scenario), scenario.config, scenario.costs, initial_placement(scenario))
