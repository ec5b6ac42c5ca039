"""One device plays a rank of an MoE layer: the time of its experts on given numbers of tokens.

On a GPU a rank is captured as a CUDA graph, one per weight set, and replayed between two events. Before each replay a
write of twice the L2 cache drops what the last one left there, and keeps the GPU busy while the host queues the replay,
so that no launch latency is timed. Weight sets rotate for the same reason. On a CPU the same call is timed plainly.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from . import grouped_gemm
from .cost_model import Floats
from .device_memory import require
from .grouped_gemm import CAPTURE, DTYPES, ExpertWeights, Groups, choose_kernel, run_experts
from .precision import expert_bytes
from .shapes import ExpertSize

_OTHER_L2_BYTES = 64 << 20
"""Flushed where torch does not tell the size of the L2 cache."""


class MoeRanks:
    """Weights of a rank on a device, and the clock for them. Holds device memory until it is dropped.

    `kernel.name` names the grouped GEMM in use. One object may be used by one thread at a time. ValueError, one line,
    when the device has too little memory, dimensions no kernel takes, or no kernel for `precision`.
    """

    def __init__(
        self,
        size: ExpertSize,
        slots: int,
        device: str = "cpu",
        precision: str = "bf16",
        *,
        weight_sets: int = 2,
        replays: int = 8,
        seed: int = 0,
    ) -> None:
        if slots < 1 or weight_sets < 1 or replays < 2:
            raise ValueError(
                f"slots {slots}, weight_sets {weight_sets}, replays {replays}: expected at least 1, 1 and 2"
            )
        for name, width in (("hidden", size.hidden), ("intermediate", size.intermediate)):
            if width % grouped_gemm.ALIGNMENT:
                raise ValueError(f"{name} is {width}, expected a multiple of {grouped_gemm.ALIGNMENT}")
        self.size, self.slots, self.precision = size, slots, precision
        self.device = _device(device)
        self.kernel = choose_kernel(self.device, precision)
        self.weight_sets, self.replays = weight_sets, replays
        self._generator = torch.Generator(self.device).manual_seed(seed)
        # One slot's matrix is drawn in float32 before it is narrowed, hence the 8 bytes for its two largest at once.
        needed = weight_sets * slots * expert_bytes(size, precision) + 8 * 2 * size.intermediate * size.hidden
        require(self.device, needed, f"{weight_sets} sets of {slots} {size.name} experts", "take fewer weight_sets")
        self._weights = [
            grouped_gemm.random_weights(size, slots, precision, self._generator) for _ in range(weight_sets)
        ]
        self._rows = torch.empty(0, size.hidden, dtype=DTYPES[precision], device=self.device)
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)
            self._flush = torch.empty(2 * _l2_bytes(self.device), dtype=torch.uint8, device=self.device)
        self._warm_up()

    @property
    def device_name(self) -> str:
        """The GPU's name, or `cpu` with the threads that torch uses."""
        if self.device.type == "cuda":
            return str(torch.cuda.get_device_name(self.device))
        return f"cpu, {torch.get_num_threads()} threads"

    def seconds(self, tokens: Sequence[int]) -> Floats:
        """Seconds of each of `replays` runs in which slot s has `tokens[s]` tokens; all zero for a rank without any.

        ValueError when `tokens` has another length than `slots`, a negative number, or more than fit the device.
        """
        sizes = tuple(int(count) for count in tokens)
        if len(sizes) != self.slots or min(sizes) < 0:
            raise ValueError(f"tokens of {len(sizes)} slots, least {min(sizes, default=0)}: expected {self.slots} >= 0")
        if not sum(sizes):
            return np.zeros(self.replays)
        rows = self._take_rows(sum(sizes))
        groups = Groups.of(sizes, self.device)
        return self._replay(rows, groups) if self.device.type == "cuda" else self._time_calls(rows, groups)

    def _take_rows(self, count: int) -> Tensor:
        """The first `count` rows of a buffer of random tokens, which grows as needed."""
        width = DTYPES[self.precision].itemsize
        missing = max(0, count - len(self._rows))
        buffer = count * self.size.hidden * width if missing else 0
        product_width = 2 if self.precision == "fp8" else width
        passing = count * ((3 * self.size.intermediate + self.size.hidden) * product_width + self.size.intermediate)
        if missing:
            self._rows = self._rows[:0].clone()  # the old buffer is free before the new one is asked for
        require(self.device, buffer + passing, f"a rank of {count} tokens", "bring fewer tokens per GPU")
        if missing:
            grown = torch.empty(count, self.size.hidden, dtype=DTYPES[self.precision], device=self.device)
            for part in grown.split(4096):
                part.copy_(torch.randn(part.shape, generator=self._generator, device=self.device))
            self._rows = grown
        return self._rows[:count]

    def _warm_up(self) -> None:
        """Loads libraries and their handles, and finds out early what does not work."""
        rows = self._take_rows(16 * self.slots)
        groups = Groups.of([16] * self.slots, self.device)
        if self.device.type != "cuda":
            self._run(rows, groups, self._weights[0])
            return
        self._replay(rows, groups)

    def _run(self, rows: Tensor, groups: Groups, weights: ExpertWeights) -> Tensor:
        with torch.no_grad():
            return run_experts(rows, weights, groups, self.kernel)

    def _run_uncaptured(self, rows: Tensor, groups: Groups) -> None:
        """On the stream that captures: kernels differ by numbers of rows, and none may be loaded inside a capture."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._run(rows, groups, self._weights[0])

    def _time_calls(self, rows: Tensor, groups: Groups) -> Floats:
        self._run(rows, groups, self._weights[-1])
        seconds = np.empty(self.replays)
        for replay in range(self.replays):
            weights = self._weights[replay % self.weight_sets]
            start = time.perf_counter()
            self._run(rows, groups, weights)
            seconds[replay] = time.perf_counter() - start
        return seconds

    def _replay(self, rows: Tensor, groups: Groups) -> Floats:
        with torch.cuda.device(self.device):
            graphs = self._capture(rows, groups)
            for graph in graphs:  # a graph's first launch uploads it
                graph.replay()
            pairs = [
                (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
                for _ in range(self.replays)
            ]
            for replay, (start, end) in enumerate(pairs):
                self._flush.zero_()
                start.record()
                graphs[replay % len(graphs)].replay()
                end.record()
            torch.cuda.synchronize()
            return np.array([start.elapsed_time(end) for start, end in pairs], dtype=np.float64) * 1e-3

    def _capture(self, rows: Tensor, groups: Groups) -> list[torch.cuda.CUDAGraph]:
        """One graph per weight set. They share a pool: replays follow each other and nobody reads what they leave.

        Entering `torch.cuda.graph` waits for the device, so `rows` and `groups` are complete by then, and both outlive
        the graphs.
        """
        self._run_uncaptured(rows, groups)
        graphs: list[torch.cuda.CUDAGraph] = []
        for weights in self._weights[: self.replays]:
            graph = torch.cuda.CUDAGraph()
            pool = graphs[0].pool() if graphs else None
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode=CAPTURE):
                self._run(rows, groups, weights)
            graphs.append(graph)
        return graphs


def _device(name: str) -> torch.device:
    """ValueError, one line, for a device that torch does not know or does not see."""
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device {name!r} is unknown, expected cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device {name!r} is not supported, expected cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    index = device.index or 0
    if not torch.cuda.is_available() or index >= torch.cuda.device_count():
        raise ValueError(f"device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices here")
    return torch.device("cuda", index)


def _l2_bytes(device: torch.device) -> int:
    return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or _OTHER_L2_BYTES
