"""The placements that a bench compared, on several GPUs at once: real exchanges and moves, beside the one-GPU model.

Once per bench, in prefill: more would add hours and say the same. Where a shape has more ranks than there are GPUs,
each process plays several. On a CPU two processes with tiny experts run the same path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_eval.communication import Network
from gpu_eval.cost_model import PHASES, CostModel, step_seconds
from gpu_eval.multi_gpu import agreement, measure_placements, result_rows
from gpu_eval.multi_gpu_job import MultiGpuJob
from gpu_eval.results import Device, Fidelity, MultiGpuRow
from gpu_eval.shapes import EXPERT_SIZES, Shape
from gpu_eval.workloads import LoadTrace

Ints = NDArray[np.int64]
LAYERS = 2
CPU_TOKENS = 16
"""Of each process; on a GPU what prefill brings to one."""


@dataclass(frozen=True, slots=True)
class Several:
    """What several processes took, and how well the model foretold it."""

    rows: tuple[MultiGpuRow, ...]
    fidelity: Fidelity


def processes_for(shape: Shape, device: Device) -> int:
    """As many of the GPUs as the shape's ranks divide over, two on a CPU; 0: there are not two."""
    there = torch.cuda.device_count() if device == "cuda" else 2
    return max((world for world in range(2, there + 1) if shape.gpus % world == 0), default=0)


def several(
    trace: LoadTrace,
    shape: Shape,
    placements: Sequence[tuple[str, Ints]],
    model: CostModel,
    network: Network,
    device: Device,
    seed: int,
) -> Several | None:
    """Measure named placements [L, P] under the loads of the last window; None where there are no several processes.

    Raises what `measure_placements` does.
    """
    world = processes_for(shape, device)
    if not world:
        return None
    layers = min(LAYERS, shape.layers)
    size = model.size if device == "cuda" else EXPERT_SIZES["tiny"]
    tokens = world * (PHASES["prefill"].tokens_per_gpu if device == "cuda" else CPU_TOKENS)
    choices = _choices(trace.counts[-1, :layers], tokens, min(size.top_k, shape.experts), seed)
    chosen = [(name, placed[:layers]) for name, placed in placements]
    job = MultiGpuJob(
        replace(shape, layers=layers),
        size,
        tuple(chosen),
        choices,
        np.full(choices.shape, 1 / choices.shape[2], np.float32),
        precision=model.precision if device == "cuda" else "fp32",
        repeats=20 if device == "cuda" else 3,
        seed=seed,
    )
    result = measure_placements(job, world, device)
    processes = Shape(layers, shape.experts, shape.slots, world)
    counts = np.stack([np.bincount(layer.ravel(), minlength=shape.experts) for layer in choices])
    model_s = [step_seconds(model, network, placed, counts, processes).total_s for _, placed in chosen]
    found = agreement(result, model_s, trace.source, trace.name, "prefill")
    if device == "cpu":  # of other experts than the model's
        return Several(result_rows(result, trace.source, trace.name, "prefill"), replace(found, median_error=None))
    return Several(result_rows(result, trace.source, trace.name, "prefill", model_s), found)


def _choices(counts: Ints, tokens: int, top_k: int, seed: int) -> NDArray[np.int64]:
    """Experts [L, tokens, top_k] of single tokens, distinct in each, drawn by the loads [L, E] (Gumbel top-k)."""
    rng = np.random.default_rng(seed)
    drawn = np.empty((len(counts), tokens, top_k), np.int64)
    for layer, loads in enumerate(counts):
        keys = np.log(np.maximum(loads, 1e-9)) + rng.gumbel(size=(tokens, len(loads)))
        drawn[layer] = np.argpartition(-keys, top_k - 1, axis=1)[:, :top_k]
    return drawn
