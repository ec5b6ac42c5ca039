"""Spot traces: the recorded ones, and generated ones that alternate between spells with and without spot.

Spells of the generated traces form an alternating renewal process: the lengths of spells with and without spot are
drawn independently from two log-normal distributions, in whole gaps. Their spread is wide (many spells of minutes, some
of half a day), as spot markets show; the eight numbers of `ENVIRONMENTS` are shares and mean spells near those of the
four environments of the public traces (us-west-2, October 2022). Nothing else of the recordings is used.
"""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

GAP_S = 600.0
TASK_S = 48 * 3600.0
DEADLINES_H = (52, 70, 92)
OVERHEADS_S = (72, 720, 1440)
SETTINGS = tuple((deadline * 3600.0, float(overhead)) for deadline in DEADLINES_H for overhead in OVERHEADS_S)
"""(deadline, overhead) in seconds of the nine public settings."""

TRACE_GAPS = 554
"""Gaps of a public trace: 92 hours and two."""

ENVIRONMENTS = {
    "plentiful": (0.95, 5.0),
    "common": (0.67, 2.5),
    "even": (0.52, 1.7),
    "scarce": (0.20, 1.3),
}
"""Share of gaps with spot, mean length in hours of a spell with spot."""

_SPREAD = 1.2
"""Standard deviation of the logarithm of a spell's length."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One trace with the jobs that are run on it."""

    id: str
    seed: int
    available: NDArray[np.bool_]
    """Whether spot can run, by gap."""
    settings: tuple[tuple[float, float], ...] = SETTINGS
    """(deadline, overhead) of each run, in seconds."""
    gap_s: float = GAP_S
    task_s: float = TASK_S
    environment: str | None = None
    """Of a recorded trace."""


def recorded(path: Path) -> list[Trace]:
    """The public traces, in the evaluator's order. The checksum of the file has been verified by `data_file`."""
    content = json.loads(gzip.decompress(path.read_bytes()))
    found: list[Trace] = []
    for environment, traces in content["environments"].items():
        for trace in traces:
            available = np.frombuffer(trace["unavailable"].encode("ascii"), np.uint8) == ord("0")
            name = f"{environment}-{trace['trace_id']}"
            found.append(Trace(name, 3_000 + len(found), available, environment=environment))
    return found


def spells(rng: np.random.Generator, share: float, on_h: float, gaps: int = TRACE_GAPS) -> NDArray[np.bool_]:
    """A trace in which spot is there a `share` of the time, in spells of `on_h` hours on average."""
    off_h = on_h * (1 - share) / share
    has_spot = bool(rng.random() < share)
    pieces: list[NDArray[np.bool_]] = []
    total = 0
    while total < gaps:
        mean_gaps = (on_h if has_spot else off_h) * 3600 / GAP_S
        location = math.log(mean_gaps) - _SPREAD**2 / 2
        length = max(1, min(gaps, math.ceil(float(rng.lognormal(location, _SPREAD)) - 0.5)))
        pieces.append(np.full(length, has_spot))
        total += length
        has_spot = not has_spot
    return np.concatenate(pieces)[:gaps]


def generated(split: str, first_seed: int, counts: dict[str, int]) -> list[Trace]:
    """Traces by environment; share and mean spell of each trace vary about those of its environment."""
    traces: list[Trace] = []
    for environment, count in counts.items():
        share, on_h = ENVIRONMENTS[environment]
        for index in range(count):
            seed = first_seed + len(traces)
            rng = np.random.default_rng(seed)
            odds = share / (1 - share) * math.exp(rng.normal(0.0, 0.35))
            varied_h = on_h * math.exp(rng.normal(0.0, 0.35))
            available = spells(rng, odds / (1 + odds), varied_h)
            traces.append(Trace(f"{split}-{environment}-{index}", seed, available))
    return traces
