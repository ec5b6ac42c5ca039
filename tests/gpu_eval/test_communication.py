import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_eval import communication
from gpu_eval.communication import (
    NETWORKS,
    Network,
    Traffic,
    exact_traffic,
    exchange_seconds,
    expected_traffic,
    move_seconds,
    plan_moves,
    plan_seconds,
)
from gpu_eval.precision import token_bytes
from gpu_eval.shapes import ExpertSize, Shape

SIZE = ExpertSize("e", 256, 64, 2)
LINKS = Network("test", 100.0, 10.0, 0.0, "made up")


def placement(shape, rng):
    """Every expert once, the other slots at random, anywhere."""
    rows = [
        rng.permutation(
            np.concatenate([np.arange(shape.experts), rng.integers(0, shape.experts, shape.slots - shape.experts)])
        )
        for _ in range(shape.layers)
    ]
    return np.array(rows, dtype=np.int64)


def tokens_of(rng, shape, count, top_k):
    return np.argsort(rng.random((shape.layers, count, shape.experts)), axis=2)[:, :, :top_k]


SHAPE = Shape(2, 12, 24, 6, 2)
seeds = st.integers(0, 10_000)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_exact_traffic_counts_a_token_once_per_gpu_and_once_per_node(seed):
    rng = np.random.default_rng(seed)
    phy2log = np.tile(np.arange(12), (2, 2))
    phy2log[0, 12:] = rng.permutation(12)
    choices = tokens_of(rng, SHAPE, 40, 3)
    split = np.zeros((2, 24))
    split[:, :12] = 1.0
    got = exact_traffic(choices, phy2log, SHAPE, split)
    for layer in range(2):
        gpus = [{int(e) // SHAPE.slots_per_gpu for e in token} for token in choices[layer]]
        assert [sum(g in owners for owners in gpus) for g in range(6)] == got.gpu_tokens[layer].tolist()
        nodes = [{g // 3 for g in owners} for owners in gpus]
        assert [sum(n in owners for owners in nodes) for n in range(2)] == got.node_tokens[layer].tolist()


def test_copies_share_an_experts_tokens_evenly_or_by_the_split():
    shape = Shape(1, 4, 8, 8)
    phy2log = np.array([[0, 1, 2, 3, 0, 0, 0, 3]])
    choices = np.zeros((1, 1000, 1), dtype=np.int16)
    even = exact_traffic(choices, phy2log, shape).gpu_tokens[0]
    assert even[[1, 2, 3, 7]].tolist() == [0, 0, 0, 0]
    np.testing.assert_allclose(even[[0, 4, 5, 6]], 250, atol=3)
    split = np.array([[0.7, 1, 1, 0.5, 0.0, 0.2, 0.1, 0.5]])
    uneven = exact_traffic(choices, phy2log, shape, split).gpu_tokens[0]
    np.testing.assert_allclose(uneven, [700, 0, 0, 0, 0, 200, 100, 0], atol=3)


def test_the_expectation_meets_independent_tokens_and_stays_below_their_number():
    rng = np.random.default_rng(3)
    shape = Shape(2, 64, 96, 16, 4)
    phy2log = placement(shape, rng)
    choices = tokens_of(rng, shape, 4000, 4)
    counts = np.stack([np.bincount(layer.ravel(), minlength=64) for layer in choices])
    copies = np.stack([np.bincount(layer, minlength=64) for layer in phy2log])
    slots = np.take_along_axis(counts / copies, phy2log, axis=1)
    exact, expected = exact_traffic(choices, phy2log, shape), expected_traffic(phy2log, slots, shape, 4)
    np.testing.assert_allclose(exact.gpu_tokens, expected.gpu_tokens, rtol=0.1)
    np.testing.assert_allclose(exact.node_tokens, expected.node_tokens, rtol=0.1)
    assert (expected.node_tokens <= 4000).all()


def test_the_expectation_does_not_depend_on_how_many_layers_are_worked_on_at_once(monkeypatch):
    rng = np.random.default_rng(4)
    shape = Shape(7, 12, 24, 6, 2)
    phy2log, slots = placement(shape, rng), rng.integers(0, 50, (7, 24))
    whole = expected_traffic(phy2log, slots, shape, 3)
    monkeypatch.setattr(communication, "_TABLE", 2 * 6 * 12)
    parts = expected_traffic(phy2log, slots, shape, 3)
    np.testing.assert_array_equal(whole.gpu_tokens, parts.gpu_tokens)
    np.testing.assert_array_equal(whole.node_tokens, parts.node_tokens)


def test_two_copies_on_a_gpu_receive_no_token_twice():
    shape = Shape(1, 2, 4, 2)
    together, apart = np.array([[0, 0, 1, 1]]), np.array([[0, 1, 0, 1]])
    slots = np.array([[50.0, 50.0, 50.0, 50.0]])
    assert expected_traffic(together, slots, shape, 1).gpu_tokens.tolist() == [[100.0, 100.0]]
    # Apart, half of an expert's tokens and half of the other's: 200 * (1 - 3/4 * 3/4) by the model.
    np.testing.assert_allclose(expected_traffic(apart, slots, shape, 1).gpu_tokens, 87.5)


def test_layers_without_tokens_and_counts_above_the_tokens_are_harmless():
    shape = Shape(2, 2, 2, 2)
    phy2log = np.array([[0, 1], [0, 1]])
    got = expected_traffic(phy2log, np.array([[0, 0], [100, 0]]), shape, 2)
    assert got.gpu_tokens.tolist() == [[0, 0], [50, 0]]
    assert np.isfinite(exchange_seconds(got, shape, SIZE, LINKS)).all()


def test_exchange_of_one_node_by_hand():
    traffic = Traffic(np.array([[300.0, 100.0]]), np.array([[400.0]]))
    got = exchange_seconds(traffic, Shape(1, 2, 2, 2), SIZE, LINKS)
    # Half of each GPU's tokens start there; GPU 0 receives 150 and sends 50, GPU 1 the other way round.
    both_ways = token_bytes(256, "fp8") + token_bytes(256, "bf16")
    np.testing.assert_allclose(got, 150 * both_ways / 100e9)


def test_exchange_between_nodes_waits_for_infiniband_and_each_collective_costs_its_fixed_time():
    traffic = Traffic(np.full((1, 4), 100.0), np.full((1, 2), 160.0))
    slow = Network("slow", 100.0, 10.0, 5.0, "made up")
    got = exchange_seconds(traffic, Shape(1, 4, 4, 4, 2), SIZE, slow)
    both_ways = token_bytes(256, "fp8") + token_bytes(256, "bf16")
    np.testing.assert_allclose(got, 160 / 4 * both_ways / 10e9 + 10e-6)


def test_one_gpu_exchanges_nothing():
    traffic = Traffic(np.array([[100.0]]), np.array([[100.0]]))
    assert exchange_seconds(traffic, Shape(1, 2, 2, 1), SIZE, NETWORKS["h100"]).tolist() == [[0.0]]


def test_experts_chosen_together_cost_less_on_one_gpu_than_on_two():
    shape = Shape(1, 4, 4, 2)
    choices = np.array([[[0, 1]] * 50 + [[2, 3]] * 50])
    near = exact_traffic(choices, np.array([[0, 1, 2, 3]]), shape)
    far = exact_traffic(choices, np.array([[0, 2, 1, 3]]), shape)
    assert near.gpu_tokens.tolist() == [[50, 50]]
    assert far.gpu_tokens.tolist() == [[100, 100]]
    assert near.scaled(2.0).gpu_tokens.tolist() == [[100, 100]]


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_a_plan_brings_each_gpu_exactly_what_it_lacks_from_holders_near_first(seed):
    rng = np.random.default_rng(seed)
    old, new = placement(SHAPE, rng), placement(SHAPE, rng)
    plan = plan_moves(old, new, SHAPE)
    held = old.reshape(2, 6, 4)
    wanted = new.reshape(2, 6, 4)
    lacking = {
        (layer, int(e), g) for layer in range(2) for g in range(6) for e in set(wanted[layer, g]) - set(held[layer, g])
    }
    moves = list(zip(*(part.tolist() for part in (plan.layer, plan.expert, plan.source, plan.target)), strict=True))
    assert sorted((layer, e, target) for layer, e, _source, target in moves) == sorted(lacking)
    for layer, e, source, target in moves:
        holders = [g for g in range(6) if e in held[layer, g]]
        assert source in holders
        if any(g // 3 == target // 3 for g in holders):
            assert source // 3 == target // 3
    busiest = max(
        [sum(target == g and (source // 3 == g // 3) for _l, _e, source, target in moves) / 100 for g in range(6)]
        + [sum(source == g and (target // 3 == g // 3) for _l, _e, source, target in moves) / 100 for g in range(6)]
        + [sum(target == g and (source // 3 != g // 3) for _l, _e, source, target in moves) / 10 for g in range(6)]
        + [sum(source == g and (target // 3 != g // 3) for _l, _e, source, target in moves) / 10 for g in range(6)]
    )
    assert plan_seconds(plan, SHAPE, 10**9, LINKS) == pytest.approx(busiest)
    assert plan.changed_slots == int((old != new).sum())


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_slots_that_change_places_on_their_gpu_cost_nothing(seed):
    rng = np.random.default_rng(seed)
    old = placement(SHAPE, rng)
    new = rng.permuted(old.reshape(2, 6, 4), axis=2).reshape(2, 24)
    assert plan_moves(old, new, SHAPE).fetches == 0
    assert move_seconds(old, new, SHAPE, 10**9, NETWORKS["h100"]) == 0.0


def test_a_gpu_fetches_an_expert_once_for_two_slots_and_copies_of_its_own_are_free():
    shape = Shape(1, 3, 6, 3)
    plan = plan_moves(np.array([[0, 0, 1, 1, 2, 2]]), np.array([[0, 0, 1, 2, 1, 1]]), shape)
    assert (plan.expert.tolist(), plan.source.tolist(), plan.target.tolist()) == ([1, 2], [1, 2], [2, 1])
    assert plan.changed_slots == 3


def test_several_holders_share_the_sending():
    shape = Shape(1, 8, 16, 8)
    old = np.array([[0, 1, 0, 2, 0, 3, 0, 4, 5, 6, 6, 7, 7, 1, 5, 2]])
    new = np.array([[0, 1, 0, 2, 0, 3, 0, 4, 5, 0, 6, 0, 7, 0, 5, 0]])
    plan = plan_moves(old, new, shape)
    assert sorted(plan.source.tolist()) == [0, 1, 2, 3]
    assert sorted(plan.target.tolist()) == [4, 5, 6, 7]


def test_an_expert_that_was_nowhere_cannot_be_fetched():
    with pytest.raises(ValueError, match="expert 1 of layer 0 lies on no GPU in the old placement"):
        plan_moves(np.array([[0, 0]]), np.array([[0, 1]]), Shape(1, 2, 2, 2))
    with pytest.raises(ValueError, match="differ in shape"):
        plan_moves(np.array([[0, 1]]), np.array([[0, 1, 1]]), Shape(1, 2, 2, 2))


def test_a_full_reshuffle_of_deepseek_v3_takes_what_bandwidth_says():
    rng = np.random.default_rng(0)
    shape = Shape(58, 256, 288, 32, 4, 8)
    seconds = move_seconds(placement(shape, rng), placement(shape, rng), shape, 42 << 20, NETWORKS["h100"])
    # About 20 GiB per GPU, a fifth of it from the same node; the busiest end a little above the mean.
    assert 0.3 < seconds < 0.6
