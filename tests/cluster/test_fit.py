"""What fits on a cluster: packing, refusals in one line, and estimates that follow their formula."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import UsageError
from adrs_ray.task_spec import Stage
from cluster.estimate import ANSWER_TOKENS, TOKENS_PER_S, estimate
from cluster.fit import RESERVE_GIB, EngineNeed, Footprint, NodeRoom, engine_needs, fit, hardware, lacks
from cluster.presets import expand

CPU_STAGE = Stage(name="simulated")
GPU_STAGE = Stage(name="measured", gpus=1)


def config(pool: dict[str, Any], **sections: Any) -> RunConfig:
    """Engines by name as (replicas, GPUs)."""
    engines = {name: {"replicas": r, "tensor_parallel": g} for name, (r, g) in pool.pop("split").items()}
    models = {name: {"model": name} for name in engines}
    data = {"generator": {"kind": "openai"}, "models": models, "pool": {"models": engines, **pool}, **sections}
    return parse_config(data, "test")


def node(name: str = "a", cpus: float = 64, gpus: float = 8, gib: float | None = None) -> NodeRoom:
    return NodeRoom(name, cpus, gpus, gib)


def test_a_split_is_told_in_one_line():
    split = config({"split": {"small": (5, 1), "strong": (2, 1)}})
    found = fit([node(cpus=100)], split, [CPU_STAGE, GPU_STAGE])
    assert found.describe() == "5 x small, 2 x strong, 1 evaluator on GPUs, 85 on CPUs"
    assert (found.gpus_held, found.in_turns) == (8, False)


def test_wide_engines_are_placed_first_so_that_narrow_ones_do_not_scatter():
    split = config({"split": {"small": (8, 1), "strong": (2, 4)}})
    assert dict(fit([node("a"), node("b")], split, []).replicas) == {"small": 8, "strong": 2}


def test_a_split_that_cannot_host_both_models_says_what_it_needs_and_what_there_is():
    split = config({"split": {"small": (5, 1), "strong": (2, 4)}})
    with pytest.raises(UsageError) as refusal:
        fit([node()], split, [])
    text = str(refusal.value)
    assert "5 x small (1 GPU each), 2 x strong (4 GPUs on one node each)" in text
    assert "8 GPUs on 1 node, 64 CPUs on 1 node and holds 0 x small, 2 x strong" in text
    assert "pool.models.small.replicas" in text


def test_gpus_of_two_nodes_do_not_make_one_engine():
    split = config({"split": {"strong": (1, 4)}})
    with pytest.raises(UsageError, match="holds 0 x strong"):
        fit([node("a", gpus=3), node("b", gpus=3)], split, [])


def test_engines_on_every_gpu_take_turns_with_the_evaluator():
    found = fit([node(gpus=2)], config({"split": {"small": (1, 1), "strong": (1, 1)}}), [GPU_STAGE])
    assert (found.gpu_slots, found.in_turns, found.gpus_held) == (1, True, 2)
    assert "in turns" in found.describe()


def test_slots_are_told_by_node_so_that_every_engine_keeps_its_room():
    split = config({"split": {"small": (1, 1)}}, evaluator={"gpu_slots": 2})
    nodes = [node("a", cpus=4, gpus=0), node("b", cpus=8, gpus=2), node("c", cpus=8, gpus=2)]
    found = fit(nodes, split, [CPU_STAGE, GPU_STAGE])
    assert (found.gpu_slots_on, found.gpu_slots) == ({"b": 1, "c": 1}, 2)
    # Of the node with the engine its CPUs are left out.
    assert (found.cpu_slots_on, found.cpu_slots) == ({"a": 4, "b": 5, "c": 7}, 16)


def test_the_slot_that_takes_turns_is_given_room_beside_an_engine():
    nodes = [node("a", cpus=2, gpus=0), node("b", cpus=4, gpus=1)]
    found = fit(nodes, config({"split": {"small": (1, 1)}}), [CPU_STAGE, GPU_STAGE])
    assert (found.in_turns, found.gpu_slots, found.gpu_slots_on) == (True, 1, {})
    assert found.cpu_slots_on == {"a": 2, "b": 1}


def test_engines_that_never_yield_leave_no_evaluator_and_are_refused():
    split = config({"split": {"small": (2, 1)}, "one_gpu": "never"})
    with pytest.raises(UsageError, match=r"measured needs 1 slot of 1 GPU.*leave room for 0 and pool.one_gpu is never"):
        fit([node(gpus=2)], split, [GPU_STAGE])
    assert fit([node(gpus=2)], split, [CPU_STAGE]).cpu_slots == 60


def test_without_a_gpu_the_stage_to_end_with_is_told():
    for stages, says in (
        (
            [CPU_STAGE, GPU_STAGE],
            "this cluster has no GPU; a search can end with stage simulated: --last-stage simulated",
        ),
        ([GPU_STAGE], "this cluster has no GPU"),
    ):
        with pytest.raises(UsageError) as refusal:
            fit([node(gpus=0)], RunConfig(), stages)
        assert str(refusal.value) == f"stage measured needs 1 slot of 1 GPU and 1 CPU, {says}"


def test_more_gpu_slots_than_are_left_are_refused():
    split = config({"split": {"small": (6, 1)}}, evaluator={"gpu_slots": 3})
    with pytest.raises(UsageError, match=r"3 slots of 1 GPU.*leave room for 2"):
        fit([node()], split, [GPU_STAGE])


def test_more_cpu_slots_than_there_is_room_for_are_refused():
    with pytest.raises(UsageError, match=r"evaluator.slots: 9 of 1 CPU each do not fit.*room for 8"):
        fit([node(cpus=8, gpus=0)], parse_config({"evaluator": {"slots": 9}}, "test"), [CPU_STAGE])


def test_memory_of_slots_is_counted_where_nodes_tell_theirs():
    nodes = [NodeRoom("a", 64, memory_gib=10)]
    assert fit(nodes, RunConfig(), [Stage(name="full", memory_mb=2048)]).cpu_slots == 5


def test_weights_that_no_card_holds_are_refused_before_anything_starts():
    split = config({"split": {"strong": (1, 2)}})
    footprint = {"strong": Footprint(100.0, 100_000, 8)}
    with pytest.raises(UsageError, match=r"each of its 2 GPUs needs 50.0 GiB of weights.*0.9 of 40 GiB is 36.0"):
        fit([node(gib=40)], split, [], footprint)
    assert fit([node(gib=80)], split, [], footprint).resident == {"strong": 12}
    assert fit([node(gib=None)], split, [], footprint).resident == {}


def test_engines_go_to_the_nodes_whose_cards_are_large_enough():
    split = config({"split": {"strong": (1, 1)}})
    found = fit([node("old", gpus=1, gib=40), node("new", gpus=8, gib=80)], split, [], {"strong": Footprint(50, 1, 8)})
    assert [each.gpus for each in found.left] == [1, 7]


def test_the_cache_is_repeated_once_there_are_more_gpus_than_heads():
    assert Footprint(1, 1000, 4).cache_bytes_per_gpu(2) == 500
    assert Footprint(1, 1000, 4).cache_bytes_per_gpu(8) == 250
    need = EngineNeed("m", 1, 2, 1, 0.5, 1000, Footprint(10, 1 << 20, 8))
    assert need.cache_tokens(40) == (40 * 0.5 - RESERVE_GIB - 5) * 2**30 / (1 << 19)


@pytest.mark.parametrize(
    ("nodes", "split", "reason"),
    [
        ([node()], {"strong": (2, 4)}, "4 GPUs on one node: none is free"),
        ([node(gpus=7)], {"strong": (1, 4)}, "4 GPUs on one node: at most 3 are free on one"),
        ([node(cpus=3)], {"strong": (1, 1)}, "2 CPUs beside its 1 GPU: at most 1 are free on one node"),
        ([node()], {"strong": (1, 4)}, None),
    ],
)
def test_what_one_more_replica_lacks(nodes, split, reason):
    wanted = config({"split": split})
    assert lacks(fit(nodes, wanted, []), engine_needs(wanted, {})[0]) == reason


def test_hardware_is_told_with_its_shape():
    assert hardware([node("a", 8, 0), node("b", 8, 4, 79.6), node("c", 8, 2, 79.6)]) == (
        "6 GPUs on 2 nodes (4 + 2) of 80 GiB, 24 CPUs on 3 nodes"
    )
    assert hardware([node(gpus=0)]) == "no GPU, 64 CPUs on 1 node"


@given(
    gpus=st.lists(st.integers(0, 8), min_size=1, max_size=5),
    split=st.dictionaries(st.sampled_from("abc"), st.tuples(st.integers(1, 6), st.sampled_from([1, 2, 4])), min_size=1),
)
def test_what_is_placed_never_exceeds_a_node(gpus, split):
    nodes = [node(str(number), 1000, count) for number, count in enumerate(gpus)]
    wanted = config({"split": dict(split)})
    needed = sum(replicas * width for replicas, width in split.values())
    try:
        found = fit(nodes, wanted, [])
    except UsageError:
        whole = all(count % 4 == 0 for count in gpus)
        # Where every node takes the widest whole, nothing is wasted, so that only too few GPUs are a reason.
        assert not whole or needed > sum(gpus)
        return
    assert all(each.gpus >= 0 for each in found.left)
    assert found.gpus_held == needed


def test_an_estimate_follows_its_formula_and_says_what_it_assumes():
    wanted = config(
        {"split": {"small": (4, 1)}},
        islands={"count": 8, "in_flight": 8},
        budget={"max_candidates": 6400},
    )
    found = estimate(wanted, fit([node()], wanted, []))
    rate = 64 / (ANSWER_TOKENS / TOKENS_PER_S)
    assert found.candidates == 6400
    assert found.hours == pytest.approx(6400 / rate / 3600)
    assert found.gpu_hours == pytest.approx(4 * found.hours)
    assert "an estimate that assumes 60 tokens/s" in found.describe()


@pytest.mark.parametrize(
    ("budget", "limit"),
    [({"max_wall_s": 60.0}, "budget.max_wall_s"), ({"max_tokens": 70_000}, "budget.max_tokens")],
)
def test_the_first_limit_of_the_budget_counts(budget, limit):
    wanted = config({"split": {"small": (1, 1)}}, budget={"max_candidates": 100_000, **budget})
    found = estimate(wanted, fit([node()], wanted, []))
    assert found.limit == limit
    assert found.candidates < 100_000


def test_replicas_bound_what_is_asked_at_once():
    islands = {"count": 64, "in_flight": 64}
    few = config({"split": {"small": (1, 1)}, "max_in_flight": 8}, islands=islands)
    many = config({"split": {"small": (8, 1)}, "max_in_flight": 8}, islands=islands)
    slow, fast = (estimate(each, fit([node()], each, [])) for each in (few, many))
    assert math.isclose(slow.hours, 8 * fast.hours)


def test_a_model_that_shares_an_engine_adds_no_room_and_takes_none_away():
    def hours(count, in_flight):
        islands = {"count": count, "in_flight": in_flight}
        shared = expand(parse_config({"pool": {"preset": "1x80gb"}, "islands": islands}, "test"))
        assert (list(shared.pool.models), list(shared.models)) == (["small"], ["small", "strong"])
        assert shared.pool.max_in_flight == 24
        return estimate(shared, fit([node(gpus=1)], shared, [])).hours

    assert math.isclose(hours(4, 3), 2 * hours(4, 6))
    assert math.isclose(hours(64, 64), hours(4, 6))


def test_a_model_that_is_served_elsewhere_bounds_nothing():
    islands = {"count": 64, "in_flight": 64}
    hosted = {"base_url": "http://10.0.0.7:8000/v1", "model": "hosted"}
    mixed = expand(parse_config({"pool": {"preset": "2x80gb"}, "models": {"strong": hosted}, "islands": islands}, "t"))
    found = estimate(mixed, fit([node(gpus=1)], mixed, []))
    # Neither reasons, so that all answers are alike.
    assert math.isclose(found.hours, found.candidates / (64 * 64 * TOKENS_PER_S / ANSWER_TOKENS) / 3600)


@pytest.mark.parametrize("kind", ["mutate", "mailbox"])
def test_engines_that_no_generator_asks_take_no_room(kind):
    split = config({"split": {"strong": (2, 8)}}, generator={"kind": kind})
    found = fit([node(gpus=2)], split, [CPU_STAGE, GPU_STAGE])
    assert engine_needs(split, {}) == []
    assert (dict(found.replicas), found.gpu_slots, found.in_turns) == ({}, 2, False)


def test_a_run_without_models_has_no_estimate():
    assert estimate(RunConfig(), fit([node()], RunConfig(), [CPU_STAGE])) is None
