"""Plans of an exchange: every token reaches its slots once, and split sizes are those of the placement."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.exchange_plan import deal_evenly, plan_exchange


@st.composite
def layers(draw: st.DrawFn) -> tuple[int, int, np.ndarray, np.ndarray]:
    """World, experts, choices [T, k] and phy2log [P]."""
    world = draw(st.integers(1, 4))
    experts = draw(st.integers(2, 9))
    per_process = draw(st.integers(-(-experts // world), experts))
    top_k = draw(st.integers(1, min(3, experts)))
    tokens = world * draw(st.integers(0, 5))
    generator = np.random.default_rng(draw(st.integers(0, 10_000)))
    extra = generator.integers(0, experts, world * per_process - experts)
    phy2log = generator.permutation(np.concatenate([np.arange(experts), extra]))
    choices = np.argsort(generator.random((tokens, experts)), axis=1)[:, :top_k]
    return world, experts, choices, phy2log


@given(layers())
def test_choices_go_to_copies_of_their_expert_evenly(layer: tuple[int, int, np.ndarray, np.ndarray]) -> None:
    _, experts, choices, phy2log = layer
    slots = deal_evenly(choices, phy2log, experts)
    assert (phy2log[slots] == choices).all()
    load = np.bincount(slots.ravel(), minlength=len(phy2log))
    for expert in range(experts):
        of_copies = load[phy2log == expert]
        assert of_copies.max() - of_copies.min() <= 1


@given(layers())
def test_every_pair_is_computed_once_where_its_slot_is(layer: tuple[int, int, np.ndarray, np.ndarray]) -> None:
    world, experts, choices, phy2log = layer
    slots = deal_evenly(choices, phy2log, experts)
    gates = np.arange(choices.size, dtype=np.float32).reshape(choices.shape)
    plans = [plan_exchange(slots, gates, index, world, len(phy2log) // world) for index in range(world)]
    block = len(choices) // world
    per_process = len(phy2log) // world
    seen = []
    for index, plan in enumerate(plans):
        assert [plans[source].send_splits[index] for source in range(world)] == list(plan.receive_splits)
        arrived = [
            source * block + row
            for source, other in enumerate(plans)
            for row in np.split(other.send_rows, np.cumsum(other.send_splits)[:-1])[index].tolist()
        ]
        assert len(set(arrived)) == len(arrived) == sum(plan.receive_splits)
        of_pair = np.repeat(np.arange(per_process), plan.slot_tokens) + index * per_process
        assert len(of_pair) == len(plan.pair_rows) == len(plan.pair_gates)
        seen += [
            (arrived[row], int(slot), float(gate))
            for row, slot, gate in zip(plan.pair_rows, of_pair, plan.pair_gates, strict=True)
        ]
        assert {arrived[row] for row in plan.pair_rows} == set(arrived)
    expected = [
        (token, int(slots[token, choice]), float(gates[token, choice])) for token, choice in np.ndindex(choices.shape)
    ]
    assert sorted(seen) == sorted(expected)


def test_split_sizes_count_a_token_once_per_process() -> None:
    slots = np.array([[0, 1], [0, 3], [2, 3], [1, 2]])
    first, second = (plan_exchange(slots, np.ones((4, 2), dtype=np.float32), index, 2, 2) for index in range(2))
    assert (first.send_splits, first.receive_splits) == ((2, 1), (2, 1))
    assert (second.send_splits, second.receive_splits) == ((1, 2), (1, 2))
    assert first.slot_tokens.tolist() == [2, 2]
    assert second.slot_tokens.tolist() == [2, 2]


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(ValueError, match="expert 2 has no slot"):
        deal_evenly(np.array([[2]]), np.array([0, 1]), 3)
    with pytest.raises(ValueError, match="3 tokens are no multiple of 2 processes"):
        plan_exchange(np.zeros((3, 1), dtype=np.int64), np.ones((3, 1), dtype=np.float32), 0, 2, 1)
