"""The trusted side: cases, recomputed makespans and the score of a split.

A case is a triple of workloads. Let B be the sum of their makespans in arrival order, M that of the candidate's
schedules and L that of proven lower bounds (`Workload.lower_bound`). Its improvement is (B - M) / (B - L): 0 is arrival
order, 1 cannot be beaten, below 0 is worse than doing nothing. The score of a split is the mean improvement of its
cases.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from adrs_ray.task import (
    Case,
    CaseResult,
    Combined,
    DataFile,
    InvalidOutput,
    MalformedOutput,
    Split,
    data_file,
    read_spec,
)

from . import splits
from .workload import Workload

_RECORDED = ("WORKLOAD_1", "WORKLOAD_2", "WORKLOAD_3")


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a triple: the parsed workloads and what they are held against, summed, in ticks."""

    workloads: tuple[Workload, ...]
    arrival: int
    """Makespans in arrival order."""
    lower_bound: int
    longest: int
    """Lengths of the longest transactions, the "optimum" of the leaderboard."""
    recorded: bool
    """Whether these are the public workloads."""


def cases(split: Split) -> list[Case]:
    """The triples of a split. Raises UsageError when the recorded file is there with another content."""
    if split == "train":
        return _cases(splits.train(), 1_000)
    if split == "validation":
        return _cases(splits.validation(), 2_000)
    if split == "stress":
        return _cases(splits.stress(), 4_000)
    path = data_file(_data())
    if path is None:
        return _cases(splits.test_stand_in(), 3_000)
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return [_case("test-public", 3_000, tuple(recorded[name] for name in _RECORDED), recorded=True)]


def split_note(split: Split) -> str | None:
    """Says so when the test split is generated because the public workloads are not on this machine."""
    if split != "test" or data_file(_data()) is not None:
        return None
    return f"generated: {_data().file} is not here (`adrs data pull txn_offline` fetches the public workloads)"


def score(case: Case, raw: Any) -> dict[str, float]:
    """Makespans in ticks of one triple and what follows from them; the candidate's own figures are not read.

    Raises MalformedOutput when `raw` is not three lists and InvalidOutput when one is no permutation of the ids.
    """
    reference: Reference = case.hidden
    schedules = raw.get("schedules") if isinstance(raw, Mapping) else None
    if not isinstance(schedules, list | tuple):
        raise MalformedOutput("expected {'schedules': [three lists of transaction ids]}")
    if len(schedules) != len(reference.workloads):
        raise MalformedOutput(f"expected {len(reference.workloads)} schedules, one per workload, got {len(schedules)}")
    makespans = [
        workload.get_opt_seq_cost(_permutation(schedule, workload.num_txns, f"workload {i}"))
        for i, (workload, schedule) in enumerate(zip(reference.workloads, schedules, strict=True), start=1)
    ]
    total = sum(makespans)
    return {
        **{f"makespan_{i}": float(makespan) for i, makespan in enumerate(makespans, start=1)},
        "makespan": float(total),
        "arrival_makespan": float(reference.arrival),
        "lower_bound": float(reference.lower_bound),
        "improvement": (reference.arrival - total) / (reference.arrival - reference.lower_bound),
        "leaderboard_formula": leaderboard_formula(total, reference.arrival, reference.longest),
        "leaderboard_coverage": 100.0 if reference.recorded else 0.0,
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases of a split; `cpu_s` is their sum. The score is the mean improvement."""
    names = results[0].metrics
    metrics = {name: fmean(result.metrics[name] for result in results) for name in names}
    metrics["cpu_s"] = sum(result.cpu_s for result in results)
    lines = [f"{'case':<20} {'makespans':>16} {'sum':>6} {'arrival':>8} {'bound':>6} {'improvement':>12}"]
    for result in results:
        m = result.metrics
        parts = " + ".join(f"{m[f'makespan_{i}']:.0f}" for i in (1, 2, 3))
        lines.append(
            f"{result.case:<20} {parts:>16} {m['makespan']:>6.0f} {m['arrival_makespan']:>8.0f}"
            f" {m['lower_bound']:>6.0f} {m['improvement']:>12.4f}"
        )
    return Combined(score=metrics["improvement"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def leaderboard_formula(makespan: float, arrival: float, longest: float) -> float:
    """The ADRS leaderboard's score, 0..100: 100 at or below E = O + 0.10 (B - O), 0 at or above arrival order B.

    Comparable with published numbers only on the public triple (metric `leaderboard_coverage` = 100).
    """
    good = longest + 0.10 * (arrival - longest)
    return 100.0 * min(1.0, max(0.0, (arrival - makespan) / (arrival - good)))


def _permutation(schedule: Any, txns: int, where: str) -> list[int]:
    if isinstance(schedule, np.ndarray) and schedule.ndim == 1:
        schedule = schedule.tolist()
    if isinstance(schedule, str):
        raise MalformedOutput(f"{where}: {schedule[:200]}")
    if not isinstance(schedule, list | tuple):
        raise MalformedOutput(f"{where}: the schedule is a {type(schedule).__name__}, expected a list of ids")
    seen: set[int] = set()
    for index, txn in enumerate(schedule):
        if type(txn) is not int:
            raise InvalidOutput(
                f"{where}: schedule[{index}] is {repr(txn)[:80]} ({type(txn).__name__}), expected an int"
            )
        if not 0 <= txn < txns:
            raise InvalidOutput(f"{where}: schedule[{index}] is {repr(txn)[:80]}, expected an id in 0..{txns - 1}")
        if txn in seen:
            raise InvalidOutput(f"{where}: schedule[{index}] names transaction {txn} a second time")
        seen.add(txn)
    if len(seen) != txns:
        missing = next(txn for txn in range(txns) if txn not in seen)
        raise InvalidOutput(f"{where}: {len(seen)} of {txns} transactions scheduled, {missing} is missing")
    return list(schedule)


def _cases(triples: Mapping[str, splits.Triple], first_seed: int) -> list[Case]:
    return [_case(name, first_seed + i, triple, recorded=False) for i, (name, triple) in enumerate(triples.items())]


def _case(name: str, seed: int, triple: tuple[Mapping[str, str], ...], recorded: bool) -> Case:
    workloads = tuple(Workload(texts) for texts in triple)
    reference = Reference(
        workloads=workloads,
        arrival=sum(w.get_opt_seq_cost(range(w.num_txns)) for w in workloads),
        lower_bound=sum(w.lower_bound() for w in workloads),
        longest=sum(w.longest_txn for w in workloads),
        recorded=recorded,
    )
    return Case(id=name, seed=seed, public={"workloads": [dict(texts) for texts in triple]}, hidden=reference)


def _data() -> DataFile:
    return read_spec(Path(__file__).with_name("task.yaml")).data[0]
