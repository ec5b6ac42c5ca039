"""Served traces: exact seconds of small examples, stalls that are capped, decisions that come late, what is refused."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.invariants import PlacementError
from gpu_eval.serving import (
    Decision,
    ServingConfig,
    ServingResult,
    check_decision,
    even_split,
    play,
    serve,
    window_tokens,
)
from gpu_eval.shapes import ExpertSize, Shape
from gpu_eval.workloads import LoadTrace

SIZE = ExpertSize("one", 64, 32, 1)
SHAPE = Shape(layers=2, experts=2, slots=4, gpus=2)
CONFIG = ServingConfig(SHAPE, SIZE, "prefill", tokens_per_gpu=5, window_steps=10, overlap=0.5, stall_cap=0.1)
TOGETHER = np.array([[0, 1, 1, 1]] * 2)
"""Expert 0 on the first GPU only."""
APART = np.array([[0, 1, 0, 1]] * 2)
"""Both experts on both GPUs."""


@dataclass(frozen=True)
class OneSecondAToken:
    """A layer takes a second for every token of its fullest GPU; a changed layer takes `copy_s` to copy."""

    shape: Shape = SHAPE
    copy_s: float = 4.0

    def layer_seconds(self, placement, split, tokens):
        shares = even_split(placement, self.shape.experts) if split is None else split
        slots = np.stack([np.take_along_axis(sample, placement, axis=1) for sample in tokens]) * shares
        return slots.reshape(*slots.shape[:2], self.shape.gpus, -1).sum(axis=3).max(axis=2)

    def copying(self, old, new):
        changed = (old != new).any(axis=1)
        return changed * self.copy_s, changed.astype(np.int64)


def hot(windows: int, shape: Shape = SHAPE, samples: int = 1) -> LoadTrace:
    """All tokens go to expert 0, so that nothing is left to chance."""
    loads = np.zeros((windows, samples, shape.layers, shape.experts), np.int64)
    loads[..., 0] = 7
    return LoadTrace("hot", "generated", loads)


def answers(*decisions: Decision, config: ServingConfig = CONFIG, costs=None, initial=TOGETHER) -> ServingResult:
    game = serve(hot(len(decisions) + 1, config.shape), config, costs or OneSecondAToken(), initial)
    next(game)
    for decision in decisions[:-1]:
        game.send(decision)
    with pytest.raises(StopIteration) as end:
        game.send(decisions[-1])
    result: ServingResult = end.value.value
    return result


def test_a_change_costs_its_stalls_and_the_steps_until_it_is_there() -> None:
    """Steps take 20 s before and 10 s after. A step of 20 s hides 4 s of copying and grows by 2: one layer is over,
    the next step takes 15 s and hides 3 s, the one after it the last second."""
    result = answers(Decision(APART))
    assert result.step_seconds.tolist() == pytest.approx([22.0, 16.5, 15.5] + [10.0] * 7)
    assert result.seconds == pytest.approx(124.0)
    assert result.window_seconds.tolist() == pytest.approx([120.0])
    assert result.stall_seconds == pytest.approx(4.0)
    assert (result.changes, result.fetched) == (1, 2)
    assert result.placements.tolist() == [APART.tolist()]


def test_a_decision_delays_its_change_and_adds_no_time_of_its_own() -> None:
    """After 30 s the second step is under way: the copies start with the third."""
    result = answers(Decision(APART, seconds=30.0))
    assert result.step_seconds.tolist() == pytest.approx([20.0, 20.0, 22.0, 16.5, 15.5] + [10.0] * 5)
    assert result.decision_seconds.tolist() == [30.0]


def test_never_rebalancing_moves_nothing_and_stalls_nothing() -> None:
    result = answers(Decision(), Decision(), Decision(seconds=1e9))
    assert result.step_seconds.tolist() == [20.0] * 30
    assert (result.changes, result.fetched, result.stall_seconds) == (0, 0, 0.0)
    assert (result.placements == TOGETHER).all()
    assert result.balance == pytest.approx(0.5)


def test_the_placement_in_force_is_not_a_change() -> None:
    result = answers(Decision(TOGETHER.copy()))
    assert (result.seconds, result.changes, result.fetched) == (200.0, 0, 0)


def test_a_decision_longer_than_a_window_comes_in_a_later_one() -> None:
    """Windows last 200 s: decided after 250 s, there in the second window; the second decision waits for the first."""
    result = answers(Decision(APART, seconds=250.0), Decision(seconds=10.0), Decision(TOGETHER, seconds=500.0))
    assert result.step_seconds[:10].tolist() == [20.0] * 10
    assert result.step_seconds[10:17].tolist() == pytest.approx([20.0] * 3 + [22.0, 16.5, 15.5, 10.0])
    assert (result.placements[1] == APART).all()
    assert (result.placements[2] == APART).all(), "the third is decided 760 s into the trace: never"


def test_a_change_goes_on_into_the_next_window_unless_another_takes_its_place() -> None:
    """A window hides 40 s of copying at first, 3 s a step once the first layer went over."""
    slow = OneSecondAToken(copy_s=48.0)
    goes_on = answers(Decision(APART), Decision(), Decision(), costs=slow)
    assert [(placement == APART).all(axis=1).tolist() for placement in goes_on.placements] == [
        [False, False],
        [True, False],
        [True, True],
    ]
    assert goes_on.step_seconds.tolist() == pytest.approx([22.0] * 12 + [16.5] * 16 + [10.0] * 2)
    replaced = answers(Decision(APART), Decision(TOGETHER), costs=slow)
    assert replaced.step_seconds[10:].tolist() == [20.0] * 10
    assert (replaced.fetched, replaced.changes) == (0, 1)


def test_layers_that_went_over_stay_when_a_newer_decision_comes() -> None:
    slow = OneSecondAToken(copy_s=39.0)
    only_first = np.array([APART[0], TOGETHER[1]])
    result = answers(Decision(APART), Decision(only_first), costs=slow)
    assert result.placements[0].tolist() == only_first.tolist()
    assert result.step_seconds[10:].tolist() == [15.0] * 10


def test_layers_without_copies_go_over_at_once() -> None:
    class FreeSecondLayer(OneSecondAToken):
        def copying(self, old, new):
            seconds, fetched = super().copying(old, new)
            seconds[1] = fetched[1] = 0
            return seconds, fetched

    result = answers(Decision(APART), costs=FreeSecondLayer())
    assert result.step_seconds[:3].tolist() == pytest.approx([15.0 + 1.5, 15.0 + 0.5, 10.0])


def test_a_split_without_a_placement_is_for_the_one_in_force_and_costs_nothing() -> None:
    """Expert 1 has nothing to do; expert 0 gives a fifth of its tokens to the second GPU."""
    shares = np.array([[0.8, 0.5, 0.2, 0.5]] * 2)
    decision = check_decision(None, shares, APART, SHAPE, 0.0)
    result = answers(decision, Decision(), Decision(APART), initial=APART)
    assert result.step_seconds.tolist() == pytest.approx([16.0] * 20 + [10.0] * 10)
    assert (result.changes, result.stall_seconds) == (0, 0.0)
    assert result.splits[1] is not None
    np.testing.assert_allclose(result.splits[1], shares)


def test_hidden_copies_stall_nothing_and_cannot_outrun_the_steps() -> None:
    config = replace(CONFIG, overlap=1.0)
    result = answers(Decision(APART), config=config, costs=OneSecondAToken(copy_s=30.0))
    assert result.step_seconds.tolist() == pytest.approx([20.0, 20.0, 15.0, 15.0, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0])
    assert result.stall_seconds == 0.0


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([TOGETHER, APART, None]), min_size=1, max_size=5), st.data())
def test_no_step_stalls_beyond_the_cap_and_every_stall_is_charged(placements, data) -> None:
    config = replace(
        CONFIG, overlap=data.draw(st.sampled_from([0.0, 0.5, 0.9])), stall_cap=data.draw(st.sampled_from([0.02, 0.3]))
    )
    costs = OneSecondAToken(copy_s=data.draw(st.floats(0.0, 100.0)))
    seconds = data.draw(st.lists(st.floats(0, 300), min_size=len(placements), max_size=len(placements)))
    decisions = [Decision(p, seconds=s) for p, s in zip(placements, seconds, strict=True)]
    result = answers(*decisions, config=config, costs=costs)
    assert (result.step_seconds <= 20.0 * (1 + config.stall_cap) + 1e-9).all()
    assert (result.step_seconds >= 10.0 - 1e-9).all()
    assert result.seconds == pytest.approx(result.window_seconds.sum() + result.stall_seconds)
    assert result.stall_seconds >= (1 - config.overlap) * costs.copy_s * result.fetched - 1e-6


def test_the_steps_of_a_window_have_the_tokens_of_its_samples_in_turn() -> None:
    loads = np.zeros((2, 2, 2, 2), np.int64)
    loads[:, 0, :, 0] = loads[:, 1, :, 1] = 1
    trace = LoadTrace("turns", "generated", loads)
    initial = np.array([[0, 0, 0, 1]] * 2)
    config = replace(CONFIG, window_steps=5)
    result = play(trace, lambda *_: None, config, OneSecondAToken(), initial, decision_s=0.0)
    first, second = 2 * 10 * 2 / 3, 2 * 10.0
    assert result.step_seconds.tolist() == pytest.approx([first] * 3 + [second] * 2)


def test_tokens_of_steps_follow_their_windows_and_are_the_same_again() -> None:
    loads = np.array([[[[30, 10], [0, 0]]], [[[1, 1], [5, 0]]]])
    trace = LoadTrace("t", "generated", loads)
    drawn = window_tokens(trace, 0, replace(CONFIG, tokens_per_gpu=5000), 3)
    assert drawn.sum(axis=2).tolist() == [[10_000, 0]]
    assert drawn[0, 0, 0] == pytest.approx(7500, abs=300)
    np.testing.assert_array_equal(drawn, window_tokens(trace, 0, replace(CONFIG, tokens_per_gpu=5000), 3))
    assert (drawn != window_tokens(trace, 0, replace(CONFIG, tokens_per_gpu=5000), 4)).any()


def test_what_is_shown_is_the_window_that_ended_and_what_is_in_force() -> None:
    seen = []

    def decide(loads, placement):
        seen.append((loads.copy(), placement.copy()))
        loads[:], placement[:] = 0, 0  # its own copies
        return APART if len(seen) == 1 else None

    trace = hot(3)
    trace.samples[1] *= 3
    play(trace, decide, CONFIG, OneSecondAToken(), TOGETHER, decision_s=0.0)
    assert [loads.sum() for loads, _ in seen] == [14, 42]
    assert [placement.tolist() for _, placement in seen] == [TOGETHER.tolist(), APART.tolist()]


def test_decisions_are_timed_unless_told_otherwise() -> None:
    def decide(loads, placement):
        time.sleep(0.02)

    timed = play(hot(2), decide, CONFIG, OneSecondAToken(), TOGETHER)
    assert timed.decision_seconds[0] >= 0.02
    assert play(hot(2), decide, CONFIG, OneSecondAToken(), TOGETHER, decision_s=3.0).decision_seconds.tolist() == [3.0]


GOOD = np.full((2, 4), 0.5)


@pytest.mark.parametrize(
    ("placement", "split", "kind", "says"),
    [
        (np.array([[0, 1, 0, 1], [1, 1, 1, 1]]), None, "missing", "layer 1, expert 0"),
        (np.array([[0, 1, 0, 2], [0, 1, 0, 1]]), None, "range", "layer 0: slot 3 holds expert 2"),
        (np.array([[0, 1, 0, -1], [0, 1, 0, 1]]), None, "range", "holds expert -1"),
        (APART[:1], None, "shape", "1x4"),
        (APART.astype(float), None, "dtype", "float64"),
        (APART.tolist(), None, "type", "list"),
        (APART, GOOD[:, :2], "shape", r"\[2, 2\]"),
        (APART, GOOD.astype(int), "dtype", "int64"),
        (APART, GOOD.tolist(), "dtype", "list"),
        (APART, np.array([[0.5] * 4, [1.5, 0.5, -0.5, 0.5]]), "split", "layer 1, expert 0: slot 2 has the share -0.5"),
        (APART, np.array([[np.nan] * 4, [0.5] * 4]), "split", "share nan"),
        (APART, np.array([[np.inf] * 4, [0.5] * 4]), "split", "share inf"),
        (APART, np.array([[0.5] * 4, [0.5, 0.5, 0.5, 0.6]]), "split", "layer 1, expert 1: its shares sum to 1.1"),
        (APART, np.zeros((2, 4)), "split", "sum to 0, expected 1"),
        (None, np.array([[1.0, 0.5, 0.5, 0.5], [0.5] * 4]), "split", "layer 0, expert 0: its shares sum to 1.5"),
    ],
)
def test_what_is_no_placement_or_split_is_refused_by_layer_and_expert(placement, split, kind, says) -> None:
    with pytest.raises(PlacementError, match=says) as refused:
        check_decision(placement, split, APART, SHAPE, 0.0)
    assert refused.value.kind == kind


def test_play_names_the_window_of_what_it_refuses() -> None:
    wrong = np.zeros((2, 4), np.int64)
    turns = iter([None, wrong])
    with pytest.raises(ValueError, match=r"^window 1: layer 0, expert 1: expected in at least one slot"):
        play(hot(3), lambda *_: next(turns), CONFIG, OneSecondAToken(), TOGETHER, decision_s=0.0)


def test_sums_within_the_tolerance_become_exact() -> None:
    nearly = GOOD.copy()
    nearly[0, 0] += 5e-7
    decision = check_decision(APART, nearly, TOGETHER, SHAPE, 0.0)
    assert decision.split is not None
    assert decision.split[0, 0] + decision.split[0, 2] == pytest.approx(1.0, abs=1e-15)


def test_a_decision_keeps_no_array_of_its_maker() -> None:
    placement, shares = APART.copy(), GOOD.copy()
    decision = check_decision(placement, shares, TOGETHER, SHAPE, 0.0)
    placement[:], shares[:] = 0, 9.0
    assert decision.placement is not None
    assert decision.split is not None
    np.testing.assert_array_equal(decision.placement, APART)
    np.testing.assert_array_equal(decision.split, GOOD)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens_per_gpu": 0}, "tokens_per_gpu is 0, expected at least 1"),
        ({"window_steps": -1}, "window_steps is -1"),
        ({"overlap": 1.5}, "overlap is 1.5, expected 0 to 1"),
        ({"overlap": float("nan")}, "overlap is nan"),
        ({"stall_cap": 0.0}, "stall_cap is 0.0, expected above 0"),
        ({"precision": "int3"}, "int3"),
    ],
)
def test_a_configuration_that_cannot_be_says_why(change, says) -> None:
    with pytest.raises(ValueError, match=says):
        replace(CONFIG, **change)
