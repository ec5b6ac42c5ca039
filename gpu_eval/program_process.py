"""A candidate program in a fresh process: arrays in, arrays out, timed by the parent's clock."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.child_process import LOAD_S, ChildProcess, one_line
from gpu_eval.frames import FrameError, parse_array
from gpu_eval.paired import Track
from gpu_eval.shapes import Shape
from gpu_eval.statistics import median, quantile

LAUNCHER = (sys.executable, "-m", "gpu_eval.program_child")
CLOCK = time.perf_counter_ns
OUTPUTS = 3
NULL_ROUNDS = 15
Layout = Sequence[tuple[str, Sequence[int]]]
"""Types and extents of one call's outputs, such as `("<i8", (58, 288))`."""

Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Round:
    """`n` calls in a row: their outputs, and what the round took by either clock."""

    outputs: tuple[Outputs, ...]
    wall_s: float
    """By the parent's clock, from the first byte sent to the last received: calls and transport."""
    child_s: tuple[float, ...]
    """Each call by the child's clock, which the program may have tampered with."""

    @property
    def output_bytes(self) -> int:
        return sum(array.nbytes for outputs in self.outputs for array in outputs)


@dataclass(frozen=True, slots=True)
class Transport:
    """What a round costs without work in it: medians of null rounds at two sizes of outputs, a line through both."""

    sizes: tuple[int, int]
    """Bytes of all outputs of a round."""
    seconds: tuple[float, float]
    slack_s: float = 0.0
    """How much longer than the median one null round in ten took."""

    def of(self, size: int) -> float:
        """Seconds of a null round whose outputs have `size` bytes in all."""
        width = self.sizes[1] - self.sizes[0]
        slope = max(self.seconds[1] - self.seconds[0], 0.0) / width if width else 0.0
        return max(self.seconds[1] + slope * (size - self.sizes[1]), 0.0)


class ProgramProcess(ChildProcess):
    """A process for the program in `source`, a file that defines `rebalance_experts`. A context manager.

    Use: `with ProgramProcess(path) as process: transport = process.transport(...); process.load(); process.call(...)`.
    `launcher` is the command that runs `gpu_eval.program_child`, with a jail round it where there is one. `device`:
    where tensors lie, `cpu` on the host track, else `cuda`.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        track: Track = "host",
        device: str | None = None,
        launcher: Sequence[str] = LAUNCHER,
        threads: int = 1,
        call_s: float = 60.0,
    ) -> None:
        self.source = Path(source).resolve()
        self.track: Track = track
        self.gpu = ""
        """How nvidia-smi knows the GPU that it runs on, once it is up; empty on the host."""
        where = device or ("cpu" if track == "host" else "cuda")
        super().__init__(self.source.stem, launcher, {"device": where}, threads)
        self._call_s = call_s
        self._pristine = True
        self._ready = False

    def _started(self, answer: dict[str, Any]) -> None:
        self.gpu = str(answer.get("gpu", ""))

    def transport(self, weights: Sequence[NDArray[Any]], layout: Layout, rounds: int = NULL_ROUNDS) -> Transport:
        """What rounds of these inputs and of outputs like `layout` cost before the program's source is executed.

        Measured at `layout` and at outputs of one element each. Raises ValueError once the program is loaded: then the
        process is no longer one whose haste or delay is known.
        """
        if not self._pristine:
            raise ValueError(f"{self.name} is loaded: null rounds need a pristine process")
        figures = []
        for outputs in ([(kind, (1,)) for kind, _ in layout], layout):
            self._ask(self._call_s, {"do": "prepare", "count": len(weights), "outputs": _plain(outputs)})
            done = [self._round({"do": "null"}, weights, _bytes(outputs)) for _ in range(rounds + 2)]
            # The first two find cold memory.
            figures.append((done[-1].output_bytes, [each.wall_s for each in done[2:]]))
        (small, fast), (large, slow) = figures
        return Transport((small, large), (median(fast), median(slow)), quantile(slow, 0.9) - median(slow))

    def load(self) -> None:
        """Execute the program's source."""
        self._pristine = False
        self._ask(LOAD_S, {"do": "load", "path": str(self.source)})
        self._ready = True

    def call(self, weights: Sequence[NDArray[Any]], shape: Shape) -> Round:
        """Run it on each of `weights` [layers, experts] in turn. All outputs are kept by it until all calls are done.

        Outputs are plain arrays of numbers, not yet checked: `gpu_eval.invariants.check_placement` does.
        """
        self._need_program()
        request = {"do": "call", "count": len(weights), "arguments": _arguments(shape)}
        widest = shape.layers * shape.experts * (shape.slots - shape.experts + 1)
        return self._round(request, weights, 8 * max(widest, shape.layers * shape.slots))

    def inspect(self, weight: NDArray[Any], shape: Shape, seed: int = 0) -> tuple[str, ...]:
        """What it does besides its answer (`gpu_eval.findings`), as seen from within its process: good against
        mistakes; a program that tampers with its process can hide it."""
        self._need_program()
        with self._guarded(LOAD_S) as channel:
            channel.send({"do": "inspect", "arguments": _arguments(shape), "seed": seed})
            channel.send_array(weight)
            answer = channel.receive()
            found = answer.get("findings", []) if "error" not in answer else []
            if not isinstance(found, list) or not all(isinstance(sentence, str) for sentence in found):
                raise FrameError("findings that are no list of sentences")
        self._refuse(answer)
        return tuple(one_line(sentence) for sentence in found[:20])

    def _round(self, request: dict[str, Any], weights: Sequence[NDArray[Any]], most: int) -> Round:
        with self._guarded(self._call_s) as channel:
            begin = CLOCK()
            channel.send(request)
            for weight in weights:
                channel.send_array(weight)
            answer = channel.receive()
            frames = [] if "error" in answer else [channel.receive_bytes(most) for _ in range(OUTPUTS * len(weights))]
            wall_s = (CLOCK() - begin) / 1e9
            arrays = [parse_array(frame) for frame in frames]
            seconds = [] if "error" in answer else _seconds(answer.get("seconds"), len(weights))
        self._refuse(answer)
        outputs = tuple(zip(arrays[::OUTPUTS], arrays[1::OUTPUTS], arrays[2::OUTPUTS], strict=True))
        return Round(outputs, wall_s, tuple(seconds))

    def _need_program(self) -> None:
        if not self._ready:
            raise ValueError(f"{self.name} is not loaded: call load() first")


def _arguments(shape: Shape) -> list[int]:
    return [shape.slots, shape.groups, shape.nodes, shape.gpus]


def _plain(layout: Layout) -> list[list[Any]]:
    return [[kind, list(extents)] for kind, extents in layout]


def _bytes(layout: Layout) -> int:
    return max(np.dtype(kind).itemsize * math.prod(extents) for kind, extents in layout)


def _seconds(value: object, count: int) -> list[float]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(isinstance(second, float) and 0 <= second < math.inf for second in value)
    ):
        raise FrameError(f"times that are no list of {count} seconds")
    return value
