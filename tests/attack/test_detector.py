"""When a verdict on a cheat is a finding, rule by rule."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from adrs_ray.attack.battery import Cheat, Family
from adrs_ray.attack.detector import Baseline, Trial, blindness, is_finding, unread_parts
from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict

SEED = ("a1", "a2")
BASELINE = Baseline(scores=(10.0, 10.0), answers=frozenset({SEED}), floor=0.0)
NOISY = Baseline(scores=(10.0, 10.5), answers=frozenset({SEED}), floor=None)
CUT = Cheat(Family.COVERAGE, "half", "at", "", part="answer[1]")
SHIFT = Cheat(Family.EXTRA, "far", "above", "", part="answer[1]")


def verdict(score: float, answers: tuple[str, ...] = ("b1", "b2")) -> Evaluation:
    text = "\n".join(json.dumps({"answer": answer}) for answer in answers)
    return Evaluation(score, {}, (), "verified", 0.1, artifacts={"attack trace": text})


def refused() -> Failure:
    return Failure(FailureKind.INVALID, "no")


def found(cheat: Cheat, verdict: Verdict, *others: Trial, baseline: Baseline = BASELINE) -> bool:
    trial = Trial(cheat, verdict)
    return is_finding(trial, baseline, [trial, *others], traced=False)


def cheat(family: Family, rule: Any, **more: Any) -> Cheat:
    return replace(Cheat(family, "idea", rule, ""), **more)


def test_a_refused_cheat_is_none() -> None:
    assert not found(CUT, refused())


@pytest.mark.parametrize(("score", "answers", "expected"), [(11.0, SEED, True), (10.0, SEED, False)])
def test_what_leaves_answers_alone_must_score_above_the_seed(
    score: float, answers: tuple[str, ...], expected: bool
) -> None:
    assert found(cheat(Family.CLOCK, "neutral"), verdict(score, answers)) is expected


def test_other_answers_explain_a_score_that_a_clock_does_not() -> None:
    assert not found(cheat(Family.CLOCK, "neutral"), verdict(11.0, ("b1", "b2")))


def test_an_answer_that_did_not_change_proves_nothing() -> None:
    assert not found(CUT, verdict(11.0, SEED))
    assert found(CUT, verdict(11.0))


def test_a_broken_answer_as_good_as_the_seeds_counts_only_where_the_part_is_read() -> None:
    assert not found(CUT, verdict(10.0))
    assert not found(CUT, verdict(10.0), Trial(SHIFT, verdict(10.0)))
    assert found(CUT, verdict(10.0), Trial(SHIFT, refused()))
    assert found(CUT, verdict(10.0), Trial(SHIFT, verdict(4.0)))
    assert not found(CUT, verdict(10.0), Trial(replace(SHIFT, part="answer[0]"), refused()))
    assert not found(CUT, verdict(9.0), Trial(SHIFT, refused()))


def test_another_truncation_does_not_show_that_a_part_is_read() -> None:
    assert not found(CUT, verdict(10.0), Trial(replace(CUT, idea="none"), refused()))


def test_a_crash_no_better_than_raising_always_is_none() -> None:
    crash = cheat(Family.CRASH, "at")
    assert found(crash, verdict(10.0))
    assert not found(crash, verdict(10.0), baseline=replace(BASELINE, floor=10.0))
    assert found(crash, verdict(10.5), baseline=replace(BASELINE, floor=10.0))


def test_figures_must_raise_the_score() -> None:
    assert not found(cheat(Family.METRIC, "above"), verdict(10.0))
    assert found(cheat(Family.METRIC, "above"), verdict(10.1))


def test_parts_are_inconsistent_only_beside_one_that_is_read() -> None:
    filled = cheat(Family.INCONSISTENT, "above", part="answer[0]")
    assert not found(filled, verdict(12.0), Trial(replace(SHIFT, part="answer[0]"), refused()))
    assert found(filled, verdict(12.0), Trial(SHIFT, refused()))


def test_noise_is_no_finding() -> None:
    forged = cheat(Family.METRIC, "above")
    assert not found(forged, verdict(11.0), baseline=NOISY)
    assert found(forged, verdict(12.0), baseline=NOISY)


def test_our_own_failures_and_timeouts_are_no_refusals() -> None:
    for kind in (FailureKind.INFRASTRUCTURE, FailureKind.TIMEOUT):
        assert not found(CUT, verdict(10.0), Trial(SHIFT, Failure(kind, "late")))


def blind_trials(scores: list[float], destroyed: int) -> list[Trial]:
    changes = [cheat(Family.MUTANT, "probe", destructive=i < destroyed) for i in range(len(scores))]
    return [Trial(c, verdict(score, (f"m{i}",))) for i, (c, score) in enumerate(zip(changes, scores, strict=True))]


def test_an_evaluator_is_blind_when_enough_other_answers_keep_the_score() -> None:
    assert blindness(BASELINE, blind_trials([10.0] * 8, 2)) is not None
    assert blindness(BASELINE, blind_trials([10.0] * 7, 2)) is None
    assert blindness(BASELINE, blind_trials([10.0] * 8 + [9.0], 2)) is None


def test_tie_breaks_that_keep_the_score_are_no_blindness() -> None:
    assert blindness(BASELINE, blind_trials([10.0] * 20, 1)) is None


def test_a_part_of_which_no_change_is_noticed_is_unread() -> None:
    ignored = [Trial(c, verdict(10.0)) for c in (CUT, SHIFT, replace(CUT, idea="none"), replace(SHIFT, idea="below"))]
    assert unread_parts(BASELINE, ignored) == ["answer[1]"]
    assert unread_parts(BASELINE, ignored[:3]) == []
    assert unread_parts(BASELINE, [*ignored, Trial(SHIFT, refused())]) == []
