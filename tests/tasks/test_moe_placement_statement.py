"""The simulator of moe_placement computes what the statement tells: against loops written from that text alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval.serving import Decision, serve, window_tokens
from gpu_eval.shapes import Shape

from . import literal_moe_placement as literal
from .test_moe_placement import SCENARIO, SHAPE


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    shape=st.sampled_from(
        [SHAPE, Shape(4, 6, 16, 8, 2, 2), Shape(2, 5, 6, 6, 3), Shape(2, 4, 6, 1), Shape(4, 4, 16, 8, 1)]
    ),
    phase=st.sampled_from(["prefill", "decode"]),
    change=st.sampled_from(["none", "silent", "one_hot"]),
    seed=st.integers(0, 10_000),
)
def test_the_statement_tells_all_that_time_is_made_of(shape, phase, change, seed) -> None:
    """The simulator against loops that were written from the statement alone."""
    rng = np.random.default_rng(seed)
    size = str(rng.choice(["small", "deepseek_v3"]))
    scenario = SCENARIO.Scenario("told", "heavy", shape, phase, 6, 12, seed, size, change=change, layout="plain")
    initial, trace = SCENARIO.initial_placement(scenario), SCENARIO.trace_of(scenario)
    decisions = [some_decision(shape, rng) for _ in range(scenario.windows - 1)]
    game = serve(trace, scenario.config, scenario.costs, initial)
    next(game)
    for decision in decisions[:-1]:
        game.send(decision)
    with pytest.raises(StopIteration) as end:
        game.send(decisions[-1])
    expected = literal.steps(
        SCENARIO.told(scenario),
        [window_tokens(trace, window, scenario.config, 0) for window in range(1, trace.windows)],
        initial.tolist(),
        [(plain(each.placement), plain(each.split), each.seconds) for each in decisions],
    )
    np.testing.assert_allclose(end.value.value.step_seconds, expected, rtol=1e-9)


def some_decision(shape: Shape, rng: np.random.Generator) -> Decision:
    """None, or any valid placement, duplicates on a GPU included, with any split or none; at once or late."""
    seconds = float(rng.choice([0.0, 0.001, 0.02]))
    if rng.random() < 0.25:
        return Decision(seconds=seconds)
    spare = rng.integers(0, shape.experts, (shape.layers, shape.slots - shape.experts))
    placed = rng.permuted(np.hstack([np.tile(np.arange(shape.experts), (shape.layers, 1)), spare]), axis=1)
    shares = rng.exponential(size=placed.shape) * (rng.random(placed.shape) < 0.6) + 1e-3
    cells = placed + np.arange(shape.layers)[:, None] * shape.experts
    shares /= np.bincount(cells.ravel(), shares.ravel())[cells]
    return Decision(placed, shares if rng.random() < 0.5 else None, seconds)


def plain(array: Any) -> Any:
    return None if array is None else array.tolist()
