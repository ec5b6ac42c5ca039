"""Every baseline is valid, within the bounds, repeatable and clear about what it refuses."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")
import torch

from gpu_eval import bounds, registry
from gpu_eval.balance import duplicates, gpu_balance, group_violations, slot_balance
from gpu_eval.invariants import check_placement
from gpu_eval.registry import BASELINES, Baseline, maps, place
from gpu_eval.shapes import SHAPES, Shape

pytestmark = pytest.mark.torch

NAMES = [name for name, baseline in BASELINES.items() if baseline.missing() is None]
FAST = [name for name in NAMES if name != "deepseek"]
APART = ["heap_swaps", "global_lpt", "global_swaps", "incremental"]
SMALL = Shape(3, 16, 24, 8, 2, 4)
HUGE = 10**15


@pytest.fixture(autouse=True, scope="module")
def compiled_before(tmp_path_factory: pytest.TempPathFactory) -> None:
    with pytest.MonkeyPatch.context() as patch:
        if "heap_lpt" in NAMES:
            patch.setattr("numba.njit", once_per_text())
        for name in NAMES:
            BASELINES[name].load()
    if "heap_lpt_c" in NAMES:
        BASELINES["heap_lpt_c"].load().build(tmp_path_factory.mktemp("library"))


def once_per_text() -> Callable[..., Any]:
    """numba's `njit` that compiles what several files share for the first of them only."""
    njit, compiled = importlib.import_module("numba").njit, {}

    def once(signature: str, **options: Any) -> Callable[[Any], Any]:
        def compile_once(function: Any) -> Any:
            key = signature, inspect.getsource(function)
            if key not in compiled:
                compiled[key] = njit(signature, **options)(function)
            return compiled[key]

        return compile_once

    return once


def needs(name: str) -> Any:
    return pytest.mark.skipif(name not in NAMES, reason=f"{name}: {BASELINES[name].missing()}")


def run(name: str, weight: torch.Tensor, shape: Shape) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    module = BASELINES[name].load()
    result: tuple[torch.Tensor, torch.Tensor, torch.Tensor] = module.rebalance_experts(
        weight, shape.slots, shape.groups, shape.nodes, shape.gpus
    )
    return result


def checked(name: str, weight: torch.Tensor, shape: Shape) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The placement, after all that holds for every one."""
    before = weight.clone()
    outputs = run(name, weight, shape)
    assert torch.equal(weight, before)
    for output in outputs:
        assert type(output) is torch.Tensor
        assert output.dtype == torch.int64
        assert output.is_contiguous()
        assert output.untyped_storage().data_ptr() != weight.untyped_storage().data_ptr()
    phy2log, log2phy, counts = (output.numpy() for output in outputs)
    check_placement(phy2log, log2phy, counts, shape)
    expected = maps(phy2log, shape.experts)
    assert np.array_equal(log2phy, expected[0])
    assert np.array_equal(counts, expected[1])
    assert all(torch.equal(one, two) for one, two in zip(outputs, run(name, weight, shape), strict=True))
    if BASELINES[name].grouped:
        assert group_violations(phy2log, shape).sum() == 0
    return phy2log


def loads(shape: Shape, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    skewed = np.exp(np.random.default_rng(seed).normal(size=(shape.layers, shape.experts)))
    return (skewed * 10_000).astype(np.int64)


@st.composite
def problems(draw: st.DrawFn) -> tuple[Shape, np.ndarray[Any, np.dtype[np.int64]]]:
    nodes = draw(st.integers(1, 3))
    gpus = nodes * draw(st.integers(1, 3))
    groups = draw(st.integers(1, 6))
    experts = groups * draw(st.integers(1, 4))
    per_gpu = -(-experts // gpus) + draw(st.integers(0, 3))
    shape = Shape(draw(st.integers(1, 2)), experts, gpus * per_gpu, gpus, nodes, groups)
    largest = draw(st.sampled_from([1, 3, 1000, HUGE]))
    values = draw(st.lists(st.integers(0, largest), min_size=experts * shape.layers, max_size=experts * shape.layers))
    return shape, np.array(values, np.int64).reshape(shape.layers, experts)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40, deadline=None)
@given(problem=problems())
def test_placements_are_valid_and_within_the_bounds(name: str, problem: tuple[Shape, Any]) -> None:
    shape, weight = problem
    phy2log = checked(name, torch.from_numpy(weight), shape)
    grouped = BASELINES[name].grouped
    assert gpu_balance(phy2log, weight, shape.gpus) <= bounds.gpu_bound(weight, shape, grouped) + 1e-9
    assert slot_balance(phy2log, weight) <= bounds.slot_bound(weight, shape, grouped) + 1e-9


@pytest.mark.parametrize("name", [n for n in APART if n in NAMES])
@settings(max_examples=60, deadline=None)
@given(problem=problems())
def test_no_gpu_holds_an_expert_twice_unless_there_is_no_other_way(name: str, problem: tuple[Shape, Any]) -> None:
    shape, weight = problem
    phy2log = place(name, weight, shape)
    local = shape.local_groups and BASELINES[name].grouped
    experts, gpus = (shape.experts // shape.nodes, shape.gpus_per_node) if local else (shape.experts, shape.gpus)
    if experts >= shape.slots_per_gpu:
        assert duplicates(phy2log, shape.gpus).sum() == 0
    else:
        counts = maps(phy2log, shape.experts)[1]
        assert counts.max() <= max(gpus, -(-shape.slots // shape.experts))


@pytest.mark.parametrize("name", ["heap_lpt", "heap_lpt_c"])
@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), problem=problems())
def test_heaps_balance_as_the_reference_where_no_loads_are_equal(
    name: str, seed: int, problem: tuple[Shape, Any]
) -> None:
    if name not in NAMES:
        pytest.skip(str(BASELINES[name].missing()))
    shape, _ = problem
    weight = np.random.default_rng(seed).lognormal(0, 1.5, (shape.layers, shape.experts))
    reference, ours = place("deepseek", weight, shape), place(name, weight, shape)
    assert gpu_balance(ours, weight, shape.gpus) == pytest.approx(gpu_balance(reference, weight, shape.gpus), abs=1e-6)
    assert np.array_equal(maps(ours, shape.experts)[1], maps(reference, shape.experts)[1])


@needs("heap_lpt")
@needs("heap_lpt_c")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_both_heaps_place_alike(shape: Shape) -> None:
    weight = torch.from_numpy(loads(shape))
    for one, two in zip(run("heap_lpt", weight, shape), run("heap_lpt_c", weight, shape), strict=True):
        assert torch.equal(one, two)


GOLDEN = {
    "deepseek": (0.829218, "d90d42555a136893"),
    "paper_zigzag": (0.777676, "9fa33386b0873b70"),
    "heap_lpt": (0.829218, "d90d42555a136893"),
    "heap_lpt_c": (0.829218, "d90d42555a136893"),
    "heap_swaps": (0.859574, "9f6c32914886893a"),
    "global_lpt": (0.849786, "9523100ea7107f70"),
    "global_swaps": (0.948066, "6aca88d86b59589a"),
    "incremental": (0.949023, "86d979986ad13975"),
}
"""GPU balance and sha256 (16 digits) of the placement of fixed loads on 4 x 64 experts, 80 slots, 16 GPUs."""


@pytest.mark.parametrize("name", NAMES)
def test_fixed_loads_are_placed_as_recorded(name: str) -> None:
    shape = Shape(4, 64, 80, 16, 4, 8)
    layer, expert = np.indices((4, 64))
    weight = (expert * expert * 7919 + layer * 104_729) % 1009 ** (1 + (expert % 3 == 0)) + 1
    phy2log = checked(name, torch.from_numpy(weight), shape)
    digest = hashlib.sha256(phy2log.astype("<i8").tobytes()).hexdigest()[:16]
    assert (round(gpu_balance(phy2log, weight, 16), 6), digest) == GOLDEN[name]


EDGES = {
    "zeros": np.zeros((3, 16), np.int64),
    "one layer of zeros": np.where(np.arange(3)[:, None] == 1, 0, np.arange(1, 17)),
    "one hot": np.where(np.arange(16) == 5, 1000, 0) * np.ones((3, 1), np.int64),
    "all equal": np.full((3, 16), 7),
    "ramp": np.arange(48).reshape(3, 16),
    "two levels": np.where(np.arange(16) < 8, 10, 1) * np.ones((3, 1), np.int64),
    "zeros and ones": np.arange(48).reshape(3, 16) % 2,
    "huge and close": HUGE + np.arange(48).reshape(3, 16),
    "half of int64": np.full((3, 16), np.iinfo(np.int64).max // 2),
    "minus zero": np.full((3, 16), -0.0),
    "largest doubles": np.full((3, 16), 1e308),
    "subnormal doubles": np.full((3, 16), 5e-324) * np.arange(16),
}
EDGE_SHAPES = {
    "usual": SMALL,
    "one gpu": Shape(3, 16, 20, 1),
    "no redundancy": Shape(3, 16, 16, 4, 2, 4),
    "slots are gpus": Shape(3, 16, 16, 16, 4, 4),
    "one copy a gpu": Shape(3, 16, 20, 20, 2, 4),
    "many copies": Shape(3, 16, 128, 4, 2, 4),
    "groups that do not divide": Shape(3, 16, 24, 6, 3, 4),
    "odd counts": Shape(3, 16, 21, 3, 1, 2),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", EDGE_SHAPES.values(), ids=EDGE_SHAPES)
def test_edge_loads_are_placed(name: str, shape: Shape) -> None:
    for weight in EDGES.values():
        checked(name, torch.from_numpy(weight), shape)


@pytest.mark.parametrize("name", FAST)
def test_odd_counts_are_placed(name: str) -> None:
    for shape in (Shape(2, 160, 168, 12), Shape(1, 60, 64, 8, 2, 4), Shape(1, 1, 1, 1), Shape(2, 512, 520, 8, 1, 8)):
        checked(name, torch.from_numpy(loads(shape)), shape)


@pytest.mark.parametrize("name", NAMES)
def test_layers_without_load_spread_their_copies_except_in_the_reference_and_its_zigzag(name: str) -> None:
    phy2log = place(name, np.zeros((1, 16), np.int64), Shape(1, 16, 24, 8))
    most = maps(phy2log, 16)[1].max()
    assert most == (9 if name in ("deepseek", "paper_zigzag") else 2)


@pytest.mark.parametrize("name", NAMES)
def test_any_dtype_and_layout_of_loads_gives_the_same_placement(name: str) -> None:
    weight = torch.from_numpy(loads(SMALL) % 251)
    expected = run(name, weight, SMALL)[0]
    for dtype in (torch.int32, torch.int16, torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64):
        assert torch.equal(run(name, weight.to(dtype), SMALL)[0], expected)
    strided = torch.stack([weight, weight], dim=2)[:, :, 1]
    assert not strided.is_contiguous()
    assert torch.equal(run(name, strided, SMALL)[0], expected)
    assert torch.equal(run(name, weight.t().contiguous().t(), SMALL)[0], expected)
    assert torch.equal(run(name, weight.double().requires_grad_(), SMALL)[0], expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, -5e-324])
def test_loads_that_are_none_are_refused_by_layer_and_expert(name: str, bad: float) -> None:
    weight = torch.ones(3, 16, dtype=torch.float64)
    weight[2, 5] = bad
    with pytest.raises(ValueError, match=r"^load of layer 2, expert 5 is .*, expected finite and >= 0$"):
        run(name, weight, SMALL)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((25, 4, 2, 8), "num_replicas (25) is no multiple of num_gpus (8)"),
        ((24, 4, 3, 8), "num_gpus (8) is no multiple of num_nodes (3)"),
        ((24, 3, 2, 8), "experts (16) is no multiple of num_groups (3)"),
        ((8, 4, 2, 8), "8 replicas cannot hold 16 experts"),
        ((24, 0, 2, 8), "num_groups is 0, expected at least 1"),
        ((24, 4, 2, -8), "num_gpus is -8, expected at least 1"),
    ],
)
def test_sizes_without_a_placement_are_refused(name: str, sizes: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BASELINES[name].load().rebalance_experts(torch.ones(3, 16), *sizes)


@pytest.mark.parametrize("name", NAMES)
def test_loads_of_other_dimensions_are_refused(name: str) -> None:
    for weight in (torch.ones(16), torch.ones(1, 3, 16), torch.ones(0, 16), torch.ones(3, 0)):
        with pytest.raises(ValueError, match=r"^weight is \[.*\], expected \[layers, experts\]"):
            BASELINES[name].load().rebalance_experts(weight, 24, 4, 2, 8)


@needs("heap_swaps")
@needs("global_swaps")
def test_swaps_only_help() -> None:
    shape = SHAPES[0]
    weight = loads(shape)[:8]
    eight = Shape(8, *(getattr(shape, name) for name in ("experts", "slots", "gpus", "nodes", "groups")))
    balance = {name: gpu_balance(place(name, weight, eight), weight, eight.gpus) for name in FAST}
    assert balance["paper_zigzag"] < balance["heap_lpt"] < balance["heap_swaps"]
    assert balance["heap_swaps"] <= bounds.gpu_bound(weight, eight, True)
    assert balance["heap_swaps"] < balance["global_lpt"] < balance["global_swaps"]
    assert balance["incremental"] > balance["global_lpt"]


@needs("incremental")
@settings(max_examples=60, deadline=None)
@given(problem=problems(), moves=st.integers(0, 6), seed=st.integers(0, 1000))
def test_a_rebalance_stays_within_its_moves_and_never_harms(problem: tuple[Shape, Any], moves: int, seed: int) -> None:
    shape, weight = problem
    rng = np.random.default_rng(seed)
    previous = place("global_lpt", rng.integers(0, 100, weight.shape), shape)
    module = BASELINES["incremental"].load()
    given_before = torch.from_numpy(previous.copy())
    outputs = module.rebalance(
        torch.from_numpy(weight), given_before, shape.groups, shape.nodes, shape.gpus, moves=moves
    )
    phy2log, log2phy, counts = (output.numpy() for output in outputs)
    check_placement(phy2log, log2phy, counts, shape)
    assert np.array_equal(given_before.numpy(), previous)
    changed = phy2log != previous
    assert changed.sum(axis=1).max() <= moves
    assert duplicates(phy2log, shape.gpus).sum() <= duplicates(previous, shape.gpus).sum()
    for layer in range(shape.layers):
        row = slice(layer, layer + 1)
        old = gpu_balance(previous[row], weight[row], shape.gpus)
        assert gpu_balance(phy2log[row], weight[row], shape.gpus) >= old - 1e-9


@needs("incremental")
def test_a_few_moves_bring_most_of_what_a_new_placement_brings() -> None:
    shape = Shape(8, 256, 288, 32)
    old, now = loads(shape, 1), np.maximum(1, loads(shape, 1) * np.random.default_rng(2).lognormal(0, 0.3, (8, 256)))
    previous = place("global_lpt", old, shape)
    module = BASELINES["incremental"].load()
    moved = module.rebalance(torch.from_numpy(now), torch.from_numpy(previous), 1, 1, 32, moves=16)[0].numpy()
    before, after = (gpu_balance(phy2log, now, 32) for phy2log in (previous, moved))
    scratch = gpu_balance(place("global_lpt", now, shape), now, 32)
    assert (moved != previous).mean() <= 16 / 288
    assert after - before > 0.7 * (scratch - before)


@needs("incremental")
def test_a_previous_placement_that_is_none_is_refused() -> None:
    rebalance = BASELINES["incremental"].load().rebalance
    weight, good = torch.ones(2, 4), torch.arange(4).repeat(2, 1)
    missing = torch.tensor([[0, 1, 2, 3], [0, 1, 2, 2]])
    for previous, message in (
        (good.double(), r"previous is torch.float64 \[2, 4\], expected integers"),
        (good[:1], r"previous is torch.int64 \[1, 4\], expected integers"),
        (missing, "previous holds not all of 0..3 and nothing else in layer 1"),
        (good + 1, "previous holds not all of 0..3 and nothing else in layer 0"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            rebalance(weight, previous, 1, 1, 2)
    with pytest.raises(ValueError, match=r"^moves is -1, expected at least 0$"):
        rebalance(weight, good, 1, 1, 2, moves=-1)


@needs("heap_lpt_c")
def test_a_library_is_built_once_per_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = BASELINES["heap_lpt_c"].load()
    library = module.build(tmp_path / "new" / "folder")
    assert [library] == list(library.parent.iterdir())
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert module.build(library.parent) == library
    with pytest.raises(RuntimeError, match=r"^heap_lpt_c needs a C compiler, none of cc, gcc, clang was found$"):
        module.build(tmp_path / "other")
    monkeypatch.setattr(module, "SOURCE", "int place(;")
    monkeypatch.undo()
    monkeypatch.setattr(module, "SOURCE", "int place(;")
    with pytest.raises(RuntimeError, match=r"cc failed: .*error"):
        module.build(tmp_path / "broken")


def test_what_is_missing_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = Baseline("deepseek", "nowhere", ("no_such_module",), True)
    assert absent.missing() == "deepseek needs no_such_module"
    with pytest.raises(ValueError, match=r"^deepseek needs no_such_module$"):
        absent.load()
    monkeypatch.setitem(sys.modules, "gpu_eval.baselines.deepseek", None)
    with pytest.raises(ValueError, match=r"^deepseek cannot be loaded: ModuleNotFoundError: .*None in sys.modules$"):
        BASELINES["deepseek"].load()
    monkeypatch.setattr(registry, "shutil", SimpleNamespace(which=lambda name: None))
    assert BASELINES["heap_lpt_c"].missing() == "heap_lpt_c needs a C compiler (cc, gcc, clang)"
    with pytest.raises(ValueError, match=r"^no baseline 'none', expected one of deepseek, "):
        place("none", np.ones((1, 1)), Shape(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"^weight is \[2, 3\], expected \[3, 16\]$"):
        place("deepseek", np.ones((2, 3)), SMALL)


def test_every_file_is_whole_and_shares_one_text_for_what_they_share() -> None:
    texts = {name: baseline.path.read_text() for name, baseline in BASELINES.items()}
    assert {path.stem for path in BASELINES["deepseek"].path.parent.glob("[a-z]*.py")} == set(texts)
    shared = {name: re.findall(r"^def loads\(.*?\n\n\n", text, re.S | re.M) for name, text in texts.items()}
    assert len({tuple(found) for found in shared.values()}) == 1
    for name, text in texts.items():
        assert not re.search(r"^\s*(from \.|from gpu_eval|import gpu_eval)", text, re.M), name
    for function in ("by_load", "invert", "held", "put", "exchange", "part", "swap"):
        found = {re.search(rf"^(@njit.*?\n)?def {function}\(.*?\n\n\n", text, re.S | re.M) for text in texts.values()}
        assert len({match.group().split("def ")[-1] for match in found if match}) == 1, function


def test_maps_invert_and_refuse_what_is_no_placement() -> None:
    log2phy, counts = maps(np.array([[2, 0, 1, 0]]), 4)
    assert log2phy.tolist() == [[[1, 3], [2, -1], [0, -1], [-1, -1]]]
    assert counts.tolist() == [[2, 1, 1, 0]]
    for phy2log, message in (
        (np.array([[0, 4]]), r"slot 1 of layer 0 holds 4, expected an expert in 0\.\.3"),
        (np.array([[0, -1]]), "slot 1 of layer 0 holds -1"),
        (np.array([[0.0]]), "phy2log is float64"),
        (np.array([0]), r"phy2log is int64 \[1\]"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            maps(phy2log, 4)
