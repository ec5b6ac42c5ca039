"""The bench of balancers: every baseline and every given program, on every regime and shape.

Balance is averaged over transitions from one window to the next: a placement is made from a window and scored on it and
on the one after; snapshots that were recorded apart have no next window. Time is that of a call beside `heap_lpt`.
Baselines are called in this process (`gpu_eval.timing`), given programs in processes of their own, on this one's clock
(`gpu_eval.program`). What raises, or answers with something else than a placement, keeps its row, and the row says why.
Interrupted, a run gives the rows that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpu_eval.balance import measure
from gpu_eval.bounds import gpu_bound, slot_bound
from gpu_eval.environment import environment
from gpu_eval.error_text import one_line, typed_line
from gpu_eval.invariants import check_placement
from gpu_eval.recorded import fitted, load_recorded
from gpu_eval.registry import BASELINES, Baseline
from gpu_eval.results import Device, EplbRow, Interval, Kind, Results, Source
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.workloads import REGIMES, LoadTrace, generate, regime_named

Ints = NDArray[np.int64]
Told = Callable[[str], None]
YARDSTICK = "heap_lpt"
"""What every program is timed beside; where it cannot be loaded, beside `paper_zigzag`, which needs torch alone."""


@dataclass(frozen=True, slots=True)
class EplbOptions:
    """What to measure. `loads`: a recorded file in place of the regimes."""

    device: Device = "cpu"
    regimes: tuple[str, ...] = tuple(REGIMES)
    shapes: tuple[Shape, ...] = SHAPES
    baselines: tuple[str, ...] = tuple(BASELINES)
    programs: tuple[Path, ...] = ()
    loads: Path | None = None
    entries_per_window: int | None = None
    """Of a recorded series that counts in smaller pieces."""
    traces: int = 4
    """Generated per regime and shape, each of two windows: chains of one trace resemble each other too much."""
    seed: int = 0
    limit_s: float = 5.0
    """Seconds that one row's timing may take while its resolution is not reached."""
    launcher: tuple[str, ...] = ()
    """The command that starts a program's process; empty: plain Python, without a jail."""


@dataclass(frozen=True, slots=True)
class Timed:
    """What a call takes and what was noticed."""

    milliseconds: Interval
    findings: tuple[str, ...] = ()


class Rule(Protocol):
    """Something that places experts."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> Kind: ...

    @property
    def grouped(self) -> tuple[bool, ...]:
        """Whether it is asked with groups kept on nodes, without, or both."""
        ...

    def answers(self, weights: Ints, shape: Shape, grouped: bool) -> Sequence[tuple[Any, Any, Any]]:
        """The three maps for each of `weights` [W, L, E]. Raises ValueError, one line, when there is none."""
        ...

    def timed(self, weights: Ints, shape: Shape, grouped: bool, device: Device) -> Timed:
        """Its time beside the yardstick. Raises ValueError, one line, when it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Loads and the shape that they are placed in."""

    name: str
    source: Source
    seen: Ints
    """[W, L, E]: what placements are made from."""
    after: Ints | None
    """[W, L, E]: the windows after them; None for snapshots."""
    shape: Shape
    grouped: bool
    bounds: Mapping[str, float]
    """Of a row's balances, by its fields: the same for all rules."""

    @classmethod
    def of(cls, traces: Sequence[LoadTrace], shape: Shape, grouped: bool) -> Problem:
        """Traces of one regime, all series or all snapshots."""
        series = traces[0].windows > 1
        seen = _joined(traces, slice(None, -1) if series else slice(None))
        after = _joined(traces, slice(1, None)) if series else None
        bounds = _bounds(seen, after, shape, grouped)
        return cls(traces[0].name, traces[0].source, seen, after, shape, grouped, bounds)


def _joined(traces: Sequence[LoadTrace], windows: slice) -> Ints:
    return np.concatenate([trace.counts[windows] for trace in traces])


def _bounds(seen: Ints, after: Ints | None, shape: Shape, grouped: bool) -> dict[str, float]:
    bounds = {
        "gpu_bound": float(np.mean([gpu_bound(loads, shape, grouped) for loads in seen])),
        "slot_bound": float(np.mean([slot_bound(loads, shape, grouped) for loads in seen])),
    }
    if after is not None:
        bounds["next_bound"] = float(np.mean([gpu_bound(loads, shape, grouped) for loads in after]))
    return bounds


def run(options: EplbOptions, told: Told = lambda line: None) -> Results:
    """Measure all. `told` hears a line per row. Raises ValueError, one line, for options that name nothing."""
    from gpu_eval.bench_rules import rules

    about = environment(options.device)
    all_problems = list(problems(options))
    rows: list[EplbRow] = []
    interrupted = False
    try:
        for rule in rules(options):
            for problem in all_problems:
                if problem.grouped in rule.grouped:
                    row = measured(rule, problem, options.device)
                    told(_line(row))
                    rows.append(row)
    except KeyboardInterrupt:
        if not rows:
            raise
        interrupted = True
    return Results(
        bench="eplb",
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device=options.device,
        environment=about,
        settings={
            "seed": options.seed,
            "traces": 1 if options.loads else options.traces,
            "timed beside": yardstick().name,
            "programs": "none" if not options.programs else "in a jail" if options.launcher else "without a jail",
        }
        | ({"interrupted": f"after {len(rows)} rows"} if interrupted else {}),
        eplb=tuple(sorted(rows, key=lambda row: (row.source, row.regime, row.shape, row.grouped, row.kind))),
    )


def yardstick() -> Baseline:
    """The baseline that all are timed beside."""
    try:
        BASELINES[YARDSTICK].load()
    except ValueError:
        return BASELINES["paper_zigzag"]
    return BASELINES[YARDSTICK]


def problems(options: EplbOptions) -> Iterator[Problem]:
    """Every trace in every shape that fits it, with groups on their nodes where they can be, and free.

    Raises ValueError for an unknown regime, and for recorded loads that fit none of the shapes.
    """
    if options.loads is None:
        for shape in options.shapes:
            for name in options.regimes:
                seeds = [[options.seed, number] for number in range(options.traces)]
                yield from _both(
                    [generate(regime_named(name), shape.layers, shape.experts, 2, seed) for seed in seeds], shape
                )
        return
    for trace in load_recorded(options.loads, options.entries_per_window):
        for shape in fitted(options.shapes, trace, options.loads):
            yield from _both([trace], shape)


def _both(traces: Sequence[LoadTrace], shape: Shape) -> Iterator[Problem]:
    if shape.local_groups and shape.nodes > 1:
        yield Problem.of(traces, shape, True)
    yield Problem.of(traces, shape, False)


def measured(rule: Rule, problem: Problem, device: Device) -> EplbRow:
    """The row of one rule on one problem; never raises for what the rule does."""
    shape, grouped = problem.shape, problem.grouped
    try:
        placed = []
        for answer in rule.answers(problem.seen, shape, grouped):
            check_placement(*answer, shape)
            placed.append(np.asarray(answer[0], np.int64))
        host = rule.timed(problem.seen, shape, grouped, "cpu")
    except Exception as error:
        return _row(rule, problem, status=_said(error))
    on_device, findings = None, host.findings
    if device == "cuda":
        try:
            on_device = rule.timed(problem.seen, shape, grouped, "cuda")
            findings += on_device.findings
        except Exception as error:
            findings += (f"not timed on the device: {_said(error)}",)
    return _row(
        rule,
        problem,
        **_balances(problem, placed),
        host_ms=host.milliseconds,
        device_ms=None if on_device is None else on_device.milliseconds,
        findings=findings,
    )


def _said(error: Exception) -> str:
    """One line; what is no ValueError is told with its type, since its text was not written for a reader."""
    return one_line(error) if isinstance(error, ValueError) else typed_line(error)


def _balances(problem: Problem, placed: Sequence[Ints]) -> dict[str, Any]:
    shape = problem.shape
    same = [measure(each, loads, shape) for each, loads in zip(placed, problem.seen, strict=True)]
    figures: dict[str, Any] = {
        "same_balance": float(np.mean([each.gpu for each in same])),
        "paper_balancedness": float(np.mean([each.slot for each in same])),
        "duplicates": sum(each.duplicates for each in same),
        "group_violations": sum(each.group_violations for each in same) if problem.grouped else None,
        **problem.bounds,
    }
    if problem.after is not None:
        after = [measure(each, loads, shape).gpu for each, loads in zip(placed, problem.after, strict=True)]
        figures["next_balance"] = float(np.mean(after))
    return figures


def _row(rule: Rule, problem: Problem, **figures: Any) -> EplbRow:
    return EplbRow(
        program=rule.name,
        kind=rule.kind,
        source=problem.source,
        regime=problem.name,
        shape=problem.shape.name,
        grouped=problem.grouped,
        **figures,
    )


def _line(row: EplbRow) -> str:
    where = f"{row.program} on {row.regime} {row.shape}{' in groups' if row.grouped else ''}"
    if row.same_balance is None or row.host_ms is None:
        return f"{where}: {row.status}"
    return f"{where}: balance {row.same_balance:.4f} of {row.gpu_bound:.4f}, {row.host_ms.median:.3g} ms"
