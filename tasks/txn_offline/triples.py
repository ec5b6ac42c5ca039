"""The cases of a split: triples of workloads with what their makespans are held against.

Shared by the offline and the online task: the file is in both folders, and reads the `task.yaml` beside it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from adrs_ray.task import Case, Split, data_file, read_spec

from . import splits
from .bound import lower_bound
from .workload import Workload

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
    recorded = split == "test" and _recorded() is not None
    triples, first_seed = _triples(split)
    return [
        Case(id=name, seed=first_seed + i, public=public(triple), hidden=reference(triple, recorded))
        for i, (name, triple) in enumerate(triples.items())
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


def _triples(split: Split) -> tuple[Mapping[str, Triple], int]:
    """The triples by name, and the seed of the first; each further one has the next."""
    if split == "train":
        return splits.train(), 1_000
    if split == "validation":
        return splits.validation(), 2_000
    if split == "stress":
        return splits.stress(), 4_000
    path = _recorded()
    if path is None:
        return splits.test_stand_in(), 3_000
    recorded = json.loads(path.read_text(encoding="utf-8"))
    return {"test-public": tuple(recorded[name] for name in _RECORDED)}, 3_000


def _recorded() -> Path | None:
    return data_file(read_spec(_SPEC).data[0])
