"""The cases of a split: triples of workloads with what their makespans are held against.

Shared by the offline and the online task: the file is in both folders, and reads the `task.yaml` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from adrs_ray.task import Case, Split, data_file, read_spec

from . import splits
from .bound import lower_bound
from .workload import Workload

_FIRST_SEEDS = {"train": 1_000, "validation": 2_000, "test": 3_000, "stress": 4_000}
_RECORDED = ("WORKLOAD_1", "WORKLOAD_2", "WORKLOAD_3")

Triple: TypeAlias = tuple[Mapping[str, str], ...]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a triple: the parsed workloads and what they are held against, summed, in ticks."""

    workloads: tuple[Workload, ...]
    arrival: int
    """Makespans in arrival order."""
    lower_bound: int
    """Makespans that no order beats (`bound.py`)."""
    longest: int
    """Lengths of the longest transactions, the "optimum" of the leaderboard."""
    operations: int
    """Reads and writes of all transactions: the size of the case."""
    recorded: bool
    """Whether these are the public workloads."""


def cases_of(split: Split, public: Callable[[Triple], Any]) -> list[Case]:
    """The triples of a split, `public` saying what of each goes to the candidate.

    Raises UsageError when the recorded file is there with another content.
    """
    prepared = _prepared(split, _recorded() if split == "test" else None)
    return [
        Case(id=name, seed=_FIRST_SEEDS[split] + i, public=public(triple), hidden=reference)
        for i, (name, triple, reference) in enumerate(prepared)
    ]


def split_note(split: Split) -> str | None:
    """Says so when the test split is generated because the public workloads are not on this machine."""
    if split != "test" or _recorded() is not None:
        return None
    spec = read_spec(_SPEC)
    return f"generated: {spec.data[0].file} is not here (`adrs data pull {spec.name}` fetches the public workloads)"


def reference(triple: Triple, recorded: bool) -> Reference:
    """The workloads of a triple, parsed, their makespans in arrival order and their bounds."""
    workloads = tuple(Workload(texts) for texts in triple)
    return Reference(
        workloads=workloads,
        arrival=sum(w.get_opt_seq_cost(range(w.num_txns)) for w in workloads),
        lower_bound=sum(lower_bound(w) for w in workloads),
        longest=sum(w.longest_txn for w in workloads),
        operations=sum(len(txn) for w in workloads for txn in w.txns),
        recorded=recorded,
    )


_SPEC = Path(__file__).with_name("task.yaml")


@cache
def _prepared(split: Split, recorded: Path | None) -> tuple[tuple[str, Triple, Reference], ...]:
    return tuple((name, triple, reference(triple, recorded is not None)) for name, triple in _triples(split, recorded))


def _triples(split: Split, recorded: Path | None) -> Iterable[tuple[str, Triple]]:
    if recorded is not None:
        workloads = json.loads(recorded.read_text(encoding="utf-8"))
        return [("test-public", tuple(workloads[name] for name in _RECORDED))]
    generated = {
        "train": splits.train,
        "validation": splits.validation,
        "test": splits.test_stand_in,
        "stress": splits.stress,
    }
    return generated[split]().items()


def _recorded() -> Path | None:
    return data_file(read_spec(_SPEC).data[0])
