"""One process of a measurement on several GPUs: its slots, its tokens, its clock; the others run the same code."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from .communication import MovePlan, plan_moves
from .exchange_plan import deal_evenly, plan_exchange
from .expert_parallel import Clock, LayerRoute, put_route, reference_layer, run_layer
from .expert_weights import differing_slots, make_slots
from .grouped_gemm import DTYPES, ExpertWeights, choose_kernel
from .multi_gpu_job import Ints, MultiGpuJob, hidden_block
from .ranks import Rank
from .shapes import Shape
from .statistics import median
from .weight_moves import WeightMove

Floats = NDArray[np.float64]

_COPIES = 3
_MOST_STEPS_BESIDE = 32
_LARGEST_ERROR = {"fp32": 1e-4, "bf16": 0.05}


@dataclass(frozen=True, slots=True)
class Move:
    """The move to a placement from the one before it, by the slowest process; the first placement has the defaults."""

    slots: int = 0
    """Slots that changed."""
    gib: float = 0.0
    """Received from other processes by the one that received most."""
    copy_s: float | None = None
    """The transfer alone: median."""
    commit_s: float | None = None
    """Putting the arrived weights into their slots."""
    copy_beside_s: float | None = None
    """The transfer while steps ran, None where they did not overlap."""
    slow_down: float | None = None
    """Steps of the placement before during the transfer over the same steps alone; None where they did not overlap."""


@dataclass(frozen=True, slots=True)
class Measured:
    """Of one placement in one process; times of steps and moves are the slowest process's already."""

    name: str
    steps_s: list[float]
    experts_s: Floats
    """[layers, virtual ranks]."""
    move: Move
    outputs: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Answer:
    kernel: str
    output_error: float
    placements: list[Measured]


def measure(rank: Rank, job: MultiGpuJob) -> Answer:
    """What one process of the group does, for `ranks.run_ranks`. Raises ValueError when anything comes out wrong."""
    process = _Process(rank, job)
    measured: list[Measured] = []
    worst = 0.0
    for index, (name, placement) in enumerate(job.placements):
        move = process.move(placement, measured[-1].steps_s) if index else Move()
        process.take_up(placement)
        steps, experts = process.timed_steps(job.repeats, job.warm_up)
        outputs = process.step()[0]
        worst = max(worst, process.check(outputs))
        kept = torch.stack(outputs).float().cpu().numpy() if job.keep_outputs else None
        measured.append(Measured(name, steps, np.median(experts, axis=0), move, kept))
    return Answer(process.kernel.name, worst, measured)


class _Process:
    """One rank of the group: its slots' weights, its tokens, and the routes of the placement it has taken up."""

    def __init__(self, rank: Rank, job: MultiGpuJob) -> None:
        self.rank, self.job = rank, job
        self.kernel = choose_kernel(rank.device, job.precision)
        self._clock = Clock(rank.device)
        self._hidden = hidden_block(job, rank.index, rank.world).to(rank.device, DTYPES[job.precision])
        self._slots = job.shape.slots // rank.world
        self._own = slice(rank.index * self._slots, (rank.index + 1) * self._slots)
        self._placement = job.placements[0][1]
        self._weights: list[ExpertWeights] = [
            make_slots(job.size, layer, row.tolist(), rank.device, job.precision)
            for layer, row in enumerate(self._placement[:, self._own])
        ]
        self._routes: list[LayerRoute] = []
        group = dist.new_group()
        assert group is not None
        self._moves_group = group
        dist.barrier(group=group)  # a communicator's first use must involve everyone, a batch of messages need not

    def take_up(self, placement: Ints) -> None:
        """Route all tokens by `placement`, whose weights the slots must hold already."""
        job, rank = self.job, self.rank
        self._placement = placement
        self._routes = []
        for layer, row in enumerate(placement):
            slots = deal_evenly(job.choices[layer], row, job.shape.experts)
            plan = plan_exchange(slots, job.gates[layer], rank.index, rank.world, self._slots)
            virtual_ranks = job.shape.gpus // rank.world
            self._routes.append(put_route(plan, virtual_ranks, rank.device, DTYPES[job.precision]))

    def step(self) -> tuple[list[Tensor], list[list[tuple[Any, Any]]]]:
        """The outputs of every layer, and its marks."""
        layers = [
            run_layer(self._hidden, route, weights, self.kernel, self._clock)
            for route, weights in zip(self._routes, self._weights, strict=True)
        ]
        return [output for output, _ in layers], [marks for _, marks in layers]

    def timed_steps(self, repeats: int, warm_up: int) -> tuple[list[float], Floats]:
        """Seconds of each repeat in the slowest process, and of own experts [repeats, layers, virtual ranks]."""
        clock = self._clock
        spans, experts = [], []
        for repeat in range(warm_up + repeats):
            self._line_up()
            start = clock.mark()
            marks = self.step()[1]
            end = clock.mark()
            self._synchronize()
            if repeat >= warm_up:
                spans.append(clock.seconds(start, end))
                experts.append([[clock.seconds(*span) for span in layer] for layer in marks])
        return self._slowest(spans), np.asarray(experts, dtype=np.float64)

    def move(self, placement: Ints, steps_s: list[float]) -> Move:
        """Move the weights to `placement`: alone, beside steps of the present one, then for good; check every slot."""
        job, rank = self.job, self.rank
        ranks = Shape(job.shape.layers, job.shape.experts, job.shape.slots, rank.world)
        plan = plan_moves(self._placement, placement, ranks)
        move = WeightMove(plan, self._placement, placement, self._weights, rank, self._moves_group)
        alone = self._slowest([self._timed(move.transfer) for _ in range(1 + _COPIES)])[1:]
        beside_s, slow_down = self._beside_steps(move, median(alone), median(steps_s))
        commit_s = self._slowest([self._timed(move.commit)])[0]
        for layer, row in enumerate(placement[:, self._own].tolist()):
            if wrong := differing_slots(self._weights[layer], job.size, layer, row, job.precision):
                slot = wrong[0] + self._own.start
                raise ValueError(f"slot {slot} of layer {layer} does not hold expert {row[wrong[0]]} after the move")
        return Move(plan.changed_slots, self._gib(plan), median(alone), commit_s, beside_s, slow_down)

    def check(self, outputs: list[Tensor]) -> float:
        """The worst error of the first own tokens, relative to the largest value of the reference."""
        job, rank = self.job, self.rank
        first = rank.index * len(self._hidden)
        tokens = slice(first, first + min(job.checked_tokens, len(self._hidden)))
        worst = 0.0
        for layer, output in enumerate(outputs):
            chosen = job.choices[layer, tokens].tolist()
            experts = {
                expert: make_slots(job.size, layer, [expert], rank.device, job.precision)
                for expert in sorted({expert for row in chosen for expert in row})
            }
            gates = torch.from_numpy(job.gates[layer, tokens]).to(rank.device)
            right = reference_layer(self._hidden[: len(chosen)], gates, chosen, experts)
            scale = float(right.abs().max()) if chosen else 0.0
            error = float((output[: len(chosen)].float() - right).abs().max()) / scale if scale else 0.0
            if not error <= _LARGEST_ERROR[job.precision]:
                raise ValueError(f"outputs of layer {layer} are off by {error:.3g} of the largest value")
            worst = max(worst, error)
        return worst

    def _beside_steps(self, move: WeightMove, copy_s: float, step_s: float) -> tuple[float | None, float | None]:
        """Seconds of the transfer while steps run, and the slow-down of the steps that it overlapped in every process.

        On CPUs the transfer ends before the first step begins: nothing overlaps, and both are None.
        """
        clock, rank = self._clock, self.rank
        count = min(_MOST_STEPS_BESIDE, math.ceil(copy_s / max(step_s, 1e-9)) + 1)
        self._line_up()
        begin = clock.mark()
        with self._side_stream():
            move.transfer()
            arrived = clock.mark()
        spans = []
        for _ in range(count):
            start = clock.mark()
            self.step()
            spans.append((start, clock.mark()))
        self._synchronize()
        copy = clock.seconds(begin, arrived)
        apart = torch.tensor([float(clock.seconds(begin, start) >= copy) for start, _ in spans], device=rank.device)
        dist.all_reduce(apart, op=dist.ReduceOp.MAX)
        slowest = self._slowest([clock.seconds(*span) for span in spans])
        copies = self._slowest([copy])
        overlapped = [seconds for seconds, alone in zip(slowest, apart.tolist(), strict=True) if not alone]
        if not overlapped:
            return None, None
        return copies[0], sum(overlapped) / len(overlapped) / step_s

    def _timed(self, work: Callable[[], None]) -> float:
        self._line_up()
        start = self._clock.mark()
        work()
        end = self._clock.mark()
        self._synchronize()
        return self._clock.seconds(start, end)

    def _line_up(self) -> None:
        """Nobody goes on before everybody has come here with nothing in flight."""
        self._synchronize()
        dist.all_reduce(torch.zeros(1, device=self.rank.device))
        self._synchronize()

    def _slowest(self, seconds: list[float]) -> list[float]:
        """The largest over processes of each entry; all must give as many."""
        values = torch.tensor(seconds, dtype=torch.float64, device=self.rank.device)
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
        slowest: list[float] = values.tolist()
        return slowest

    def _synchronize(self) -> None:
        if self.rank.device.type == "cuda":
            torch.cuda.synchronize(self.rank.device)

    def _side_stream(self) -> contextlib.AbstractContextManager[object]:
        """A stream that begins after what the current one holds; on CPUs there is but one."""
        if self.rank.device.type != "cuda":
            return contextlib.nullcontext()
        side = torch.cuda.Stream(self.rank.device)
        side.wait_stream(torch.cuda.current_stream(self.rank.device))
        stream: contextlib.AbstractContextManager[object] = torch.cuda.stream(side)
        return stream

    def _gib(self, plan: MovePlan) -> float:
        """Received by the process that receives most."""
        matrices = (self._weights[0].up.values[0], self._weights[0].down.values[0])
        expert_bytes: int = sum(matrix.nbytes for matrix in matrices)
        return int(np.bincount(plan.target, minlength=1).max()) * expert_bytes / 2**30
