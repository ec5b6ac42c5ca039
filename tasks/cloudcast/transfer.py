"""What a broadcast costs: the sound rules, from the network and the plan alone.

A plan lists, for every destination and partition, links. A link carries each partition that is listed on it once,
however many destinations it serves. All links in use run at the same time until the slowest has ended:

- flow of a link = its throughput, but at most (egress limit / links in use out of its start) where the throughputs of
  those links exceed that limit together, and at most (ingress limit / links in use into its end) likewise;
- time = max over links of (partitions on it) x (GB per partition) x 8 / flow;
- cost = sum over links of (partitions on it) x (GB per partition) x price, plus for every region in use
  NUM_VMS x 0.54 USD per hour x time.

All limits look at throughputs, none at what another limit has left: so the flows do not depend on an order, and no
limit is exceeded (n links of at most limit / n each, or links that keep within it together).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .network import NUM_VMS, Floats, Ints, Network

USD_PER_VM_HOUR = 0.54
USD_PER_REGION_SECOND = NUM_VMS * (USD_PER_VM_HOUR / 3600)


class BrokenPlanError(ValueError):
    """A plan that is no broadcast; the message says where."""


@dataclass(frozen=True)
class Job:
    """Send `data_vol` GB, cut in `partitions`, from `source` to every one of `destinations`."""

    network: Network
    source: str
    destinations: tuple[str, ...]
    data_vol: float
    partitions: int
    ingress_limit: Mapping[str, float]
    """Gbit/s into one virtual machine, by provider."""
    egress_limit: Mapping[str, float]
    """Gbit/s out of one virtual machine, by provider."""

    @cached_property
    def index(self) -> dict[str, int]:
        """The index of a region by its name."""
        return {region: i for i, region in enumerate(self.network.regions)}

    @cached_property
    def matrices(self) -> tuple[Floats, Floats]:
        """Cost and throughput between regions, NaN where there is no link."""
        return self.network.matrices()

    @cached_property
    def limits(self) -> tuple[Floats, Floats]:
        """Gbit/s into and out of each region, all its machines together."""
        providers = self.network.providers()
        return (
            np.array([NUM_VMS * self.ingress_limit[p] for p in providers], dtype=np.float64),
            np.array([NUM_VMS * self.egress_limit[p] for p in providers], dtype=np.float64),
        )

    @property
    def ends(self) -> Ints:
        """Indices of the destinations, in order."""
        return np.array([self.index[d] for d in self.destinations], dtype=np.int64)

    def direct(self) -> Ints:
        """The plan that sends every partition straight from the source to each destination."""
        plan = [
            (j, p, self.index[self.source], self.index[d])
            for j, d in enumerate(self.destinations)
            for p in range(self.partitions)
        ]
        return np.array(plan, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a plan takes: USD, seconds, and counts of regions and links in use."""

    egress_cost: float
    instance_cost: float
    time_s: float
    regions: int
    links: int

    @property
    def cost(self) -> float:
        return self.egress_cost + self.instance_cost


def transfer(job: Job, plan: Ints) -> Transfer:
    """Check and price a plan: rows (position in `job.destinations`, partition, from region, to region).

    Positions and partitions must be in range; order and repetition of rows do not matter. Raises BrokenPlanError for
    a link that the network lacks, and for a destination that a partition does not reach over its own rows.
    """
    cost, throughput = job.matrices
    lacking = np.isnan(cost[plan[:, 2], plan[:, 3]])
    if lacking.any():
        a, b = plan[int(np.argmax(lacking)), 2:]
        raise BrokenPlanError(f"there is no link from {job.network.regions[a]!r} to {job.network.regions[b]!r}")
    _check_arrival(job, plan)

    count = len(job.network.regions)
    carried = np.unique((plan[:, 2] * count + plan[:, 3]) * job.partitions + plan[:, 1])
    links, loads = np.unique(carried // job.partitions, return_counts=True)
    tails, heads = links // count, links % count
    gb = loads * (job.data_vol / job.partitions)
    time_s = float((gb * 8 / _flows(job, tails, heads, throughput[tails, heads])).max())
    regions = len(np.unique(np.concatenate([tails, heads])))
    return Transfer(
        egress_cost=float((gb * cost[tails, heads]).sum()),
        instance_cost=regions * USD_PER_REGION_SECOND * time_s,
        time_s=time_s,
        regions=regions,
        links=len(links),
    )


def _flows(job: Job, tails: Ints, heads: Ints, throughput: Floats) -> Floats:
    """Gbit/s of each link in use."""
    count = len(job.network.regions)
    flows = throughput.copy()
    for ends, limit in zip((heads, tails), job.limits, strict=True):
        wanted = np.bincount(ends, throughput, minlength=count)
        number = np.bincount(ends, minlength=count)
        share = np.where(wanted > limit, limit / np.maximum(number, 1), np.inf)
        np.minimum(flows, share[ends], out=flows)
    return flows


def _check_arrival(job: Job, plan: Ints) -> None:
    """Every destination is reached from the source over the rows of its own, for each partition."""
    reached = np.zeros((len(job.destinations) * job.partitions, len(job.network.regions)), dtype=np.bool_)
    reached[:, job.index[job.source]] = True
    share = plan[:, 0] * job.partitions + plan[:, 1]
    tails, heads = plan[:, 2], plan[:, 3]
    while True:
        new = reached[share, tails] & ~reached[share, heads]
        if not new.any():
            break
        reached[share[new], heads[new]] = True
    arrived = reached[np.arange(len(reached)), np.repeat(job.ends, job.partitions)]
    if not arrived.all():
        position, partition = divmod(int(np.argmin(arrived)), job.partitions)
        listed = int((share == position * job.partitions + partition).sum())
        why = f"its {listed} edges lead from the source elsewhere" if listed else "no edges are listed for it"
        raise BrokenPlanError(f"partition {partition} does not arrive at {job.destinations[position]!r}: {why}")
