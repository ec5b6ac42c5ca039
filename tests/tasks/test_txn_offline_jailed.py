"""The task txn_offline through the evaluator: the figures of this process, and nothing of the judge in reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import load_task

from .test_txn_offline import PUBLIC_STYLE, PUBLIC_STYLE_WITH_BOTH, PUBLIC_STYLE_WITH_CLASS, answering, judged

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


TAMPERS = """
import sys
import txn_simulator
import workloads

def get_best_schedule(workload, num_seqs):
    n = workload.num_txns
    workload.get_opt_seq_cost = lambda sequence: 0
    txn_simulator.Workload.get_opt_seq_cost = lambda self, sequence: 0
    workload.txns.clear()
    workload.num_txns = 1
    workload.arrays[4][:] = 0
    workloads.WORKLOAD_1 = {"txn0": "r-1"}
    for name, module in list(sys.modules.items()):
        if name.endswith((".kernel", ".workload", ".adapter")):
            for thing in ("makespan", "NUM_SEQS"):
                if hasattr(module, thing):
                    setattr(module, thing, lambda *arguments: 0)
    return 0, list(range(n))
"""

LIES = """
class Zero(int):
    def __eq__(self, other):
        return True
    __hash__ = int.__hash__

def get_best_schedule(workload, num_seqs):
    return -float("inf"), [Zero(i) for i in range(workload.num_txns)]
"""

HANDS_OUT_ARRAYS = """
import sys
import numpy as np

def get_best_schedule(workload, num_seqs):
    for name, module in list(sys.modules.items()):
        if name.endswith(".adapter"):
            module._plain = lambda schedule: schedule
    return 0, [np.zeros((2,) * 22, np.int8)]
"""

Judge = Callable[..., list[Verdict]]


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Judge]:
    """Verdicts on train, all from one slot."""
    evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
    loop = asyncio.new_event_loop()

    async def judge(sources: tuple[str, ...]) -> list[Verdict]:
        return [await evaluator.evaluate(EvaluationJob(f"c{i}", source)) for i, source in enumerate(sources)]

    try:
        loop.run_until_complete(evaluator.start())
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    yield lambda *sources: loop.run_until_complete(judge(sources))
    loop.run_until_complete(evaluator.close())
    loop.close()


def test_scores_are_those_of_this_process(verdicts: Judge) -> None:
    programs = [TASK.programs()[name].read_text() for name in ("arrival_order", "weak", "medium", "full_greedy")]
    sources = [*programs, PUBLIC_STYLE, PUBLIC_STYLE_WITH_BOTH, PUBLIC_STYLE_WITH_CLASS]
    for source, verdict in zip(sources, verdicts(*sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(TASK, source, "train").score
        assert verdict.trust == "verified"
        assert set(verdict.metrics) | {"cpu_growth"} == set(TASK.spec.metrics)
        # 0 where the machine was busy when the idle child was measured (docs/jail.md)
        assert 0 <= verdict.metrics["cpu_s"] == sum(case.cpu_s for case in verdict.cases)


def test_failures_have_the_right_kind(verdicts: Judge) -> None:
    hack, short, shapeless, wrong_id, syntax, surrogate, neither = verdicts(
        "def get_random_costs():\n    return 0, [[0]], 0.0\n",
        answering("list(range(n - 1))"),
        answering("None"),
        "def get_best_schedule(workload, num_seqs):\n    return workload.get_opt_seq_cost([500]), []\n",
        "def get_best_schedule(:",
        "text = '\ud800'\n" + TASK.seed_source,
        "def best_schedule(workload, num_seqs):\n    return 0, []\n",
    )
    assert isinstance(hack, Failure)
    assert (hack.kind, hack.detail) == (FailureKind.OUTPUT, "expected 3 schedules, one per workload, got 1")
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


def test_arrays_past_the_adapter_are_refused_without_being_printed(verdicts: Judge) -> None:
    """Numpy prints the 4 million numbers of this one: that held the judge for minutes, past every limit of the case."""
    (verdict,) = verdicts(HANDS_OUT_ARRAYS)
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.case) == (FailureKind.INVALID, "train-0")
    assert verdict.detail == "workload 1: schedule[0] is a ndarray, expected an int"
    assert verdict.wall_s < 15


@pytest.mark.parametrize(
    "source", [COMPILES, LOOKS_FOR_THE_JUDGE, TAMPERS, LIES], ids=["compiles", "looks", "tampers", "lies"]
)
def test_nothing_but_the_schedule_counts(verdicts: Judge, source: str) -> None:
    for verdict in verdicts(source):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0  # arrival order
