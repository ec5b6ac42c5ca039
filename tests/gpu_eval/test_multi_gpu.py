"""Several processes with gloo: outputs and moved weights are right, and errors of either are found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.communication import plan_moves  # noqa: E402
from gpu_eval.expert_weights import differing_slots, make_slots, tensors_of  # noqa: E402
from gpu_eval.multi_gpu import (  # noqa: E402
    SEQUENTIAL,
    UNPROVEN,
    MultiGpuResult,
    PlacementTiming,
    agreement,
    measure_placements,
    result_rows,
)
from gpu_eval.multi_gpu_job import MultiGpuJob, hidden_block  # noqa: E402
from gpu_eval.multi_gpu_process import Move  # noqa: E402
from gpu_eval.ranks import RankError, run_ranks  # noqa: E402
from gpu_eval.results import Interval  # noqa: E402
from gpu_eval.shapes import EXPERT_SIZES, Shape  # noqa: E402
from tests.gpu_eval.rank_works import measure_with_lost_message  # noqa: E402

TINY = EXPERT_SIZES["tiny"]


def job(gpus: int, precision: str = "fp32", placements: int = 3) -> MultiGpuJob:
    """Random placements of 8 experts in 12 slots, two layers, 24 tokens with 3 experts each."""
    generator = np.random.default_rng(gpus)
    layers, experts, slots, tokens, top_k = 2, 8, 12, 24, 3

    def placement() -> np.ndarray:
        extra = generator.integers(0, experts, (layers, slots - experts))
        rows = np.concatenate([np.tile(np.arange(experts), (layers, 1)), extra], axis=1)
        return generator.permuted(rows, axis=1)

    return MultiGpuJob(
        Shape(layers, experts, slots, gpus),
        TINY,
        tuple((f"placement {index}", placement()) for index in range(placements)),
        np.argsort(generator.random((layers, tokens, experts)), axis=2)[:, :, :top_k],
        generator.random((layers, tokens, top_k)).astype(np.float32),
        precision=precision,
        repeats=2,
        warm_up=0,
        keep_outputs=True,
    )


def outputs_by_numpy(one: MultiGpuJob, world: int) -> np.ndarray:
    """[layers, tokens, hidden] in float64, by one process, without any placement."""
    hidden = np.concatenate([hidden_block(one, index, world).numpy() for index in range(world)]).astype(np.float64)
    output = np.zeros((one.shape.layers, *hidden.shape))
    for layer in range(one.shape.layers):
        every = range(one.shape.experts)
        weights = make_slots(one.size, layer, every, torch.device("cpu"), one.precision)
        for expert in every:
            up, down = (tensor.double().numpy() for tensor in tensors_of(weights, expert))
            gate, value = np.split(hidden @ up.T, 2, axis=1)
            result = (gate / (1 + np.exp(-gate)) * value) @ down.T
            share = np.where(one.choices[layer] == expert, one.gates[layer], 0).sum(axis=1)
            output[layer] += share[:, None] * result
    return output


@pytest.mark.parametrize(("world", "gpus", "precision"), [(1, 2, "fp32"), (2, 4, "bf16"), (4, 4, "fp32")])
def test_outputs_are_those_of_one_process_under_every_placement(world: int, gpus: int, precision: str) -> None:
    one = job(gpus, precision)
    result = measure_placements(one, world, "cpu", 120)
    right = outputs_by_numpy(one, world)
    tolerance = 0.03 if precision == "bf16" else 1e-5
    for timing in result.timings:
        assert timing.outputs is not None
        assert np.abs(timing.outputs - right).max() <= tolerance * np.abs(right).max()
        assert timing.experts_s.shape == (2, gpus)
    assert 0 < result.output_error <= tolerance
    assert (result.backend, result.world, result.virtual_ranks) == ("gloo", world, gpus // world)
    _moves_are_the_plan(one, world, result)


def _moves_are_the_plan(one: MultiGpuJob, world: int, result: MultiGpuResult) -> None:
    width = 2 if one.precision == "bf16" else 4
    assert (result.timings[0].move.slots, result.timings[0].move.copy_s) == (0, None)
    for index in range(1, len(one.placements)):
        old, new = one.placements[index - 1][1], one.placements[index][1]
        plan = plan_moves(old, new, replace(one.shape, gpus=world))
        move = result.timings[index].move
        assert move.slots == (old != new).sum()
        busiest = max(int((plan.target == process).sum()) for process in range(world))
        assert move.gib * 2**30 == busiest * TINY.weights * width
        assert move.copy_s is not None
        assert move.copy_s > 0
        assert move.slow_down is None
    assert result.notes == (UNPROVEN, SEQUENTIAL)


def test_processes_without_tokens_take_part() -> None:
    one = job(4, placements=1)
    spread = (("in order", np.tile(np.concatenate([np.arange(8), np.full(4, 7)]), (2, 1))),)
    few = replace(one, placements=spread, choices=np.zeros((2, 4, 1), dtype=np.int16), gates=one.gates[:, :4, :1])
    result = measure_placements(few, 2, "cpu", 120)
    assert result.timings[0].outputs is not None
    assert np.allclose(result.timings[0].outputs, outputs_by_numpy(few, 2), atol=1e-4)


def test_a_message_that_is_lost_is_found() -> None:
    with pytest.raises(
        RankError, match=r"rank \d of 2: ValueError: slot \d+ of layer \d does not hold expert \d after"
    ):
        run_ranks(measure_with_lost_message, job(2), 2, "cpu", 120)


def test_weights_differ_by_layer_and_expert_and_are_made_anew_alike() -> None:
    cpu = torch.device("cpu")
    weights = make_slots(TINY, 1, [3, 5, 3], cpu, "bf16")
    assert differing_slots(weights, TINY, 1, [3, 5, 3], "bf16") == []
    assert differing_slots(weights, TINY, 1, [3, 3, 5], "bf16") == [1, 2]
    assert differing_slots(weights, TINY, 0, [3, 5, 3], "bf16") == [0, 1, 2]
    weights.down.values[1, 0, 0] += 1
    assert differing_slots(weights, TINY, 1, [3, 5, 3], "bf16") == [1]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"precision": "fp8"}, "precision 'fp8', expected one of fp32, bf16"),
        ({"gates": np.ones((2, 24, 2), dtype=np.float32)}, r"gates \[2, 24, 2\]: expected both \[2, tokens, top_k\]"),
        ({"choices": np.full((2, 24, 3), 8)}, "choices name experts outside 0 to 7"),
        ({"placements": ()}, "needs a placement"),
        ({"placements": (("odd", np.zeros((2, 5), dtype=np.int64)),)}, r"placement odd: \[2, 5\], expected 2x8-12"),
        ({"placements": (("none", np.zeros((2, 12), dtype=np.int64)),)}, "placement none: expected every expert"),
        ({"placements": (("low", np.tile(np.arange(-4, 8), (2, 1))),)}, "placement low: expected every expert"),
    ],
)
def test_jobs_that_cannot_be_run_are_refused(change: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        replace(job(2), **change)


def test_processes_must_divide_ranks_and_tokens() -> None:
    with pytest.raises(ValueError, match="4 ranks are no multiple of 3 processes"):
        measure_placements(job(4), 3, "cpu", 5)
    odd = replace(job(4), choices=job(4).choices[:, :23], gates=job(4).gates[:, :23])
    with pytest.raises(ValueError, match="23 tokens are no multiple of 4 processes"):
        measure_placements(odd, 4, "cpu", 5)


def finished(backend: str, world: int, slow_down: float | None) -> MultiGpuResult:
    """A result with steps of 1, 3 and 2 s."""
    timings = [
        PlacementTiming(
            f"p{index}",
            Interval(step, step, step),
            np.ones((1, 2)),
            Move(index, 0.5, 0.1, 0.1, None, slow_down),
            None,
        )
        for index, step in enumerate([1.0, 3.0, 2.0])
    ]
    return MultiGpuResult(backend, world, 1, "mm_loop", "fp32", 0.0, tuple(timings))


def test_only_two_gpus_prove_nccl() -> None:
    assert UNPROVEN in finished("gloo", 4, None).notes
    assert UNPROVEN in finished("nccl", 1, None).notes
    assert finished("nccl", 2, 1.1).notes == ()
    assert finished("nccl", 2, None).notes == (SEQUENTIAL,)


def test_agreement_with_the_model_is_that_of_ranks() -> None:
    result = finished("nccl", 2, 1.1)
    same = agreement(result, [1.1, 3.3, 2.2], "generated", "trt", "prefill")
    assert same.spearman == pytest.approx(1)
    assert same.median_error == pytest.approx(0.1)
    assert agreement(result, [3.0, 1.0, 2.0], "generated", "trt", "prefill").spearman == pytest.approx(-1)
    rows = result_rows(result, "generated", "trt", "prefill", [1.1, 3.3, 2.2])
    assert [(row.program, row.model_s, row.slow_down) for row in rows] == [
        ("p0", 1.1, 1.1),
        ("p1", 3.3, 1.1),
        ("p2", 2.2, 1.1),
    ]
