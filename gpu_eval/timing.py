"""Two programs timed call beside call in this process: host and device track, ABBA, and nothing reused between calls.

Every call gets a tensor of its own in fresh storage: one of the inputs plus a secret pattern, drawn after the call
before has returned. Both programs see the same values, in turns A B B A and B A A B, so that drift of clocks and load
cancels in the ratio. Compilation happens in the warm-up. The collector of garbage is off. The device track
synchronises, reads the host's clock, calls, synchronises and reads it again: launches are its cost, CUDA events alone
would hide them.

Exceptions of the programs are the caller's: what may do harm is measured in a process of its own (`gpu_eval.program`).
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gpu_eval.call_watch import CallWatch
from gpu_eval.clocks import ClockLog
from gpu_eval.findings import Findings
from gpu_eval.paired import PairedTiming, Seed, Timing, Track, collect, paired_timing, probe_cache, secret_pattern

__all__ = ["Instruments", "PairedTiming", "Timing", "Track", "fresh", "time_pairs"]

Call = Callable[[Tensor], object]
EVENT_CALLS = 10
REST_S = 0.003


@dataclass(frozen=True, slots=True)
class Instruments:
    """What measures; tests bring their own."""

    clock: Callable[[], int] = time.perf_counter_ns
    """Nanoseconds. Bound before any program is imported, so that none can put its own in place."""
    rest: Callable[[], None] = field(default=lambda: time.sleep(REST_S))


def time_pairs(
    candidate: Call,
    baseline: Call,
    inputs: Sequence[Any],
    track: Track = "host",
    *,
    device: str | None = None,
    pairs: int = 12,
    calls: int = 5,
    warmup: int = 5,
    seed: int = 0,
    limit_s: float = 20.0,
    probe: bool = True,
    verify: Callable[[Any, Tensor], None] | None = None,
    instruments: Instruments | None = None,
) -> PairedTiming:
    """Time `candidate` against `baseline` on loads like `inputs` (tensors or arrays, at least one).

    `device`: where inputs lie, `cpu` on the host track and else `cuda`. Each pair is two legs of `calls` calls of
    either program. While the resolution is not reached, pairs are added within `limit_s` seconds, up to four times as
    many. `probe`: whether to look for cached results, which takes up to 48 calls of the candidate.
    `verify(outputs, weight)` sees every timed answer off the clock and raises PlacementError for an invalid one.
    Findings about the baseline begin with `baseline: `. Raises ValueError for arguments that measure nothing.
    """
    if not inputs or min(pairs, calls) < 1:
        raise ValueError(f"{len(inputs)} inputs, {pairs} pairs, {calls} calls: expected at least one of each")
    bench = _Bench(inputs, torch.device(device or ("cpu" if track == "host" else "cuda")), instruments or Instruments())
    sides = [_Side(candidate, bench, verify, ""), _Side(baseline, bench, verify, "baseline: ")]
    with _no_collector():
        for number in range(warmup):
            for side in sides:
                side.call((seed, 0, number))
        done = collect(
            lambda which, values: sides[which].leg(values, calls), pairs, limit_s, bench.instruments.clock, seed
        )
        if probe and (sentence := probe_cache(sides[0].call, seed)):
            sides[0].findings.add("cached results", sentence)
        marked = min(EVENT_CALLS, pairs * calls) if bench.cuda else 0
        events = [[side.events((seed, 3, call)) for call in range(marked)] for side in sides]
    findings = [sentence for side in sides for sentence in side.findings.sentences()]
    return paired_timing(done, findings, bench.clocks.readings if bench.clocks else (), (events[0], events[1]), seed)


def fresh(base: Tensor, device: torch.device, seed: Seed) -> Tensor:
    """A copy of `base` on `device`, in storage of its own, plus `secret_pattern`; same type."""
    values = base.detach().to("cpu")
    mean = float(values.double().mean()) if values.numel() else 0.0
    pattern = torch.from_numpy(secret_pattern(tuple(values.shape), mean, seed))
    # On the host `to` may return the sum itself, which is new in any case.
    return (values + pattern.to(values.dtype)).to(device)


class _Bench:
    """Inputs, device and instruments that both programs share."""

    def __init__(self, inputs: Sequence[Any], device: torch.device, instruments: Instruments) -> None:
        self.inputs = [torch.as_tensor(base) for base in inputs]
        self.device = device
        self.instruments = instruments
        self.cuda = device.type == "cuda"
        self.clocks = ClockLog(gpu_name(device)) if self.cuda else None

    def draw(self, seed: Seed) -> Tensor:
        return fresh(self.inputs[sum(seed) % len(self.inputs)], self.device, seed)

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)


class _Side:
    """One of the two programs: its calls, what they took and what was seen of them."""

    def __init__(self, program: Call, bench: _Bench, verify: Callable[[Any, Tensor], None] | None, who: str) -> None:
        self._bench = bench
        self.findings = Findings(who)
        self._program = program
        self._watch = CallWatch(self.findings, bench.instruments.rest, verify=verify)

    def call(self, seed: Seed, watched: bool = False) -> float:
        """Seconds of one call on a load of its own."""
        weight = self._bench.draw(seed)
        if watched:
            self._watch.before(weight)
        clock, synchronize, program = self._bench.instruments.clock, self._bench.synchronize, self._program
        synchronize()
        begin = clock()
        outputs = program(weight)
        synchronize()
        seconds = (clock() - begin) / 1e9
        if watched:
            self._watch.after(outputs)
        return seconds

    def events(self, seed: Seed) -> float:
        """Seconds between CUDA events round one call; apart from `call`, whose clock would see the recording."""
        weight = self._bench.draw(seed)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        stream = torch.cuda.current_stream(self._bench.device)
        self._bench.synchronize()
        start.record(stream)
        self._program(weight)
        end.record(stream)
        self._bench.synchronize()
        return float(start.elapsed_time(end)) / 1e3

    def leg(self, seed: Seed, calls: int) -> tuple[list[float], float | None]:
        """Seconds of calls in a row, and the SM clock at their end."""
        seconds = [self.call((*seed, call), watched=True) for call in range(calls)]
        mhz = self._bench.clocks.read() if self._bench.clocks else None
        self._watch.settle()
        return seconds, mhz


@contextmanager
def _no_collector() -> Iterator[None]:
    was = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def gpu_name(device: torch.device) -> str:
    """How nvidia-smi knows the device: its UUID, since CUDA may number GPUs otherwise; its index without one."""
    uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
    if uuid is None:
        return str(device.index or 0)
    return str(uuid) if str(uuid).startswith("GPU-") else f"GPU-{uuid}"
