"""Solution Selector: archives, parent rules, migration. Pure: values in, values out, the random generator passed in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Elite:
    """A valid candidate as the selector sees it; its program is kept elsewhere under `source` (a text ref)."""

    candidate: str
    score: float
    metrics: Mapping[str, float]
    descriptor: tuple[float, float]
    """(size, distance to the seed), see `adrs_ray.program.describe`."""
    fingerprint: str
    source: str
