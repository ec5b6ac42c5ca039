"""What a run is made of: the job, the zones' recorded or generated markets, and what a move between regions costs.

Times are whole seconds and ticks are gaps of `Job.gap_s`, so that deadlines are decided in exact arithmetic.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

NONE, SPOT, ON_DEMAND = 0, 1, 2
"""What runs during a gap, and what a decision asks for."""

HOUR_S = 3600


@dataclass(frozen=True, slots=True)
class Migration:
    """What it takes to bring the newest checkpoint into another region. Within a region it costs nothing.

    Regions are zones without their last letter (us-east-1a lies in us-east-1): a zone of the same region reads the
    checkpoint from the region's object store, which is free and part of every restart.
    """

    checkpoint_gb: float = 21.0
    """GPT-2 XL, 1.5e9 parameters at 14 bytes: half precision weights, full precision copy, two moments of Adam."""
    egress_usd_per_gb: float = 0.02
    """The published price of AWS for data from one region of the United States to another."""
    bandwidth_gbit_s: float = 5.0
    """What AWS lets a single instance send out of its region."""

    @property
    def egress_usd(self) -> float:
        """Dollars per move into another region: 0.42 by default."""
        return self.checkpoint_gb * self.egress_usd_per_gb

    @property
    def transfer_s(self) -> int:
        """Seconds by which a restart in another region takes longer, rounded up: 34 by default."""
        return int(np.ceil(self.checkpoint_gb * 8.0 / self.bandwidth_gbit_s))


@dataclass(frozen=True, slots=True)
class Job:
    """A job that must be done by its deadline. Raises ValueError when that is impossible even on demand."""

    gap_s: int
    duration_s: int
    deadline_s: int
    restart_s: int

    def __post_init__(self) -> None:
        if min(self.gap_s, self.duration_s) <= 0 or self.restart_s < 0:
            raise ValueError("gap and duration must be positive, the restart overhead not negative")
        if self.on_demand_ticks > self.deadline_ticks:
            raise ValueError("the job cannot be done by its deadline, even on demand from the first tick on")

    @property
    def deadline_ticks(self) -> int:
        """Gaps that end by the deadline."""
        return self.deadline_s // self.gap_s

    @property
    def on_demand_ticks(self) -> int:
        """Gaps that one instance needs that is never lost: no run takes fewer."""
        return -(-(self.duration_s + self.restart_s) // self.gap_s)


@dataclass(frozen=True, slots=True, eq=False)
class Market:
    """What spot instances do and cost in each zone at each tick.

    `available` is bool and `spot_usd_h` float64, both of shape [zones, ticks]; `on_demand_usd_h` float64 [zones].
    A price counts only where spot is available. Raises ValueError when shapes, names or prices do not fit.
    """

    zones: tuple[str, ...]
    available: NDArray[np.bool_]
    spot_usd_h: NDArray[np.float64]
    on_demand_usd_h: NDArray[np.float64]
    regions: tuple[int, ...] = field(init=False)
    """For each zone a number of its region, from 0 in order of appearance."""

    def __post_init__(self) -> None:
        shape = (len(self.zones), self.available.shape[-1])
        if self.available.shape != shape or self.spot_usd_h.shape != shape or not shape[0]:
            raise ValueError(f"{len(self.zones)} zones, but tables of shape {self.available.shape}")
        if len(set(self.zones)) != shape[0] or self.on_demand_usd_h.shape != (shape[0],):
            raise ValueError("zones need names of their own and an on-demand price each")
        if not (np.all(self.spot_usd_h > 0) and np.all(self.on_demand_usd_h > 0)):
            raise ValueError("prices must be positive")
        names = [region_of(zone) for zone in self.zones]
        numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
        object.__setattr__(self, "regions", tuple(numbers[name] for name in names))

    @property
    def ticks(self) -> int:
        return int(self.available.shape[1])


def region_of(zone: str) -> str:
    """The region of a zone: `us-east-1` of `us-east-1a_v100_1`."""
    name = zone.partition("_")[0]
    return name[:-1] if name[-1:].isalpha() and name[-2:-1].isdigit() else name


@dataclass(frozen=True, slots=True, eq=False)
class Scenario:
    """One run: a job in a market, with the rules' settings."""

    id: str
    """`<scenario>/<index>`: runs of one scenario are averaged before scenarios are."""
    job: Job
    market: Market
    migration: Migration = Migration()

    def __post_init__(self) -> None:
        if self.market.ticks < self.job.deadline_ticks:
            raise ValueError(
                f"{self.id}: {self.market.ticks} ticks of trace, {self.job.deadline_ticks} to the deadline"
            )

    def digest(self) -> str:
        """A name of the content: equal for equal problems, whatever the run is called."""
        parts = (self.market.zones, self.market.available.tobytes(), self.market.spot_usd_h.tobytes())
        rest = (self.market.on_demand_usd_h.tobytes(), self.job, self.migration)
        return hashlib.sha256(repr((*parts, *rest)).encode()).hexdigest()[:16]

    def opening(self) -> dict[str, Any]:
        """What a candidate is told once, before its first tick."""
        job, migration = self.job, self.migration
        return {
            "zones": list(self.market.zones),
            "on_demand_usd_h": self.market.on_demand_usd_h,
            "gap_s": job.gap_s,
            "duration_s": job.duration_s,
            "deadline_s": job.deadline_s,
            "restart_s": job.restart_s,
            "egress_usd": migration.egress_usd,
            "transfer_s": migration.transfer_s,
        }
