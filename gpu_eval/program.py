"""A champion measured again: program and baseline each in a fresh process, round beside round, by the parent's clock.

On the host track the figure is the parent's: the whole round, inputs out and answers back, less what rounds of the same
sizes took before the program was loaded. It holds whatever the program does to its own process. Where the child tells a
longer time, that one counts: a program gains nothing by making it longer. On the device track a call is short against
the copies round it: the figure is the child's, but never below the parent's less what one null round in ten takes above
the median. So a child that tells too little gains no more than that; it is told of (`clocks disagree`) when it does so
in half of its rounds, since on a busy machine single rounds are held up outside the program.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.child_process import ProgramError
from gpu_eval.clocks import ClockLog
from gpu_eval.findings import Findings
from gpu_eval.invariants import PlacementError, check_placement
from gpu_eval.paired import PairedTiming, Seed, Track, collect, paired_timing, probe_cache, secret_pattern
from gpu_eval.program_process import CLOCK, LAUNCHER, Layout, ProgramProcess, Round, Transport
from gpu_eval.shapes import Shape

__all__ = ["ProgramError", "ProgramProcess", "Round", "Transport", "measure_program"]

DISAGREE_SHARE = 0.1
DISAGREE_S = 0.005
DISAGREE_ROUNDS = 6
"""Rounds in which the child must tell too little, at least: fewer may all have been held up on a busy machine."""
WARM_ROUNDS = 2


def measure_program(
    source: Path | str,
    shape: Shape,
    weights: Sequence[NDArray[Any]],
    track: Track = "host",
    *,
    baseline: Path | str,
    pairs: int = 12,
    calls: int = 5,
    seed: int = 0,
    limit_s: float = 60.0,
    threads: int = 1,
    device: str | None = None,
    launcher: Sequence[str] = LAUNCHER,
) -> PairedTiming:
    """Time the program in `source` against `baseline` on loads like `weights` [layers, experts], at least one.

    Each is first run in a process of its own, which tells how large its answers are and what it does besides them, and
    then measured in a second one, in rounds of `calls` calls, A B B A and B A A B, all on fresh values, every answer
    checked off the clock. `pairs`, `limit_s` as in `gpu_eval.timing.time_pairs`; `launcher`, `threads`, `device` as for
    `ProgramProcess`. Raises ProgramError where either program fails or its first answers are no placement of `shape`;
    what is invalid later is a finding.
    """
    if not weights or min(pairs, calls) < 1:
        raise ValueError(f"{len(weights)} inputs, {pairs} pairs, {calls} calls: expected at least one of each")
    draw = _Loads(weights, seed)
    with contextlib.ExitStack() as stack:

        def processes() -> list[ProgramProcess]:
            return [
                stack.enter_context(
                    ProgramProcess(path, track=track, device=device, launcher=launcher, threads=threads)
                )
                for path in (source, baseline)
            ]

        # All come up at once; those to be measured wait, pristine, while the first are looked at.
        scouts, measured = processes(), processes()
        findings = [Findings(), Findings("baseline: ")]
        layouts = [_scout(scout, shape, draw, calls, found) for scout, found in zip(scouts, findings, strict=True)]
        sides = [
            _Side(process, shape, draw, layout, calls, found)
            for process, layout, found in zip(measured, layouts, findings, strict=True)
        ]
        clocks = ClockLog(measured[0].gpu) if measured[0].gpu else None

        def leg(which: int, values: Seed) -> tuple[list[float], float | None]:
            return [sides[which].round(values)], clocks.read() if clocks else None

        done = collect(leg, pairs, limit_s, CLOCK, seed)
        if sentence := probe_cache(sides[0].round, seed):
            sides[0].findings.add("cached results", sentence)
        for side in sides:
            side.finish()
    found = [sentence for side in sides for sentence in side.findings.sentences()]
    return paired_timing(done, found, clocks.readings if clocks else (), seed=seed)


class _Loads:
    """Fresh values on demand: equal seeds give equal ones."""

    def __init__(self, weights: Sequence[NDArray[Any]], seed: int) -> None:
        self._weights = [np.asarray(weight) for weight in weights]
        self._means = [float(np.mean(weight, dtype=np.float64)) for weight in self._weights]
        self.seed = seed

    def __call__(self, values: Seed, calls: int) -> list[NDArray[Any]]:
        return [self._one((*values, call)) for call in range(calls)]

    def _one(self, values: Seed) -> NDArray[Any]:
        which = sum(values) % len(self._weights)
        base = self._weights[which]
        return np.asarray(base + secret_pattern(base.shape, self._means[which], values).astype(base.dtype))


def _scout(process: ProgramProcess, shape: Shape, draw: _Loads, calls: int, findings: Findings) -> Layout:
    """Run a program and end its process: types and extents of its widest answer, and what it does not hide."""
    process.load()
    done = process.call(draw((draw.seed, 4), calls), shape)
    for outputs in done.outputs:
        try:
            check_placement(*outputs, shape)
        except PlacementError as error:
            raise ProgramError("output", f"{process.name}: {error}") from None
    for sentence in process.inspect(draw((draw.seed, 5), 1)[0], shape, draw.seed):
        kind, _, text = sentence.partition(": ")
        findings.add(kind, text)
    process.close()
    widest = max(done.outputs, key=lambda outputs: outputs[1].size)
    return [(array.dtype.str, array.shape) for array in widest]


class _Side:
    """One of the two programs, loaded and warm in its process."""

    def __init__(
        self,
        process: ProgramProcess,
        shape: Shape,
        draw: _Loads,
        layout: Layout,
        calls: int,
        findings: Findings,
    ) -> None:
        self.findings = findings
        self._process = process
        self._shape = shape
        self._draw = draw
        self._calls = calls
        self._rounds, self._short, self._example = 0, 0, ""
        self._transport = process.transport(draw((draw.seed, 6), calls), layout)
        process.load()
        for number in range(WARM_ROUNDS):
            process.call(draw((draw.seed, 0, number), calls), shape)

    def round(self, values: Seed) -> float:
        """Seconds of a call, the mean of one round, on values that follow from `values`."""
        done = self._process.call(self._draw(values, self._calls), self._shape)
        ours, theirs = done.wall_s - self._transport.of(done.output_bytes), sum(done.child_s)
        least = ours - self._transport.slack_s
        self._rounds += 1
        if theirs < (1 - DISAGREE_SHARE) * least and least - theirs > DISAGREE_S:
            self._short += 1
            self._example = f"the child tells {theirs * 1e3:.1f} ms of a round that took {least * 1e3:.1f} ms or more"
        for outputs in done.outputs:
            try:
                check_placement(*outputs, self._shape)
            except PlacementError as error:
                self.findings.add("invalid output", str(error))
        return max(theirs, least if self._process.track == "device" else ours) / self._calls

    def finish(self) -> None:
        """Look at what only all rounds together tell."""
        if self._short >= max(self._rounds / 2, DISAGREE_ROUNDS):
            self.findings.add("clocks disagree", f"{self._example}, {self._short} of {self._rounds} rounds are such")
        self._compare_with_single_calls()

    def _compare_with_single_calls(self) -> None:
        """The answers of calls in a row must be those of the same calls one by one."""
        weights = self._draw((self._draw.seed, 7), max(self._calls, 2))
        together = self._process.call(weights, self._shape).outputs
        alone = [self._process.call([weight], self._shape).outputs[0] for weight in weights]
        different = sum(not _equal(outputs, other) for outputs, other in zip(together, alone, strict=True))
        if different:
            text = f"{different} of {len(weights)} answers of calls in a row are others one by one"
            self.findings.add("differing answers", text)


def _equal(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
