"""Placements are checked exactly: what is valid passes, and every way to break one is named."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_eval.invariants import PlacementError, check_duplicates, check_locality, check_phy2log, check_placement
from gpu_eval.shapes import Shape

SHAPE = Shape(layers=3, experts=6, slots=8, gpus=4, nodes=2, groups=2)
Maps = tuple[Any, Any, Any]


def placement(shape: Shape, seed: int = 0, spare: int = 0) -> Maps:
    """A random valid placement, its inverse with `spare` columns more than needed, and its counts."""
    rng = np.random.default_rng(seed)
    extra = rng.integers(0, shape.experts, (shape.layers, shape.slots - shape.experts))
    every = np.broadcast_to(np.arange(shape.experts), (shape.layers, shape.experts))
    phy2log = rng.permuted(np.concatenate([every, extra], axis=1), axis=1)
    counts = np.stack([np.bincount(row, minlength=shape.experts) for row in phy2log])
    width = min(int(counts.max()) + spare, shape.slots - shape.experts + 1)
    log2phy = np.full((shape.layers, shape.experts, width), -1)
    for layer, row in enumerate(phy2log):
        for expert in range(shape.experts):
            slots = rng.permutation(np.flatnonzero(row == expert))
            log2phy[layer, expert, : len(slots)] = slots
    return phy2log, log2phy, counts


def refusal(maps: Maps, shape: Shape = SHAPE) -> PlacementError:
    with pytest.raises(PlacementError) as raised:
        check_placement(*maps, shape)
    assert "\n" not in str(raised.value)
    return raised.value


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    gpus = draw(st.integers(1, 5))
    slots = gpus * draw(st.integers(1, 6))
    return Shape(draw(st.integers(1, 4)), draw(st.integers(1, slots)), slots, gpus)


@given(shapes(), st.integers(0, 10), st.integers(0, 3))
def test_a_valid_placement_passes(shape: Shape, seed: int, spare: int) -> None:
    maps = placement(shape, seed, spare)
    check_placement(*maps, shape)
    check_phy2log(maps[0], shape)


@given(shapes(), st.integers(0, 10), st.data())
def test_any_changed_number_is_refused(shape: Shape, seed: int, data: st.DataObject) -> None:
    maps = tuple(array.copy() for array in placement(shape, seed))
    which = data.draw(st.integers(0, 2))
    place = data.draw(st.integers(0, maps[which].size - 1))
    new = data.draw(st.integers(-2, shape.slots + 1).filter(lambda number: number != maps[which].flat[place]))
    maps[which].flat[place] = new
    refusal(maps, shape)


def test_narrow_integers_and_odd_strides_are_fine() -> None:
    phy2log, log2phy, counts = placement(SHAPE)
    check_placement(np.asfortranarray(phy2log).astype(np.int32), log2phy[:, :, :].astype(np.int8), counts, SHAPE)
    wide = np.full((*log2phy.shape[:2], 2 * log2phy.shape[2]), -1)
    wide[:, :, ::2] = log2phy
    check_placement(phy2log, wide[:, :, ::2], counts, SHAPE)


def test_every_slot_for_every_expert_is_refused() -> None:
    """What drives the public ADRS evaluator, which checks nothing, to 1.0."""
    shape = Shape(58, 256, 288, 32, 4, 8)
    phy2log, _, counts = placement(shape)
    every = np.broadcast_to(np.arange(288), (58, 256, 288))
    assert refusal((phy2log, every, np.full((58, 256), 288)), shape).kind == "count"
    assert refusal((phy2log, every, counts), shape).kind == "width"


def test_a_map_of_four_dimensions_is_refused() -> None:
    """What drives the public SkyDiscover evaluator, which checks counts only, to 1.0."""
    shape = Shape(58, 256, 288, 32, 4, 8)
    phy2log, _, counts = placement(shape)
    every = np.broadcast_to(np.arange(288), (58, 256, 1, 288))
    error = refusal((phy2log, every, counts), shape)
    assert error.kind == "shape"
    assert "58x256x1x288" in str(error)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("type", lambda p, i, c: (p.tolist(), i, c)),
        ("type", lambda p, i, c: (p, np.ma.masked_array(i), c)),
        ("type", lambda p, i, c: (p, i, None)),
        ("dtype", lambda p, i, c: (p.astype(float), i, c)),
        ("dtype", lambda p, i, c: (p, i, c.astype(np.uint64))),
        ("dtype", lambda p, i, c: (p, i.astype(object), c)),
        ("shape", lambda p, i, c: (p[:, :-1], i, c)),
        ("shape", lambda p, i, c: (p[0], i, c)),
        ("shape", lambda p, i, c: (p, i[:, :, 0], c)),
        ("shape", lambda p, i, c: (p, i, c[:, :, None])),
        ("shape", lambda p, i, c: (np.array(3), i, c)),
        ("width", lambda p, i, c: (p, i[:, :, :0], c)),
        ("width", lambda p, i, c: (p, np.pad(i, ((0, 0), (0, 0), (0, 9)), constant_values=-1), c)),
    ],
)
def test_what_is_no_map_of_this_shape_is_refused(kind: str, change: Any) -> None:
    assert refusal(change(*placement(SHAPE))).kind == kind


def test_messages_name_layer_and_expert_expected_and_found() -> None:
    phy2log = np.array([[0, 1, 2, 0], [0, 1, 2, 1]])
    log2phy = np.array([[[0, 3], [1, -1], [2, -1]], [[0, -1], [3, 1], [2, -1]]])
    counts = np.array([[2, 1, 1], [1, 2, 1]])
    shape = Shape(2, 3, 4, 2)
    check_placement(phy2log, log2phy, counts, shape)

    def told(part: int, place: tuple[int, ...], value: int) -> tuple[str, int | None, int | None, str]:
        maps = (phy2log.copy(), log2phy.copy(), counts.copy())
        maps[part][place] = value
        error = refusal(maps, shape)
        return error.kind, error.layer, error.expert, str(error)

    assert told(0, (1, 2), 3) == ("range", 1, None, "layer 1: slot 2 holds expert 3, expected 0 to 2")
    assert told(0, (1, 2), 0) == (
        "missing",
        1,
        2,
        "layer 1, expert 2: expected in at least one slot, found in none",
    )
    assert told(2, (1, 1), 1) == ("count", 1, 1, "layer 1, expert 1: expert_count is 1, its slots are 2")
    assert told(1, (0, 0, 1), 0)[:3] == ("inverse", 0, 0)
    assert "names slot 0 2 times, expected once" in told(1, (0, 0, 1), 0)[3]
    assert told(1, (1, 1, 0), 2)[:3] == ("inverse", 1, 1)
    assert "names slot 2, which holds expert 2" in told(1, (1, 1, 0), 2)[3]
    assert told(1, (1, 1, 1), -1)[:3] == ("inverse", 1, 1)
    assert told(1, (1, 0, 1), 3) == (
        "padding",
        1,
        0,
        "layer 1, expert 0: entry 1 of logical_to_physical is 3, expected -1 after its copies",
    )


def test_an_expert_twice_on_a_gpu_is_found() -> None:
    shape = Shape(2, 3, 4, 2)
    check_duplicates(np.array([[0, 1, 2, 0], [0, 1, 2, 1]]), shape)
    with pytest.raises(PlacementError, match=r"layer 1, expert 2: .* found 2 on GPU 1") as raised:
        check_duplicates(np.array([[0, 1, 2, 0], [0, 1, 2, 2]]), shape)
    assert raised.value.kind == "duplicate"


def test_a_group_on_two_nodes_is_found() -> None:
    shape = Shape(2, 4, 6, 2, nodes=2, groups=2)
    fine = np.array([[3, 2, 2, 0, 1, 1], [0, 1, 0, 2, 3, 3]])
    check_locality(fine, shape)
    fine[1, 2], fine[1, 3] = 2, 0
    with pytest.raises(PlacementError, match=r"layer 1, expert 0: group 0 expected on node 0 alone, found in slot 3"):
        check_locality(fine, shape)
    with pytest.raises(ValueError, match="cannot stay"):
        check_locality(fine, Shape(2, 4, 6, 3, nodes=3, groups=2))
