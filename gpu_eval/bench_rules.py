"""What the bench of balancers compares: baselines, called in this process, and given programs, in their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gpu_eval.bench_eplb import EplbOptions, Ints, Rule, Timed, yardstick
from gpu_eval.paired import PairedTiming, Track
from gpu_eval.program import ProgramError, ProgramProcess, measure_program
from gpu_eval.program_process import LAUNCHER
from gpu_eval.registry import BASELINES, Baseline
from gpu_eval.results import Device, Interval, Kind
from gpu_eval.shapes import Shape
from gpu_eval.timing import time_pairs

_SLOW_S = 0.05
"""A call from which on three pairs of single calls must do."""
_SLOW: dict[str, Any] = {"pairs": 3, "calls": 1, "warmup": 1, "probe": False}
_ROUND_S, _MOST_CALLS = 0.02, 50
"""Of a program's calls in a row: the first ones after waiting for the parent find cold caches."""


def rules(options: EplbOptions) -> list[Rule]:
    """All that `options` name, the yardstick first. Raises ValueError, one line, for a baseline that is unknown."""
    for name in options.baselines:
        if name not in BASELINES:
            raise ValueError(f"no baseline {name!r}, expected one of {', '.join(BASELINES)}")
    made: list[Rule] = [BaselineRule(BASELINES[name], options.limit_s) for name in options.baselines]
    return [*made, *(ProgramRule(path, options.limit_s, options.launcher or LAUNCHER) for path in options.programs)]


@dataclass(frozen=True, slots=True)
class BaselineRule:
    """One of our baselines."""

    baseline: Baseline
    limit_s: float
    kind: Kind = "baseline"

    @property
    def name(self) -> str:
        return self.baseline.name

    @property
    def grouped(self) -> tuple[bool, ...]:
        return (True, False) if self.baseline.grouped else (False,)

    def answers(self, weights: Ints, shape: Shape, grouped: bool) -> list[tuple[Any, ...]]:
        call = _call(self.baseline, shape, grouped)
        return [tuple(part.numpy() for part in call(torch.from_numpy(weight))) for weight in weights]

    def timed(self, weights: Ints, shape: Shape, grouped: bool, device: Device) -> Timed:
        call, beside = (_call(each, shape, grouped) for each in (self.baseline, yardstick()))
        track: Track = "host" if device == "cpu" else "device"
        with _one_thread():
            effort = _SLOW if _is_slow(lambda: call(torch.from_numpy(weights[0]))) else {}
            return _timed(time_pairs(call, beside, list(weights), track, limit_s=self.limit_s, **effort))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Torch's pool at one thread, as programs have it in their own processes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _call(baseline: Baseline, shape: Shape, grouped: bool) -> Callable[[Any], Any]:
    """On the device of the loads: baselines compute on the host, and their copies there and back count."""
    module, asked = baseline.load(), _asked(shape, grouped)
    given = (asked.slots, asked.groups, asked.nodes, asked.gpus)

    def call(weight: Any) -> Any:
        if weight.device.type == "cpu":
            return module.rebalance_experts(weight, *given)
        return tuple(part.to(weight.device) for part in module.rebalance_experts(weight.cpu(), *given))

    return call


def _is_slow(call: Callable[[], object]) -> bool:
    """By its second call; the first one compiles."""
    call()
    began = time.perf_counter()
    call()
    return time.perf_counter() - began > _SLOW_S


@dataclass(frozen=True, slots=True)
class ProgramRule:
    """A program file that defines `rebalance_experts`. It runs in fresh processes that `launcher` starts."""

    path: Path
    limit_s: float
    launcher: Sequence[str]
    kind: Kind = "program"
    _call_s: dict[tuple[Shape, bool], float] = field(default_factory=dict)
    """What a call took when it was asked for its answers: how many make a round that is worth timing."""

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def grouped(self) -> tuple[bool, ...]:
        return (True, False)

    def answers(self, weights: Ints, shape: Shape, grouped: bool) -> list[tuple[Any, ...]]:
        try:
            with ProgramProcess(self.path, launcher=self.launcher) as process:
                process.load()
                process.call(list(weights[:1]), _asked(shape, grouped))  # compiles
                done = process.call(list(weights), _asked(shape, grouped))
                self._call_s[shape, grouped] = min(done.child_s)
                return list(done.outputs)
        except ProgramError as error:
            raise ValueError(str(error)) from None

    def timed(self, weights: Ints, shape: Shape, grouped: bool, device: Device) -> Timed:
        call_s = self._call_s.get((shape, grouped), _SLOW_S)
        try:
            timing = measure_program(
                self.path,
                _asked(shape, grouped),
                list(weights),
                "host" if device == "cpu" else "device",
                baseline=yardstick().path,
                pairs=3 if call_s > _SLOW_S else 12,
                calls=max(1, min(_MOST_CALLS, round(_ROUND_S / max(call_s, 1e-6)))),
                limit_s=self.limit_s,
                launcher=self.launcher,
            )
        except ProgramError as error:
            raise ValueError(str(error)) from None
        return _timed(timing)


def _asked(shape: Shape, grouped: bool) -> Shape:
    """What is called for: without groups there is one group and one node."""
    return shape if grouped else shape.ungrouped


def _timed(timing: PairedTiming) -> Timed:
    took = timing.candidate
    interval = Interval(1e3 * took.median_s, 1e3 * took.low_s, 1e3 * took.high_s)
    own = tuple(sentence for sentence in timing.findings if not sentence.startswith("baseline: "))
    return Timed(interval, own + ((timing.note,) if timing.note else ()))
