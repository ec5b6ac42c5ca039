"""Whatever a candidate says and whatever a judge makes of it, there is a verdict, and it can be shown."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.judging import printable
from adrs_ray.openevolve import OpenEvolveJudge
from adrs_ray.task import CaseResult, MalformedOutput, shown
from tests.evaluator.tiny_task import INTERACTIVE_ADAPTER, JUDGE, REFEREE, SEED, write_task

REWRITES = "ok \x1b[2K\x1b[1A\rscore 99 \u202e \x00 \ud800 [bold]"
SHOWN = r"ok \x1b[2K\x1b[1A\rscore 99 \u202e \x00 \ud800 [bold]"


def test_words_lose_what_would_move_a_cursor_or_fail_to_be_encoded() -> None:
    assert printable(REWRITES) == SHOWN
    assert printable("tab\tline\nümlaut 試") == "tab\tline\nümlaut 試"


def test_a_verdict_cannot_be_rewritten_by_what_is_printed_beside_it(tmp_path: Path) -> None:
    attempts = f"""
import sys
text = {REWRITES!r}
try:
    open("/" + text.replace(chr(0), "").replace(chr(0xD800), ""))
except OSError:
    pass
sys.stdout.buffer.write(text.encode("utf-8", "surrogatepass"))
"""
    task = write_task(tmp_path / "task")
    config = EvaluatorConfig(slots=1)
    for source in (attempts + SEED, attempts + "raise ValueError(text)"):
        verdict = evaluate_once(task, source, "train", config)
        said = [*verdict.artifacts.values(), *verdict.evidence.denied]
        if isinstance(verdict, Failure):
            assert verdict.kind is FailureKind.CRASH
            assert SHOWN.replace(r"\r", " ") in verdict.detail
            said.append(verdict.detail)
        assert "\\x1b[2K" in verdict.artifacts["stdout"]
        assert any("\\x1b[2K" in name for name in verdict.evidence.denied)
        for text in said:
            text.encode()
            assert "\x1b" not in text
            assert "\r" not in text


@pytest.mark.parametrize(
    "broken",
    [
        "def score(case, raw):\n    return next(m for m in () if raw)\n",
        "def score(case, raw):\n    return None\n",
        "def combine(results):\n    return {'score': 1.0}\n",
        "def combine(results):\n    return next(iter(()))\n",
    ],
    ids=["score stops", "score gives nothing", "combine gives a dict", "combine stops"],
)
def test_a_judge_that_breaks_is_a_verdict_not_an_exception(tmp_path: Path, broken: str) -> None:
    """A StopIteration ended the search itself: it passed for the end of a referee's game."""
    task = write_task(tmp_path / "task", judge=JUDGE + "\n\n" + broken)
    verdict = evaluate_once(task, SEED, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.INFRASTRUCTURE
    assert verdict.detail.startswith("judge.py of task tiny raised ")


def test_what_a_judge_cannot_send_is_the_tasks_fault(tmp_path: Path) -> None:
    judge = JUDGE.replace('{"x": np.arange(10.0) + i}', '{"x": {1, 2}}')
    assert judge != JUDGE
    verdict = evaluate_once(write_task(tmp_path / "task", judge=judge), SEED, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Failure)
    assert (verdict.kind, "set" in verdict.detail) == (FailureKind.INFRASTRUCTURE, True)


def test_a_game_still_ends_with_the_referees_value(tmp_path: Path) -> None:
    player = """
class Player:
    def act(self, observation):
        return observation["total"] + observation["value"]
"""
    task = write_task(tmp_path / "task", judge=JUDGE + REFEREE, adapter=INTERACTIVE_ADAPTER)
    verdict = evaluate_once(task, player, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_foreign_metrics_too_large_to_be_added_up_are_malformed() -> None:
    judge = OpenEvolveJudge()
    metrics = judge.score(judge.cases("train")[0], {"metrics": {"a": 1.7e308, "b": 1.7e308}})
    with pytest.raises(MalformedOutput, match="too large"):
        judge.combine([CaseResult("evaluate", metrics, 0.0, 0.0)])


def test_foreign_metrics_have_names_that_can_be_shown() -> None:
    with pytest.raises(MalformedOutput, match="printable"):
        OpenEvolveJudge().score(OpenEvolveJudge().cases("train")[0], {"metrics": {"a\x1b[2K": 1.0}})


def test_a_judge_never_prints_all_that_it_was_given() -> None:
    """An array of many axes took the judge minutes to print, and nothing limits its time."""

    class Monster(np.ndarray):  # type: ignore[type-arg]
        def __repr__(self) -> str:
            raise AssertionError("printed")

        __str__ = __repr__

    monster = np.zeros(3).view(Monster)
    judge = OpenEvolveJudge()
    (case,) = judge.cases("train")
    for raw in (
        {"metrics": {"a": monster}},
        {"metrics": {"a": [monster]}},
        {"malformed": monster},
        {"metrics": {"a": 1.0}, "stage": monster},
    ):
        with pytest.raises(MalformedOutput, match=r"a Monster|a list of 1"):
            judge.score(case, raw)
    assert shown("x" * 10**6) == repr("x" * 80) + "..."
    assert [shown(value) for value in (None, True, 2, 0.5, (1, 2), {})] == [
        "None", "True", "2", "0.5", "a tuple of 2", "a dict of 0",
    ]  # fmt: skip
