"""The trusted side: cases, and recomputed makespans of a candidate's schedules; `scoring.py` says what they mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Split

from .scoring import combine_cases, figures
from .triples import Reference, Triple, cases_of, split_note

__all__ = ["cases", "combine", "permutation", "score", "split_note"]


def cases(split: Split) -> list[Case]:
    """The triples of a split. Raises UsageError when the recorded file is there with another content."""
    return cases_of(split, _public)


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
        workload.get_opt_seq_cost(permutation(schedule, workload.num_txns, f"workload {i}"))
        for i, (workload, schedule) in enumerate(zip(reference.workloads, schedules, strict=True), start=1)
    ]
    return figures(reference, makespans)


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases of a split. The score is the mean improvement."""
    return combine_cases(results)


def _public(triple: Triple) -> dict[str, Any]:
    return {"workloads": [dict(texts) for texts in triple]}


def permutation(schedule: Any, txns: int, where: str) -> list[int]:
    """`schedule` if it is a list with every id in 0..txns-1 once, as ints; `where` begins the messages.

    Raises MalformedOutput when it is no list, InvalidOutput naming the first entry that is wrong.
    """
    if isinstance(schedule, np.ndarray) and schedule.ndim == 1:
        schedule = schedule[: txns + 1].tolist()  # one id too many is enough to be wrong
    if isinstance(schedule, str):
        raise MalformedOutput(f"{where}: {schedule[:200]}")
    if not isinstance(schedule, list | tuple):
        raise MalformedOutput(f"{where}: the schedule is a {type(schedule).__name__}, expected a list of ids")
    seen: set[int] = set()
    for index, txn in enumerate(schedule):
        if type(txn) is not int:
            raise InvalidOutput(f"{where}: schedule[{index}] is {_named(txn)}, expected an int")
        if not 0 <= txn < txns:
            raise InvalidOutput(f"{where}: schedule[{index}] is {txn}, expected an id in 0..{txns - 1}")
        if txn in seen:
            raise InvalidOutput(f"{where}: schedule[{index}] names transaction {txn} a second time")
        seen.add(txn)
    if len(seen) != txns:
        missing = next(txn for txn in range(txns) if txn not in seen)
        raise InvalidOutput(f"{where}: {len(seen)} of {txns} transactions scheduled, {missing} is missing")
    return list(schedule)


def _named(entry: Any) -> str:
    """What an entry is. Containers by type alone: numpy takes minutes to print an array of two rows on 23 axes."""
    kind = type(entry).__name__
    return f"{repr(entry)[:80]} ({kind})" if isinstance(entry, bool | float | str) else f"a {kind}"
