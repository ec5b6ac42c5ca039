"""The task spot_single through the evaluator: honest figures, and what dishonest programs get."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Case, CaseResult, Combined, Judge, Task

from .test_spot_single import PLAIN_STYLE, TYPED_PUBLIC_STYLE
from .test_spot_single_rules import BASELINES, NEVER, PUBLIC, SOUND, judged, needs_recorded

HONEST = BASELINES["greedy"]


class OneCase:
    """The judge of a task, with one case of its train split only."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.referee = judge.referee  # type: ignore[attr-defined]

    def cases(self, split: str) -> Sequence[Case]:
        return self._judge.cases("train")[4:5]

    def score(self, case: Case, raw: Any) -> Any:
        return self._judge.score(case, raw)

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        return self._judge.combine(results)


def on_one_case(task: Task) -> Task:
    judge: Any = OneCase(task.judge)
    return replace(task, judge_factory=lambda: judge)


def verdicts(task: Task, *sources: str) -> list[Verdict]:
    """Verdicts on one case, from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(task, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return [await evaluator.evaluate(EvaluationJob(f"c{i}", source)) for i, source in enumerate(sources)]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


def meddling(before: str = "", at_top: str = "") -> str:
    """The greedy baseline with something else done at the top of the module, and before each of its steps."""
    step = "    def _step(self, last_cluster_type, has_spot):\n"
    lines = "".join(f"        {line}\n" for line in before.splitlines())
    return HONEST.replace(step, step + lines).replace('"""Baseline', at_top + '\n"""Baseline', 1)


def suppressed(*statements: str) -> str:
    """Statements that are tried one by one, whatever they raise."""
    return "\n".join(f"try:\n    {statement}\nexcept Exception:\n    pass" for statement in statements)


WITHOUT_EFFECT = {
    "prints a cost": meddling("print('mean: 0.0, std: 0.0')", at_top="print('mean: 0.0')"),
    "rewrites its environment": meddling(
        suppressed(
            "self.env.cluster_type_history = [None] * 10_000",
            "self.env.accumulated_cost = 0.0",
            "self.env.trace = [0] * 10_000",
            "self.env.get_price = lambda *a: 0.0",
            "self.env._base_price = 0.0",
            "self.env.step = lambda *a: None",
        )
    ),
    "overrides what the simulator calls": HONEST
    + "\n    def step(self):\n        return ClusterType.NONE\n"
    + "\n    def _apply_strong_guarantee(self, *a):\n        return ClusterType.NONE\n"
    + "\n    @property\n    def task_done(self):\n        return True\n",
    "prices in the classes of the stand-ins": meddling(
        at_top="import sky_spot.env, sky_spot.task, sky_spot.utils\n"
        "sky_spot.env.Env.COST = {}\n"
        "sky_spot.env.ON_DEMAND_PRICE = 0.0\n"
        "sky_spot.task.Task.is_done = property(lambda self: True)\n"
    ),
}
"""Meddling after which the program decides as before: the score must be the same."""

LOOKS_INTO_THE_FUTURE = """
import gc
import sys

import numpy as np

from sky_spot.strategies.strategy import Strategy
from sky_spot.utils import ClusterType


def traces():
    \"\"\"Anything in this process that could be more of the trace than has been told.\"\"\"
    arrays = [o for o in gc.get_objects() if isinstance(o, np.ndarray) and o.size > 100 and o.ndim == 1]
    long = [o for o in gc.get_objects() if isinstance(o, list | tuple) and len(o) > 500]
    return arrays + [o for o in long if set(map(type, o)) == {bool}]


class Looks(Strategy):
    def _step(self, last_cluster_type, has_spot):
        names = ("trace", "traces", "next_wait_spot_length", "get_trace_before_end", "spot_available", "_spot")
        found = [name for name in names if hasattr(self.env, name)]
        modules = [name for name in sys.modules if name.rpartition(".")[2] in ("judge", "game", "traces", "splits")]
        if self.env.tick == 3:
            found += modules + traces()
        if found:
            raise RuntimeError(f"found {found}")
        return ClusterType.SPOT if has_spot else ClusterType.NONE
"""

CLAIMS_TO_BE_DONE = meddling("self.task_done_time[:] = [self.task_duration]")
"""Edits its progress: from then on it sees itself done, asks for nothing, and the guarantee finishes the job."""

FORGES_ANSWERS = """
import sys

import numpy as np

adapter = next(m for name, m in sys.modules.items() if name.endswith(".adapter") and hasattr(m, "act"))


def act(program, observation):
    return len(observation["deadlines"]) if isinstance(observation, dict) else ANSWER


adapter.act = act


def _step(state, last_cluster_type, has_spot):
    return None
"""


def test_honest_scores_are_those_of_this_process() -> None:
    task = on_one_case(SOUND)
    sources = [HONEST, PLAIN_STYLE, TYPED_PUBLIC_STYLE, BASELINES["uniform_progress"]]
    for source, verdict in zip(sources, verdicts(task, *sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        expected = judged(task, source, "train")
        assert verdict.score == expected.score
        assert verdict.metrics["mean_cost"] == expected.metrics["mean_cost"]
        assert verdict.trust == "verified"


def test_meddling_changes_no_score() -> None:
    honest = judged(on_one_case(SOUND), HONEST, "train").score
    for name, verdict in zip(WITHOUT_EFFECT, verdicts(on_one_case(SOUND), *WITHOUT_EFFECT.values()), strict=True):
        assert isinstance(verdict, Evaluation), (name, verdict)
        assert verdict.score == honest, name


def test_no_future_in_reach_and_no_gain_from_lies() -> None:
    task = on_one_case(SOUND)
    looks, claims, sleeps = verdicts(task, LOOKS_INTO_THE_FUTURE, CLAIMS_TO_BE_DONE, NEVER)
    assert isinstance(looks, Evaluation), looks
    assert looks.score == judged(task, BASELINES["spot_else_wait"], "train").score
    for verdict in (claims, sleeps):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.metrics["late_runs"] == 0
        assert verdict.metrics["rescued_ticks"] > 200
        assert verdict.score < 0.05


def test_failures_have_the_right_kind() -> None:
    cases = [
        (FORGES_ANSWERS.replace("ANSWER", "np.full(9, 7, np.uint8)"), FailureKind.OUTPUT, "is no cluster type"),
        (FORGES_ANSWERS.replace("ANSWER", "np.zeros(3, np.uint8)"), FailureKind.OUTPUT, "expected 9 cluster types"),
        (FORGES_ANSWERS.replace("ANSWER", "{'cost': 0.0}"), FailureKind.OUTPUT, "expected 9 cluster types"),
        (NEVER.replace("ClusterType.NONE", "0"), FailureKind.OUTPUT, "tick 0: _step returned int 0"),
        (NEVER.replace("ClusterType.NONE", "state.env.trace"), FailureKind.CRASH, "no attribute 'trace'"),
        ("x = 1", FailureKind.INTERFACE, "the program defines no strategy"),
        ("class S(:", FailureKind.SYNTAX, "line 1"),
    ]
    for (_, kind, text), verdict in zip(
        cases, verdicts(on_one_case(SOUND), *(source for source, _, _ in cases)), strict=True
    ):
        assert isinstance(verdict, Failure), verdict
        assert verdict.kind is kind, verdict
        assert text in verdict.detail


def test_the_seed_has_the_recorded_public_score() -> None:
    needs_recorded()
    try:
        verdict = evaluate_once(PUBLIC, PUBLIC.seed_source, "test", EvaluatorConfig(slots=1))
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.metrics["mean_cost"] == pytest.approx(96.51543611111127, abs=1e-9)
    assert verdict.metrics["cost_std"] == pytest.approx(40.921052290898636, abs=1e-9)
    assert verdict.score == pytest.approx(-106.745699, abs=1e-6)
    assert verdict.metrics["leaderboard_coverage"] == pytest.approx(100 / 6)
