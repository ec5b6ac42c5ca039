"""The task moe_placement through the evaluator: scores of this process, and nothing to gain from lies about time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator

from .test_moe_placement import DECODE, JUDGE, PREFILL, TASK, answering, judged, program

SLOW = replace(PREFILL, id="slow", tokens_per_gpu=2_000_000)
"""Steps of a second or so: what decisions take here makes no difference."""
SCENARIOS = {"train": (SLOW,), "validation": (PREFILL, DECODE), "test": (PREFILL,), "stress": (DECODE,)}

LIES = """
import sys
import time

sleep = time.sleep
for name in ("perf_counter", "monotonic", "time", "process_time"):
    setattr(time, name, lambda: 0.0)
adapter = next(module for name, module in sys.modules.items() if name.endswith(".adapter") and hasattr(module, "act"))
real = adapter.act


def act(program, observation):
    answer = real(program, observation)
    return {**answer, "seconds": 0.0} if observation.get("null") else answer


adapter.act = act


def init(config):
    sleep(0.3)
    return None


def step(state, load_window, placement):
    sleep(0.1)
    return state, None
"""

THREADS = """
import threading


def init(config):
    return None


def step(state, load_window, placement):
    threading.Thread(target=lambda: None).start()
    return state, None
"""

LOOKS_FOR_THE_FUTURE = """
import gc
import sys

import numpy as np


def init(config):
    return 0


def step(state, load_window, placement):
    arrays = [o for o in gc.get_objects() if isinstance(o, np.ndarray) and o.ndim >= 3 and o.shape[-1] == 8]
    names = ("judge", "game", "scenario", "splits", "gpu_eval", "workloads")
    found = [name for name in sys.modules if name.rpartition(".")[2] in names]
    if len(arrays) > 2 or found or hasattr(load_window, "base") and load_window.base is not None:
        raise RuntimeError(f"{len(arrays)} arrays, modules {found}")
    try:
        import gpu_eval
    except ImportError:
        return state + 1, None
    raise RuntimeError("gpu_eval can be imported")
"""

Judge = Callable[..., list[Verdict]]


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Judge]:
    """Verdicts on small cases in stage `model`, all from one slot."""
    judge = JUDGE.Simulated(SCENARIOS)
    task = replace(TASK.in_stage("model"), judge_factory=lambda: judge)
    evaluator = LocalEvaluator(task, EvaluatorConfig(slots=1))
    loop = asyncio.new_event_loop()

    async def judge_all(split: str, sources: tuple[str, ...]) -> list[Verdict]:
        jobs = [EvaluationJob(f"c{i}", source, split) for i, source in enumerate(sources)]
        return [await evaluator.evaluate(job) for job in jobs]

    try:
        loop.run_until_complete(evaluator.start())
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    yield lambda split, *sources: loop.run_until_complete(judge_all(split, sources))
    loop.run_until_complete(evaluator.close())
    loop.close()


def test_scores_are_those_of_this_process(verdicts: Judge) -> None:
    names = ("never", "weak", "medium", "strong", "global_every", "incremental_split")
    for name, verdict in zip(names, verdicts("train", *map(program, names)), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == pytest.approx(judged(program(name), SCENARIOS).score, abs=1e-9)
        assert verdict.trust == "verified"
        assert verdict.metrics["score_bound"] == 1.0


def test_nobody_lies_about_time(verdicts: Judge) -> None:
    (verdict,) = verdicts("stress", LIES)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.metrics["decision_ms"] > 90
    assert verdict.score == 0.0


def test_nothing_goes_on_beside_the_clock(verdicts: Judge) -> None:
    (verdict,) = verdicts("test", THREADS)
    assert isinstance(verdict, Failure)
    assert verdict.kind in (FailureKind.CRASH, FailureKind.VIOLATION), verdict
    assert "thread" in verdict.detail


def test_no_future_is_in_reach(verdicts: Judge) -> None:
    (verdict,) = verdicts("validation", LOOKS_FOR_THE_FUTURE)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_failures_have_the_right_kind(verdicts: Judge) -> None:
    cases = [
        (answering("state, np.zeros_like(placement)"), FailureKind.INVALID, "window 2: layer 0, expert 1: expected in"),
        (answering("state, None, np.zeros(placement.shape)"), FailureKind.INVALID, "its shares sum to 0, expected 1"),
        (answering("state, placement[:1]"), FailureKind.OUTPUT, "window 2: the placement is 1x12"),
        (answering("state, [0]"), FailureKind.OUTPUT, "step returned a list as placement"),
        (answering("state, np.array([['a']])"), FailureKind.OUTPUT, "cannot be given back"),
        (answering("1 // 0"), FailureKind.CRASH, "ZeroDivisionError"),
        (answering("state, None", init="config['no such key']"), FailureKind.CRASH, "KeyError"),
        ("def init(:", FailureKind.SYNTAX, "line 1"),
        ("x = 1", FailureKind.INTERFACE, "defines no init and no step"),
    ]
    for (_, kind, says), verdict in zip(cases, verdicts("test", *(source for source, _, _ in cases)), strict=True):
        assert isinstance(verdict, Failure), verdict
        assert verdict.kind is kind, verdict
        assert says in verdict.detail


def test_numba_compiles_off_the_clock_in_one_thread(verdicts: Judge) -> None:
    pytest.importorskip("numba")
    source = (
        "import numpy as np\nfrom numba import njit\n\n\n@njit\ndef total(loads):\n    sum_ = 0\n"
        "    for value in loads.ravel():\n        sum_ += value\n    return sum_\n\n\n"
        "def init(config):\n    return total(np.ones((2, 2, 8), np.int64))\n\n\n"
        "def step(state, load_window, placement):\n    assert total(load_window) > 0\n    return state, None\n"
    )
    (verdict,) = verdicts("test", source)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
