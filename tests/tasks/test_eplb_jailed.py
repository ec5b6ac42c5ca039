"""The task eplb through the evaluator: small problems, cheats in the jail, programs that build."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator

from .test_eplb_rounds import (
    EVERY_SLOT_FOR_EVERY_EXPERT,
    FOUR_DIMENSIONS,
    SMALL,
    STRONG,
    TASK,
    judged,
    small_problems,
    wrapping,
)

pytestmark = pytest.mark.torch

Judge = Callable[..., list[Verdict]]

BUILDS = wrapping(
    "import os\nassert open(os.environ['ADRS_BUILD_DIR'] + '/note').read() == 'built'\nreturn placed, inverse, counts",
    "def build(folder):\n    with open(folder + '/note', 'w') as file:\n        file.write('built')\n",
)

LOOKS_FOR_WHAT_COMES = wrapping(
    """
import ctypes, gc, sys
import numpy as np
global HITS
for name, module in sys.modules.items():
    assert not name.endswith((".judge", ".problems", ".game", ".yardstick")), name
assert "gpu_eval" not in sys.modules
for each in gc.get_objects():
    if isinstance(each, np.ndarray) and each.dtype == np.int64 and each.shape == tuple(weight.shape):
        HITS += any(each.tobytes() == later for later in LATER)
assert not HITS, "the next window is here"
return placed, inverse, counts
""",
    "HITS = 0\nLATER = [bytes.fromhex(text) for text in @LATER@]\n",
)


@pytest.fixture(scope="module")
def verdicts() -> Iterator[Judge]:
    """Verdicts on train in stage host, all from one slot, on small problems."""
    patch = pytest.MonkeyPatch()
    small_problems(patch)
    evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
    loop = asyncio.new_event_loop()

    async def judge(sources: tuple[str, ...]) -> list[Verdict]:
        jobs = [EvaluationJob(f"c{i}", source, stage="host") for i, source in enumerate(sources)]
        return [await evaluator.evaluate(job) for job in jobs]

    try:
        loop.run_until_complete(evaluator.start())
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    yield lambda *sources: loop.run_until_complete(judge(sources))
    loop.run_until_complete(evaluator.close())
    loop.close()
    patch.undo()


def test_quality_is_that_of_this_process(verdicts: Judge) -> None:
    same = {TASK.seeds()["medium"].read_text(): None, STRONG: None, BUILDS: STRONG}
    for (source, as_good), verdict in zip(same.items(), verdicts(*same), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.metrics["quality"] == judged(as_good or source).metrics["quality"]
        assert verdict.trust == "verified"
        assert set(verdict.metrics) <= set(TASK.spec.metrics)
        assert verdict.metrics["host_ms"] > 0
        assert 0 < verdict.score <= verdict.metrics["score_bound"]


def test_failures_have_the_right_kind(verdicts: Judge) -> None:
    expected = {
        EVERY_SLOT_FOR_EVERY_EXPERT: (FailureKind.OUTPUT, "expert_count is 24, an expert can have at most 9"),
        FOUR_DIMENSIONS: (FailureKind.OUTPUT, "logical_to_physical is [4, 16, 1, 24]"),
        wrapping("placed[:] = 0\nreturn placed, inverse, counts"): (
            FailureKind.INVALID,
            "layer 0, expert 1: expected in",
        ),
        wrapping("weight.zero_()\nreturn placed, inverse, counts"): (FailureKind.INVALID, "altered its input"),
        wrapping("return 1 // 0"): (FailureKind.CRASH, "ZeroDivisionError"),
        wrapping("import os\nos._exit(0)"): (FailureKind.CRASH, "exited with code 0"),
        "def rebalance_experts(:": (FailureKind.SYNTAX, "line 1"),
        "x = 1\n": (FailureKind.INTERFACE, "must define rebalance_experts"),
        "def build(folder):\n    raise RuntimeError('no compiler')\n" + STRONG: (
            FailureKind.CRASH,
            "build: RuntimeError",
        ),
    }
    for (kind, says), verdict in zip(expected.values(), verdicts(*expected), strict=True):
        assert isinstance(verdict, Failure), verdict
        assert verdict.kind is kind, verdict
        assert says in verdict.detail


def test_nothing_of_the_judge_and_no_next_window_is_within_reach(verdicts: Judge) -> None:
    later = [each.following.tobytes().hex() for problem in SMALL for each in problem.transitions]
    (verdict,) = verdicts(LOOKS_FOR_WHAT_COMES.replace("@LATER@", repr(later)))
    assert isinstance(verdict, Evaluation), verdict


def test_a_program_that_meddles_with_the_adapter_still_pays_for_its_time(verdicts: Judge) -> None:
    meddles = (
        "import sys\n"
        "for name, module in list(sys.modules.items()):\n"
        "    if name.endswith('.adapter'):\n"
        "        module._play.__defaults__ = (lambda: 0,)\n"
        "        module._inspect = module._ROUNDS['inspect'] = lambda *_: []\n"
    )
    slow = wrapping("import time\ntime.sleep(0.03)\nreturn placed, inverse, counts")
    found = verdicts(meddles + slow)[0]
    if isinstance(found, Failure):
        assert found.kind is FailureKind.REWARD_HACKING
    else:
        assert found.metrics["host_ms"] > 25
