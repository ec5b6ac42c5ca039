"""Reads what the adapter handed out, for both judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from adrs_ray.task import InvalidOutput, MalformedOutput

from .network import Floats, Ints
from .transfer import Job

UNSET = -1


@dataclass(frozen=True, slots=True)
class Answer:
    """A topology as it came back. Its names may be of regions that do not exist."""

    regions: tuple[str, ...]
    destinations: Ints
    """Indices into `regions`, in the topology's order."""
    counts: Ints
    """(destinations, partitions): edges listed, UNSET where there is no list."""
    edges: Ints
    """(edges, 2) indices into `regions`, in the order of destinations, partitions and lists."""
    data: Floats | None
    """(edges, 2) cost and throughput as the answer tells them, if it was asked."""


def parse(raw: Any, partitions: int) -> Answer:
    """The answer in `raw`. Raises MalformedOutput when it is none."""
    if not isinstance(raw, Mapping):
        raise MalformedOutput("expected the arrays of a topology")
    if isinstance(raw.get("problem"), str):
        raise MalformedOutput(raw["problem"])
    regions = raw.get("regions")
    if not isinstance(regions, list | tuple) or not all(isinstance(name, str) for name in regions):
        raise MalformedOutput("regions is no list of names")
    if len(set(regions)) != len(regions):
        raise MalformedOutput("regions names one twice")
    destinations = _ints(raw, "destinations", (None,), len(regions))
    counts = _ints(raw, "counts", (len(destinations), partitions), None)
    listed = int(np.maximum(counts, 0).sum())
    edges = _ints(raw, "edges", (listed, 2), len(regions))
    data = raw.get("data")
    if data is not None and not (
        isinstance(data, np.ndarray) and data.dtype == np.float64 and data.shape == (listed, 2)
    ):
        raise MalformedOutput(f"data is no array of {listed} x 2 numbers")
    return Answer(tuple(regions), destinations, counts, edges, data)


def _ints(raw: Mapping[str, Any], name: str, shape: tuple[int | None, ...], below: int | None) -> Ints:
    array = raw.get(name)
    if not isinstance(array, np.ndarray) or array.dtype != np.int64 or array.ndim != len(shape):
        raise MalformedOutput(f"{name} is no array of integers in {len(shape)} dimensions")
    if any(wanted not in (None, found) for wanted, found in zip(shape, array.shape, strict=True)):
        raise MalformedOutput(f"{name} has shape {array.shape}, expected {shape}")
    low, high = (0, below - 1) if below is not None else (UNSET, 10**9)
    if array.size and not (low <= array.min() and array.max() <= high):
        raise MalformedOutput(f"{name} has an entry outside {low}..{high}")
    return array


def plan(answer: Answer, job: Job) -> Ints:
    """The rows that `transfer` takes. Raises InvalidOutput for a region or destination that the job does not have."""
    index = job.index
    for name in answer.regions:
        if name not in index:
            raise InvalidOutput(f"there is no region {name[:80]!r} in the network")
    positions = {destination: i for i, destination in enumerate(job.destinations)}
    for i in answer.destinations.tolist():
        if answer.regions[i] not in positions:
            raise InvalidOutput(f"paths has {answer.regions[i]!r}, which is no destination")
    region = np.array([index[name] for name in answer.regions], dtype=np.int64)
    position = np.array([positions[answer.regions[i]] for i in answer.destinations.tolist()], dtype=np.int64)
    counts = np.maximum(answer.counts, 0)
    partitions = np.tile(np.arange(job.partitions), len(position))
    rows = np.empty((len(answer.edges), 4), dtype=np.int64)
    rows[:, 0] = np.repeat(position, counts.sum(axis=1))
    rows[:, 1] = np.repeat(partitions, counts.ravel())
    rows[:, 2:] = region[answer.edges]
    return rows
