"""The task spot_multi through the evaluator: the figures of this process, and what cheating comes to."""

from __future__ import annotations

import asyncio
from types import ModuleType

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.private_import import import_private
from adrs_ray.task import load_task

from .literal_spot_multi import FOLDER, judged
from .test_spot_multi import HEAD, PUBLIC_STYLES

TASK = load_task("spot_multi")
JUDGE: ModuleType = import_private(FOLDER, "judge")
HONEST = TASK.baselines()["first_region_with_spot"].read_text()


def at_each_tick(statements: str) -> str:
    """The honest program with more statements at the start of `_step`."""
    lines = "".join(f"        {line}\n" for line in statements.strip().splitlines())
    return HONEST.replace("        if has_spot:\n", lines + "        if has_spot:\n", 1)


WITHOUT_EFFECT = {
    "prints what the public evaluator reads as the cost": at_each_tick("print('mean: 0.0; std: 0.0')"),
    "claims progress, changes prices and time": at_each_tick(
        "self.task_done_time.append(1e9)\nself.env._on_demand = [0.0]\nself.env.gap_seconds = 1e9"
    ),
    "replaces the simulator's own method": HONEST + "\n    def step(self):\n        return 0.0\n",
    "replaces the simulator's modules": HONEST
    + "\n\nimport sky_spot.env, sky_spot.strategies.strategy as base\n"
    + "sky_spot.env.MultiRegionEnv.get_price = lambda self: {}\nbase.Strategy.task_done = True\n",
}

LOOKS_FOR_THE_FUTURE = f"""
import gc
import sys

import numpy as np
{HEAD}
class Looks(MultiRegionStrategy):
    def _step(self, last_cluster_type, has_spot):
        if self.env.tick != 100:
            return ClusterType.ON_DEMAND
        found = [name for name in sys.modules if name.endswith(("judge", "splits", "market", "recorded"))]
        long = self.env.get_num_regions() * 200
        found += [a for a in gc.get_objects() if isinstance(a, np.ndarray) and a.size >= long]
        found += [a for a in gc.get_objects() if isinstance(a, list) and len(a) >= 200 and type(a[0]) is float]
        found += [name for name in ("trace", "traces", "env_trace", "next_wait_spot_length") if hasattr(self.env, name)]
        for name in ("judge.py", "splits.py", "families.py", "baselines/cheapest.py"):
            try:
                found.append(open({str(FOLDER)!r} + "/" + name).read())
            except OSError:
                pass
        if found:
            raise RuntimeError(f"found {{str(found)[:200]}}")
        return ClusterType.ON_DEMAND
"""

FORGES = (
    HONEST
    + """

import sys
for name, module in list(sys.modules.items()):
    if name.endswith(".adapter"):
        module.act = lambda program, observation: {"cost": 0.0, "finish_tick": 1}
"""
)

LEAVES_THE_MARKET = at_each_tick("self.env._zone = -1\nreturn ClusterType.SPOT")
FAILS_ON_DEAR_RUNS = at_each_tick("if self.env.get_num_regions() == 2:\n    raise RuntimeError('too dear')")
ASKS_THE_FUTURE = at_each_tick("self.env.next_wait_spot_length()")


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """Verdicts on train by name, all from one slot."""
    sources = {
        "honest": HONEST,
        "seed": TASK.seed_source,
        "public style": PUBLIC_STYLES["from_args"],
        **WITHOUT_EFFECT,
        "looks for the future": LOOKS_FOR_THE_FUTURE,
        "forges": FORGES,
        "leaves the market": LEAVES_THE_MARKET,
        "fails on dear runs": FAILS_ON_DEAR_RUNS,
        "asks the future": ASKS_THE_FUTURE,
        "no strategy": "def solve():\n    pass\n",
        "no program": "class A(:\n",
        "no kind": HEAD + "class A(MultiRegionStrategy):\n    def _step(self, last, spot):\n        return 'SPOT'\n",
    }

    async def judge() -> dict[str, Verdict]:
        evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return {name: await evaluator.evaluate(EvaluationJob(name, source)) for name, source in sources.items()}
        finally:
            await evaluator.close()

    return asyncio.run(judge())


def score(verdict: Verdict) -> float:
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.trust == "verified"
    return verdict.score


def test_scores_are_those_of_this_process(verdicts: dict[str, Verdict]) -> None:
    assert score(verdicts["honest"]) == judged(JUDGE, HONEST, "train").score
    assert score(verdicts["seed"]) == judged(JUDGE, TASK.seed_source, "train").score
    assert score(verdicts["public style"]) == score(verdicts["honest"])
    seed = verdicts["seed"]
    assert isinstance(seed, Evaluation)
    assert seed.metrics["cpu_s"] == pytest.approx(sum(case.cpu_s for case in seed.cases))
    assert score(seed) < seed.metrics["score_bound"]


@pytest.mark.parametrize("hack", WITHOUT_EFFECT)
def test_what_a_program_does_in_its_own_process_changes_no_score(hack: str, verdicts: dict[str, Verdict]) -> None:
    assert score(verdicts[hack]) == score(verdicts["honest"])


def test_the_future_is_not_in_the_process(verdicts: dict[str, Verdict]) -> None:
    assert score(verdicts["looks for the future"]) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("program", "kind", "words"),
    [
        ("forges", FailureKind.OUTPUT, "a decision is a dict"),
        ("leaves the market", FailureKind.INVALID, "zone -1 does not exist"),
        ("fails on dear runs", FailureKind.CRASH, "too dear"),
        ("asks the future", FailureKind.CRASH, "next_wait_spot_length"),
        ("no strategy", FailureKind.INTERFACE, "derives from MultiRegionStrategy"),
        ("no program", FailureKind.SYNTAX, "line 1"),
        ("no kind", FailureKind.OUTPUT, "_step returned str 'SPOT', expected a ClusterType"),
    ],
)
def test_failures_have_the_right_kind(
    program: str, kind: FailureKind, words: str, verdicts: dict[str, Verdict]
) -> None:
    verdict = verdicts[program]
    assert isinstance(verdict, Failure), verdict
    assert (verdict.kind, words in verdict.detail) == (kind, True), verdict.detail
