"""The task txn_online through the evaluator: the scores of this process, and no future within reach."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator

from .test_txn_online import SMF_AS_A_CLASS, STREAM, TASK, answering, judged, program

SEARCHES_ITS_MEMORY = """
import ctypes

LATER = [(bytes.fromhex(first), bytes.fromhex(second)) for first, second in @HALVES@]

def found(first, second):
    # in two halves, so that the search does not find itself
    count = 0
    with open("/proc/self/maps") as file:
        maps = file.read().splitlines()
    for line in maps:
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if " rw" not in line or "[v" in line or line.endswith(".so"):
            continue
        for at in range(start, end, 1 << 24):
            data = ctypes.string_at(at, min(1 << 24, end - at))
            place = data.find(first)
            while place >= 0:
                count += data.startswith(second, place + len(first))
                place = data.find(first, place + 1)
    return count

step = 0

def choose(buffer, state):
    global step
    step += 1
    if step == 1:
        hits = [found(*halves) for halves in LATER]
        if any(hits):
            raise RuntimeError(f"the future is here: {hits}")
    if step == 40 and not found(*LATER[0]):
        raise RuntimeError("the search is blind")
    return buffer[0].id
"""

TAMPERS = """
import sys

def choose(buffer, state):
    chosen = buffer[0].id
    state.makespan = -10**9
    state._free[:] = 0
    state.schedule = tuple(range(10**4))
    return chosen
"""

TAMPERS_WITH_MODULES = """
import sys

def choose(buffer, state):
    chosen = buffer[0].id
    for name, module in list(sys.modules.items()):
        if name.endswith(".prefix"):
            module._earliest = lambda operations, free: 1
            module._place = lambda operations, start, free: None
        if name.endswith((".kernel", ".workload")):
            module.makespan = lambda *arguments: 0
        if name.endswith(".stream"):
            module.BUFFER_SIZE = 10**6
    for txn in buffer:
        txn.length = 1
        txn.ops.clear()
    buffer.clear()
    return chosen
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
    sources = [*(program(name) for name in ("arrival_order", "weak", "medium", "strong", "smf")), SMF_AS_A_CLASS]
    for source, verdict in zip(sources, verdicts(*sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(TASK, source, "train").score
        assert verdict.trust == "verified"
        assert set(verdict.metrics) | {"cpu_growth"} == set(TASK.spec.metrics)


def test_no_transaction_is_in_memory_before_it_arrives(verdicts: Judge) -> None:
    streams = [STREAM.parts(workload) for workload in TASK.judge.cases("train")[0].hidden.workloads]
    later = [part[2:].tobytes() for part in (streams[0][45], streams[1][0])]
    halves = [(data[: len(data) // 2].hex(), data[len(data) // 2 :].hex()) for data in later]
    (verdict,) = verdicts(SEARCHES_ITS_MEMORY.replace("@HALVES@", repr(halves)))
    # cases after the first have other transactions: there the search finds nothing and says so
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.case) == (FailureKind.CRASH, "train-1"), verdict
    assert "the search is blind" in verdict.detail


@pytest.mark.parametrize("source", [TAMPERS_WITH_MODULES, TAMPERS])
def test_nothing_but_the_choices_counts(verdicts: Judge, source: str) -> None:
    (verdict,) = verdicts(source)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0  # arrival order


def test_failures_have_the_right_kind(verdicts: Judge) -> None:
    future, twice, flag, number, text, nothing, midway, ends, syntax, neither = verdicts(
        answering("buffer[-1].id + 1", at=20),
        answering("state.schedule[0]", at=30),
        answering("True"),
        answering("float(buffer[0].id)"),
        answering("str(buffer[0].id)"),
        answering("None"),
        answering("1 // 0", at=40),
        answering("__import__('os')._exit(0)", at=40),
        "def choose(:",
        "def chose(buffer, state):\n    return 0\n",
    )
    for verdict in (future, twice, flag, number, text):
        assert isinstance(verdict, Failure)
        assert (verdict.kind, verdict.case) == (FailureKind.INVALID, "train-0")
        assert "expected an id of the buffer" in verdict.detail
    expected = (
        (nothing, FailureKind.OUTPUT, "workload 1, step 1: the choice is a NoneType"),
        (midway, FailureKind.CRASH, "ZeroDivisionError"),
        (ends, FailureKind.CRASH, "exited with code 0"),
        (syntax, FailureKind.SYNTAX, "line 1"),
        (neither, FailureKind.INTERFACE, "the program defines neither choose"),
    )
    for verdict, kind, says in expected:
        assert isinstance(verdict, Failure)
        assert verdict.kind is kind, verdict
        assert says in verdict.detail
