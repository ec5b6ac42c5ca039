"""What every Evaluator promises: a mixin for the test class of each implementation."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Protocol

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, verdict_from_json, verdict_to_json
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.task import Task
from tests.evaluator.tiny_task import ADAPTER, INTERACTIVE_ADAPTER, JUDGE, REFEREE, SEED, write_task


class MakeEvaluator(Protocol):
    """A fresh evaluator, not started."""

    def __call__(self, task: Task, config: EvaluatorConfig) -> Evaluator: ...


_CONFIG = EvaluatorConfig(slots=2, retries=1)
FAILURES = [
    ("def solve(x:\n", FailureKind.SYNTAX, "line 1"),
    ("def solve(x):\n    return '\0'\n", FailureKind.SYNTAX, "null"),
    ("def other(x):\n    return 0.0\n", FailureKind.INTERFACE, "solve"),
    ("solve = 3\n", FailureKind.INTERFACE, "solve"),
    ("def solve(x):\n    return 1 / 0\n", FailureKind.CRASH, "ZeroDivisionError: division by zero (line 2)"),
    ("import nothing_of_that_name\n", FailureKind.CRASH, "ModuleNotFoundError"),
    ("def solve(x):\n    raise MemoryError\n", FailureKind.MEMORY, "MemoryError"),
    ("def solve(x):\n    import sys\n    sys.exit(3)\n", FailureKind.CRASH, "exit(3)"),
    ("def solve(x):\n    import os\n    os._exit(3)\n", FailureKind.CRASH, "code 3"),
    ("def solve(x):\n    return x.sum() * 1j\n", FailureKind.OUTPUT, "complex"),
    ("def solve(x):\n    return object()\n", FailureKind.OUTPUT, "object"),
    ("def solve(x):\n    return float('inf')\n", FailureKind.OUTPUT, "finite"),
    ("def solve(x):\n    return -1.0\n", FailureKind.INVALID, "late"),
    ("def solve(x):\n    return -2.0\n", FailureKind.REWARD_HACKING, "cannot be"),
    ("def solve(x):\n    return -3.0\n", FailureKind.INFRASTRUCTURE, "KeyError"),
    ("def solve(x):\n    while True: pass\n", FailureKind.TIMEOUT, "1.5 s"),
]


class EvaluatorContract:
    """Subclasses define the fixture `make` (MakeEvaluator)."""

    @pytest.fixture
    def make(self) -> MakeEvaluator:
        pytest.fail("a subclass defines the fixture `make`")

    async def _verdicts(self, evaluator: Evaluator, *jobs: EvaluationJob) -> list[Evaluation | Failure]:
        await evaluator.start()
        try:
            return await asyncio.gather(*map(evaluator.evaluate, jobs))
        finally:
            await evaluator.close()

    def test_an_honest_program_is_scored_on_every_case(self, make: MakeEvaluator, tmp_path: Path) -> None:
        evaluator = make(write_task(tmp_path), _CONFIG)
        assert evaluator.slots == 2
        (verdict,) = asyncio.run(self._verdicts(evaluator, EvaluationJob("a", SEED)))
        assert isinstance(verdict, Evaluation)
        assert verdict.score == 0.0
        assert verdict.metrics == {"error": 0.0}
        assert [case.case for case in verdict.cases] == ["c0", "c1"]
        assert all(case.cpu_s >= 0 and 0 < case.wall_s <= verdict.wall_s for case in verdict.cases)
        assert verdict.trust == "verified"
        assert verdict.evidence.jail
        assert verdict.attempts == 1
        assert verdict_from_json(verdict_to_json(verdict)) == verdict

    def test_each_failure_has_its_kind_and_one_line(self, make: MakeEvaluator, tmp_path: Path) -> None:
        evaluator = make(write_task(tmp_path, timeout_s=1.5), _CONFIG)
        jobs = [EvaluationJob(f"f{i}", source) for i, (source, _, _) in enumerate(FAILURES)]
        verdicts = asyncio.run(self._verdicts(evaluator, *jobs))
        for verdict, (source, kind, part) in zip(verdicts, FAILURES, strict=True):
            assert isinstance(verdict, Failure), source
            assert verdict.kind == kind, (source, verdict)
            assert part in verdict.detail, (source, verdict)
            assert "\n" not in verdict.detail
            assert verdict.case == "c0"
            assert verdict_from_json(verdict_to_json(verdict)) == verdict

    def test_a_traceback_shows_the_candidates_lines_only(self, make: MakeEvaluator, tmp_path: Path) -> None:
        source = "def solve(x):\n    print('so far')\n    return helper(x)\n\ndef helper(x):\n    return x['none']\n"
        (verdict,) = asyncio.run(self._verdicts(make(write_task(tmp_path), _CONFIG), EvaluationJob("a", source)))
        assert isinstance(verdict, Failure)
        trace = verdict.artifacts["traceback"]
        assert "return helper(x)" in trace
        assert "return x['none']" in trace
        assert "adapter.py" not in trace
        assert "child.py" not in trace
        assert verdict.artifacts["stdout"] == "so far\n"

    def test_the_first_failing_case_is_named(self, make: MakeEvaluator, tmp_path: Path) -> None:
        source = "def solve(x):\n    return -1.0 if x[0] else float(x.sum())\n"
        (verdict,) = asyncio.run(self._verdicts(make(write_task(tmp_path), _CONFIG), EvaluationJob("a", source)))
        assert isinstance(verdict, Failure)
        assert verdict.case == "c1"

    def test_every_case_has_a_fresh_process_and_its_own_seed(self, make: MakeEvaluator, tmp_path: Path) -> None:
        source = """
import random
import numpy as np
seen = []
def solve(x):
    seen.append(1)
    print("draw", random.random(), np.random.rand())
    return float(x.sum()) + len(seen) - 1
"""
        evaluator = make(write_task(tmp_path), _CONFIG)
        jobs = [EvaluationJob("a", source), EvaluationJob("b", source)]
        first, second = asyncio.run(self._verdicts(evaluator, *jobs))
        assert isinstance(first, Evaluation)
        assert first.score == 0.0
        assert first.artifacts["stdout"].startswith("draw 0.")
        assert first.artifacts == second.artifacts

    def test_share_process_keeps_state_between_cases(self, make: MakeEvaluator, tmp_path: Path) -> None:
        source = "n = 0\ndef solve(x):\n    global n\n    n += 1\n    return float(x.sum()) + n\n"
        task = write_task(tmp_path, extra="share_process: the program learns from case to case")
        (verdict,) = asyncio.run(self._verdicts(make(task, _CONFIG), EvaluationJob("a", source)))
        assert isinstance(verdict, Evaluation)
        assert [case.metrics["error"] for case in verdict.cases] == [1.0, 2.0]
        assert all(case.cpu_s >= 0 for case in verdict.cases)

    def test_an_interactive_task_is_played_by_its_referee(self, make: MakeEvaluator, tmp_path: Path) -> None:
        player = "class Player:\n    def act(self, seen):\n        return seen['total'] + seen['value']\n"
        silent = "class Player:\n    def act(self, seen):\n        return None\n"
        task = write_task(tmp_path, adapter=INTERACTIVE_ADAPTER, judge=JUDGE + REFEREE)
        jobs = [EvaluationJob("a", player), EvaluationJob("b", silent)]
        good, bad = asyncio.run(self._verdicts(make(task, _CONFIG), *jobs))
        assert isinstance(good, Evaluation)
        assert good.score == 0.0
        assert isinstance(bad, Failure)
        assert bad.kind == FailureKind.INVALID

    def test_attempts_known_before_are_counted(self, make: MakeEvaluator, tmp_path: Path) -> None:
        job = EvaluationJob("a", SEED, attempts=2)
        (verdict,) = asyncio.run(self._verdicts(make(write_task(tmp_path), _CONFIG), job))
        assert verdict.attempts == 3

    def test_a_split_without_cases_is_the_users_error(self, make: MakeEvaluator, tmp_path: Path) -> None:
        evaluator = make(write_task(tmp_path), _CONFIG)
        with pytest.raises(UsageError, match="no cases for the split stress"):
            asyncio.run(self._verdicts(evaluator, EvaluationJob("a", SEED, split="stress")))

    def test_a_task_that_cannot_be_served_is_the_users_error(self, make: MakeEvaluator, tmp_path: Path) -> None:
        broken = {
            "import judge": ("from . import judge\n" + ADAPTER, "imports judge.py"),
            "no call": ("x = 1\n", "must define run"),
            "does not import": ("import nothing_of_that_name\n", "nothing_of_that_name"),
            "threads": ("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
                        + ADAPTER, "threads"),
        }  # fmt: skip
        for name, (adapter, message) in broken.items():
            evaluator = make(write_task(tmp_path / name, adapter=adapter), EvaluatorConfig(slots=1))
            with pytest.raises(UsageError, match=message) as caught:
                asyncio.run(evaluator.start())
            assert "\n" not in str(caught.value)
            asyncio.run(evaluator.close())

    def test_without_a_jail_every_verdict_says_so(self, make: MakeEvaluator, tmp_path: Path) -> None:
        config = EvaluatorConfig(slots=1, sandbox="unsafe")
        jobs = [EvaluationJob("a", SEED), EvaluationJob("b", "def solve(x):\n    return None\n")]
        for verdict in asyncio.run(self._verdicts(make(write_task(tmp_path), config), *jobs)):
            assert verdict.trust == "unsafe"
            assert verdict.evidence.jail == ("rlimits",)

    def test_closing_twice_is_safe(self, make: MakeEvaluator, tmp_path: Path) -> None:
        evaluator = make(write_task(tmp_path), _CONFIG)

        async def twice() -> None:
            await evaluator.start()
            await evaluator.close()
            await evaluator.close()

        asyncio.run(twice())
