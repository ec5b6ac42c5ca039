"""The trusted side: streams of transactions, their referee, and the recomputed makespans of what was chosen.

The referee alone knows what has yet to arrive. A candidate's process is told of a transaction when it
enters the buffer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Split

from .scoring import combine_cases, figures
from .stream import BUFFER_SIZE, Ints, message, parts
from .triples import Reference, Triple, cases_of, split_note
from .workload import Workload

__all__ = ["cases", "combine", "referee", "score", "split_note"]


def cases(split: Split) -> list[Case]:
    """Triples of streams, those of the offline task in arrival order.

    What the candidate learns, the referee tells it: `public` is a digest that tells cases apart, and is sent to nobody.
    Raises UsageError when the recorded file is there with another content.
    """
    return cases_of(split, _digest)


def _digest(triple: Triple) -> str:
    return hashlib.sha256(json.dumps([dict(texts) for texts in triple]).encode()).hexdigest()


def referee(case: Case) -> Generator[Ints, Any, dict[str, list[list[int]]]]:
    """Plays the three streams of a case one after the other; gives {"schedules": three lists of ids}.

    Raises InvalidOutput when the candidate names what is not in the buffer, MalformedOutput when it names nothing.
    """
    reference: Reference = case.hidden
    schedules = []
    for number, workload in enumerate(reference.workloads, start=1):
        schedules.append((yield from _stream(workload, f"workload {number}")))
    return {"schedules": schedules}


def _stream(workload: Workload, where: str) -> Generator[Ints, Any, list[int]]:
    transactions = parts(workload)
    arrived = min(BUFFER_SIZE, workload.num_txns)
    pending = set(range(arrived))
    schedule: list[int] = []
    observation = message(True, transactions[:arrived])
    while pending:
        chosen = _pending_id((yield observation), pending, f"{where}, step {len(schedule) + 1}")
        pending.remove(chosen)
        schedule.append(chosen)
        arriving = transactions[arrived : arrived + 1]
        observation = message(False, arriving)
        if arriving:
            pending.add(arrived)
            arrived += 1
    return schedule


def _pending_id(answer: Any, pending: set[int], where: str) -> int:
    if type(answer) is int and answer in pending:
        return answer
    if type(answer) in (int, bool, float, str):
        buffer = ", ".join(map(str, sorted(pending)))
        raise InvalidOutput(f"{where}: the choice is {repr(answer)[:100]}, expected an id of the buffer: {buffer}")
    raise MalformedOutput(f"{where}: the choice is a {type(answer).__name__}, expected the id of a pending transaction")


def score(case: Case, raw: Mapping[str, list[list[int]]]) -> dict[str, float]:
    """Makespans in ticks of one triple and what follows from them. `raw` is the referee's own."""
    reference: Reference = case.hidden
    return figures(
        reference,
        [w.get_opt_seq_cost(schedule) for w, schedule in zip(reference.workloads, raw["schedules"], strict=True)],
    )


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases of a split. The score is the mean improvement."""
    return combine_cases(results)
