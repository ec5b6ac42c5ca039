"""A decision of an island, before anybody was asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adrs_ray.generator import Form, GenerationRequest
from adrs_ray.prompt import Attempt, ShownProgram
from adrs_ray.selector.bandit import Arm

FORMS: Mapping[str, Form] = {"diff": "diff", "fix": "diff", "mutate": "program", "summarize": "text"}
"""How answers to an operator of a model are read; the others give whole programs."""


def candidate_id(island: int, decision: int) -> str:
    """The id of the candidate that a decision leads to, the same after a crash."""
    return f"{island}-{decision}"


@dataclass(frozen=True, slots=True)
class Proposal:
    """Which operator of which model on which parents, and what a prompt may tell beside them."""

    candidate: str
    decision: int
    arm: Arm
    operator: str
    parents: tuple[str, ...]
    sources: tuple[str, ...]
    """Text refs of the parents' programs."""
    request: GenerationRequest
    """Without messages: the model-free generator needs none."""
    inspirations: tuple[ShownProgram, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    hints: tuple[str, ...] = ()
    scratchpad: str = ""
