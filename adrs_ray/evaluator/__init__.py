"""Evaluator: runs a candidate in a jail, judges its raw output outside of it.

`Evaluator` is the seam; implementations are `adrs_ray.evaluator.local.LocalEvaluator` (fork servers of this machine)
and `cluster.evaluator.RayEvaluator`. One contract suite runs against each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adrs_ray.candidate import Verdict
from adrs_ray.task import Split


@dataclass(frozen=True, slots=True)
class EvaluationJob:
    """One evaluation: the program `source` on all cases of `split`."""

    candidate: str
    source: str
    split: Split = "train"
    repeat: int = 0
    attempts: int = 0
    """Starts of this evaluation that are known to have been lost before."""


class Evaluator(Protocol):
    """Turns a program into a verdict: never an exception for what a candidate does, never a hang.

    Concurrency: any number of calls at once; each waits for a free slot. Idempotent: the same job twice gives two
    verdicts on the same cases, and the journal keeps the first.
    """

    @property
    def slots(self) -> int:
        """How many evaluations run at once."""
        ...

    async def start(self) -> None:
        """Make the slots ready. Raises UsageError when this machine cannot jail (and `sandbox` is not `unsafe`)."""
        ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """The verdict; `Failure(INFRASTRUCTURE)` only after the retries of ours are used up."""
        ...

    async def close(self) -> None:
        """End every process of the slots; safe to call twice."""
        ...
