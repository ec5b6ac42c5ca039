"""Placements on several GPUs: real all-to-all, real expert GEMMs, real moves of weights between them.

One process per GPU (nccl), or per rank on the CPU (gloo) through the same code. A step is, for each layer, an
`all_to_all_single` with the split sizes that the placement makes, the experts, and the exchange back; the processes
line up before it and the slowest one counts. Moves go through a communicator of their own, on CUDA on a side stream
while steps run. Every move is checked bit by bit and outputs against a plain computation: a result that is returned is
one of a machine that computed the right thing.

With two GPUs max / mean cannot exceed 2: such a run validates the one-GPU model, it is no score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .multi_gpu_job import MultiGpuJob
from .multi_gpu_process import Measured, Move, measure
from .ranks import run_ranks
from .results import Fidelity, Interval, MultiGpuRow, Phase, Source
from .statistics import bootstrap_interval, median, spearman

Floats = NDArray[np.float64]

UNPROVEN = "unproven: NCCL has not been run on two GPUs"
SEQUENTIAL = "moves and steps did not overlap"


@dataclass(frozen=True, slots=True)
class PlacementTiming:
    """One placement; seconds of the slowest process."""

    name: str
    step_s: Interval
    """Median over repeats and its 95 % bootstrap interval."""
    experts_s: Floats
    """[layers, ranks of the placement]: the experts alone, median over repeats."""
    move: Move
    """From the placement before it."""
    outputs: NDArray[np.float32] | None
    """[layers, tokens, hidden] where they were to be kept."""


@dataclass(frozen=True, slots=True)
class MultiGpuResult:
    """What `measure_placements` found; `output_error` is the worst |difference| / max |reference| of checked tokens."""

    backend: str
    world: int
    virtual_ranks: int
    kernel: str
    precision: str
    output_error: float
    timings: tuple[PlacementTiming, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know: whether NCCL has run on two GPUs here, and whether copies overlapped steps."""
        proven = self.backend == "nccl" and self.world >= 2
        overlapped = any(timing.move.slow_down is not None for timing in self.timings)
        moved = any(timing.move.slots for timing in self.timings)
        return (*([] if proven else [UNPROVEN]), *([SEQUENTIAL] if moved and not overlapped else []))


def measure_placements(job: MultiGpuJob, world: int, device: str, timeout_s: float = 600.0) -> MultiGpuResult:
    """Run `job` in `world` processes on `cpu` or `cuda`.

    Raises ValueError when the ranks, tokens or GPUs do not divide or suffice, `ranks.RankError` when a process dies,
    the time is up, a slot holds other weights than its expert's after a move, or outputs are wrong.
    """
    if job.shape.gpus % world:
        raise ValueError(f"{job.shape.gpus} ranks are no multiple of {world} processes")
    if job.choices.shape[1] % world:
        raise ValueError(f"{job.choices.shape[1]} tokens are no multiple of {world} processes")
    answers = run_ranks(measure, job, world, device, timeout_s)
    timings = tuple(_joined([answer.placements[index] for answer in answers]) for index in range(len(job.placements)))
    first = answers[0]
    error = max(answer.output_error for answer in answers)
    backend = "nccl" if device == "cuda" else "gloo"
    return MultiGpuResult(backend, world, job.shape.gpus // world, first.kernel, job.precision, error, timings)


def result_rows(
    result: MultiGpuResult, source: Source, regime: str, phase: Phase, model_s: Sequence[float | None] | None = None
) -> tuple[MultiGpuRow, ...]:
    """Rows for a results file; `model_s` is what the one-GPU model foretells of each placement's step."""
    foretold = model_s or [None] * len(result.timings)
    return tuple(
        MultiGpuRow(
            program=timing.name,
            source=source,
            regime=regime,
            phase=phase,
            backend=result.backend,
            world=result.world,
            virtual_ranks=result.virtual_ranks,
            step_s=timing.step_s,
            model_s=model,
            moved_slots=timing.move.slots,
            moved_gib=timing.move.gib,
            copy_s=timing.move.copy_s,
            slow_down=timing.move.slow_down,
            notes=result.notes,
        )
        for timing, model in zip(result.timings, foretold, strict=True)
    )


def agreement(result: MultiGpuResult, model_s: Sequence[float], source: Source, regime: str, phase: Phase) -> Fidelity:
    """How well the one-GPU model foretells the measured steps: rank correlation and median error over placements."""
    measured = [timing.step_s.median for timing in result.timings]
    errors = [abs(model / step - 1) for model, step in zip(model_s, measured, strict=True)]
    return Fidelity(
        cheap="one-GPU model",
        dear=f"{result.world} processes, {result.backend}",
        source=source,
        regime=regime,
        phase=phase,
        pairs=len(measured),
        spearman=spearman(model_s, measured) if len(measured) > 1 else None,
        median_error=median(errors),
    )


def _joined(parts: Sequence[Measured]) -> PlacementTiming:
    first = parts[0]
    outputs = [part.outputs for part in parts if part.outputs is not None]
    return PlacementTiming(
        name=first.name,
        step_s=Interval(median(first.steps_s), *bootstrap_interval(first.steps_s)),
        experts_s=np.concatenate([part.experts_s for part in parts], axis=1),
        move=first.move,
        outputs=np.concatenate(outputs, axis=1) if outputs else None,
    )
