"""The task txn_offline through the evaluator: the figures of this process, and nothing of the judge in reach."""

from __future__ import annotations

import asyncio

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import load_task

from .test_txn_offline import PUBLIC_STYLE, answering, judged

TASK = load_task("txn_offline")

COMPILES = """
import numba
import numpy as np

@numba.njit
def identity(n):
    return np.arange(n)

def get_best_schedule(workload, num_seqs):
    return 0, identity(workload.num_txns)
"""

LOOKS_FOR_THE_JUDGE = f"""
import sys

def get_best_schedule(workload, num_seqs):
    found = [name for name in sys.modules if "judge" in name or "splits" in name]
    for name in ("judge.py", "splits.py", "baselines/smf.py", "task.yaml"):
        try:
            found.append(open({str(TASK.folder)!r} + "/" + name).read())
        except OSError:
            pass
    schedule = list(range(workload.num_txns))
    return 0, schedule[::-1] if found else schedule
"""


def verdicts(*sources: str) -> list[Verdict]:
    """Verdicts on train, from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return [await evaluator.evaluate(EvaluationJob(f"c{i}", source)) for i, source in enumerate(sources)]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


def test_scores_are_those_of_this_process() -> None:
    sources = [TASK.seed_source, PUBLIC_STYLE, *(path.read_text() for path in TASK.baselines().values())]
    for source, verdict in zip(sources, verdicts(*sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(TASK, source, "train").score
        assert verdict.trust == "verified"
        assert 0 < verdict.metrics["cpu_s"] == sum(case.cpu_s for case in verdict.cases)


def test_failures_have_the_right_kind() -> None:
    short, shapeless, wrong_id, syntax, surrogate, neither = verdicts(
        answering("list(range(n - 1))"),
        answering("None"),
        "def get_best_schedule(workload, num_seqs):\n    return workload.get_opt_seq_cost([500]), []\n",
        "def get_best_schedule(:",
        "text = '\ud800'\n" + TASK.seed_source,
        "def best_schedule(workload, num_seqs):\n    return 0, []\n",
    )
    assert isinstance(short, Failure)
    assert (short.kind, short.case) == (FailureKind.INVALID, "train-0")
    assert short.detail == "workload 1: 99 of 100 transactions scheduled, 99 is missing"
    assert isinstance(shapeless, Failure)
    assert shapeless.kind is FailureKind.OUTPUT
    assert isinstance(wrong_id, Failure)
    assert wrong_id.kind is FailureKind.CRASH
    assert "sequence[0] is 500, expected an id in 0..99" in wrong_id.detail
    assert "workload.get_opt_seq_cost([500])" in wrong_id.artifacts["traceback"]
    for unreadable in (syntax, surrogate):
        assert isinstance(unreadable, Failure)
        assert unreadable.kind is FailureKind.SYNTAX
    assert isinstance(neither, Failure)
    assert neither.kind is FailureKind.INTERFACE
    assert neither.detail.startswith("the program defines neither get_best_schedule")


def test_candidates_may_compile_but_not_reach_the_judge() -> None:
    for verdict in verdicts(COMPILES, LOOKS_FOR_THE_JUDGE):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0  # arrival order
