"""A candidate program in a fresh process: arrays in, arrays out, timed by the parent's clock."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.frames import Channel, Ended, FrameError, parse_array
from gpu_eval.paired import Track
from gpu_eval.shapes import Shape
from gpu_eval.statistics import median, quantile

LAUNCHER = (sys.executable, "-m", "gpu_eval.program_child")
CLOCK = time.perf_counter_ns
OUTPUTS = 3
NULL_ROUNDS = 15
END_S = 10.0
LAST_BREATH_S = 1.0
PASSED_ON = ("PATH", "HOME", "USER", "LANG", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
PASSED_ON_PREFIXES = ("CUDA_", "NVIDIA_", "TRITON_", "TORCHINDUCTOR_", "NUMBA_", "LC_")
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")

Layout = Sequence[tuple[str, Sequence[int]]]
"""Types and extents of one call's outputs, such as `("<i8", (58, 288))`."""

Outputs = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


class ProgramError(RuntimeError):
    """One line on how a program failed.

    `kind`: `start` (its process did not come up), `raised` (it raised; the process lives and can be called again), and,
    with the process killed: `timeout`, `crash`, `output` (what came back is no answer).
    """

    def __init__(self, kind: str, text: str) -> None:
        self.kind = kind
        super().__init__(text)


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


class ProgramProcess:
    """A process for the program in `source`, a file that defines `rebalance_experts`. A context manager.

    Use: `with ProgramProcess(path) as process: transport = process.transport(...); process.load(); process.call(...)`.
    `launcher` is the command that runs `gpu_eval.program_child`, with a jail round it where there is one: the socket is
    its standard input, its output goes nowhere, and of the environment it gets what `PASSED_ON` names. `threads` bounds
    the pools of torch and of what it stands on. `device`: where tensors lie, `cpu` on the host track, else `cuda`.

    Every method raises ProgramError. Processes are killed by the id of the group that they were started with, and
    reaped.
    """

    def __init__(
        self,
        source: Path | str,
        *,
        track: Track = "host",
        device: str | None = None,
        launcher: Sequence[str] = LAUNCHER,
        threads: int = 1,
        start_s: float = 120.0,
        load_s: float = 120.0,
        call_s: float = 60.0,
    ) -> None:
        self.source = Path(source).resolve()
        self.name = self.source.stem
        self.track: Track = track
        self.gpu = ""
        """How nvidia-smi knows the GPU that it runs on, once it is up; empty on the host."""
        self._device = device or ("cpu" if track == "host" else "cuda")
        self._launcher = tuple(launcher)
        self._threads = threads
        self._start_s, self._load_s, self._call_s = start_s, load_s, call_s
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._up = False
        self._pristine = True
        self._ready = False

    def __enter__(self) -> ProgramProcess:
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                self._launcher,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env=_environment(self._threads),
                start_new_session=True,
            )
        except OSError as error:
            ours.close()
            raise ProgramError("start", f"{self._launcher[0]} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()
        self._channel = Channel(ours)
        return self

    def wait(self) -> None:
        """Until its process is up. The first request does it, too, so that several processes can come up at once."""
        if self._up:
            return
        self._up = True
        try:
            answer = self._ask(self._start_s, {"do": "start", "device": self._device, "threads": self._threads})
        except ProgramError as error:
            self.close()
            raise ProgramError("start", f"its process did not come up: {error}") from None
        self.gpu = str(answer.get("gpu", ""))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process and whatever shares its group; a second time does nothing."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(END_S)
            self._process = None

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
            done = [self._round(self._call_s, {"do": "null"}, weights, _bytes(outputs)) for _ in range(rounds + 2)]
            # The first two find cold memory.
            figures.append((done[-1].output_bytes, [each.wall_s for each in done[2:]]))
        (small, fast), (large, slow) = figures
        return Transport((small, large), (median(fast), median(slow)), quantile(slow, 0.9) - median(slow))

    def load(self) -> None:
        """Execute the program's source."""
        self._pristine = False
        self._ask(self._load_s, {"do": "load", "path": str(self.source)})
        self._ready = True

    def call(self, weights: Sequence[NDArray[Any]], shape: Shape, limit_s: float | None = None) -> Round:
        """Run it on each of `weights` [layers, experts] in turn. All outputs are kept by it until all calls are done.

        Outputs are plain arrays of numbers, not yet checked: `gpu_eval.invariants.check_placement` does.
        """
        self._need_program()
        request = {"do": "call", "count": len(weights), "arguments": _arguments(shape)}
        widest = shape.layers * shape.experts * (shape.slots - shape.experts + 1)
        return self._round(limit_s or self._call_s, request, weights, 8 * max(widest, shape.layers * shape.slots))

    def inspect(self, weight: NDArray[Any], shape: Shape, seed: int = 0) -> tuple[str, ...]:
        """What it does besides its answer (`gpu_eval.findings`), as seen from within its process: good against
        mistakes; a program that tampers with its process can hide it."""
        self._need_program()
        channel = self._open()
        with self._guarded(self._load_s):
            channel.send({"do": "inspect", "arguments": _arguments(shape), "seed": seed})
            channel.send_array(weight)
            answer = channel.receive()
            found = answer.get("findings", []) if "error" not in answer else []
            if not isinstance(found, list) or not all(isinstance(sentence, str) for sentence in found):
                raise FrameError("findings that are no list of sentences")
        self._refuse(answer)
        return tuple(_line(sentence) for sentence in found[:20])

    def _round(self, limit_s: float, request: dict[str, Any], weights: Sequence[NDArray[Any]], most: int) -> Round:
        channel = self._open()
        with self._guarded(limit_s):
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

    def _ask(self, limit_s: float, request: dict[str, Any]) -> dict[str, Any]:
        channel = self._open()
        with self._guarded(limit_s):
            channel.send(request)
            answer = channel.receive()
        self._refuse(answer)
        return answer

    def _need_program(self) -> None:
        if not self._ready:
            raise ValueError(f"{self.name} is not loaded: call load() first")

    def _open(self) -> Channel:
        if self._channel is None:
            raise ProgramError("crash", f"{self.name}: its process has ended")
        self.wait()
        return self._channel

    @contextlib.contextmanager
    def _guarded(self, limit_s: float) -> Any:
        """What goes wrong between the two processes ends the other one."""
        channel = self._open()
        channel.within(limit_s)
        try:
            yield
        except TimeoutError:
            self.close()
            raise ProgramError("timeout", f"{self.name}: no answer within {limit_s:g} s") from None
        except Ended:
            how = self._end()
            raise ProgramError("crash", f"{self.name}: its process ended {how}") from None
        except FrameError as error:
            self.close()
            raise ProgramError("output", f"{self.name}: {_line(str(error))}") from None

    def _end(self) -> str:
        """Wait for a process whose connection is closed, end what it leaves behind, and say how it ended."""
        told = None
        until = time.monotonic() + LAST_BREATH_S
        while self._process is not None and told is None and time.monotonic() < until:
            # Not reaped yet: until then the group cannot be somebody else's.
            told = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
            time.sleep(0.01)
        self.close()
        if told is None:
            return "its connection and was killed"
        return f"with code {told.si_status}" if told.si_code == os.CLD_EXITED else f"by signal {told.si_status}"

    def _refuse(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            raise ProgramError("raised", f"{self.name}: {_line(str(answer['error']))}")


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


def _line(text: str) -> str:
    """Untrusted text on one printable line."""
    return "".join(character if character.isprintable() else " " for character in text)[:300]


def _environment(threads: int) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith(PASSED_ON_PREFIXES)
    }
    return kept | dict.fromkeys(THREADS, str(threads)) | {"PYTHONPATH": str(Path(__file__).resolve().parents[1])}
