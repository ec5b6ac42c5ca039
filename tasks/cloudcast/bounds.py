"""Proven lower bounds on the cost of a broadcast, and the table that keeps them.

Average the links of a valid plan over its partitions. With D GB of data, k destinations, prices c, and r the price of
a region and second:

- x[e], the share of the partitions that link e carries, is an average of trees from the source to all destinations;
- y[v], the share of the partitions that pass a region v that is neither source nor destination: the number of regions
  in use is n >= k + 1 + sum y;
- time T: 8 D x[e] <= throughput[e] T; summed over the links out of a region <= its egress limit x T, into it <= its
  ingress limit x T (flows keep within the limits); T >= T0, the time that one end alone needs for all data;
- cost = D sum c x + r n T >= D sum c x + r (k + 1) T + r T0 sum y.

Two relaxations of this, and the larger counts:

1. Linear program: in place of trees one unit flow f[d] per destination, f[d, e] <= x[e] <= 1, and y[v] >= what of any
   f[d] passes v. HiGHS solves it, but its answer is not believed: its multipliers, whatever they are, give a lower
   bound by weak duality over the box of the variables, which is computed here.
2. Lagrange: with any multipliers >= 0 on the limits of time, what is left falls apart in the least over T, and one
   cheapest tree under prices that hold the multipliers, which `steiner` finds exactly. The multipliers are those of
   the linear program, then follow the subgradient.

T may be boxed in, because a plan so slow that its machines alone cost more than the direct plan is above the bound
anyway.

    python -m tasks.cloudcast.bounds
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from .network import Floats, Ints
from .steiner import MOST_ENDS, cheapest_tree
from .transfer import USD_PER_REGION_SECOND, Job, transfer

TABLE = Path(__file__).with_name("bounds.json")
_SAFETY = 1e-9
"""Relative: more than rounding in the evaluation of the dual bound amounts to."""


_solved: dict[str, float] = {}
"""What this process had to solve for, by digest."""


def cost_bound(job: Job) -> float:
    """USD that no valid plan of `job` undercuts: from the table, or solved for when the table lacks these inputs."""
    key = digest(job)
    if key not in _table() and key not in _solved:
        _solved[key] = solve(job)
    return _table()[key] if key in _table() else _solved[key]


def digest(job: Job) -> str:
    """Names the inputs of a job by content."""
    sha = hashlib.sha256()
    index = job.index
    sha.update(json.dumps([index[job.source], [index[d] for d in job.destinations], len(index)]).encode())
    sha.update(np.array([job.data_vol, job.partitions], dtype="<f8").tobytes())
    for array in (*job.limits, job.network.cost, job.network.throughput):
        sha.update(array.astype("<f8").tobytes())
    sha.update(job.network.links.astype("<i8").tobytes())
    return sha.hexdigest()[:32]


def solve(job: Job) -> float:
    """The bound in USD. Some seconds for 71 regions and 6 destinations."""
    from scipy.optimize import linprog  # slow to import, and not needed while the table holds every job

    program = _program(job)
    result = linprog(
        program.objective,
        A_ub=program.at_most,
        b_ub=np.zeros(program.at_most.shape[0]),
        A_eq=program.equal,
        b_eq=program.equal_to,
        bounds=np.column_stack([program.low, program.high]),
        method="highs-ipm",
    )
    if result.status != 0:
        raise RuntimeError(f"HiGHS found no bound: {result.message}")
    multipliers = np.maximum(-result.ineqlin.marginals, 0.0)
    bound = program.dual_bound(multipliers, result.eqlin.marginals)
    if len(job.destinations) <= MOST_ENDS:
        bound = max(bound, _Lagrange(job).ascend(multipliers))
    return bound - _SAFETY * abs(bound)


class _Lagrange:
    """The second relaxation. Multipliers: one per link that does not enter the source, then per egress, per ingress."""

    def __init__(self, job: Job) -> None:
        self.source, self.ends = job.index[job.source], job.ends.tolist()
        self.count = len(job.network.regions)
        kept = job.network.links[:, 1] != self.source
        self.links = job.network.links[kept]
        self.rate = USD_PER_REGION_SECOND
        self.regions = len(self.ends) + 1
        self.gbit = 8 * job.data_vol
        self.least_time, self.most_time = _times(job)
        relay = np.ones(self.count)
        relay[[self.source, *self.ends]] = 0.0
        self.own_price = job.data_vol * job.network.cost[kept] + (self.rate * self.least_time * relay)[self.links[:, 1]]
        ingress, egress = job.limits
        self.capacity = np.concatenate([job.network.throughput[kept], egress, ingress])

    def ascend(self, multipliers: Floats, rounds: int = 150) -> float:
        """The best bound met on the way from the first of `multipliers` along subgradients."""
        scale = self.gbit / self.capacity  # work in seconds that one partition-average unit of x takes
        now = multipliers[: len(self.capacity)] / scale
        best, reach = -np.inf, 0.02
        since = 0
        for _ in range(rounds):
            value, uphill = self.value(now * scale)
            uphill = uphill * scale
            if value > best + 1e-9 * abs(value):
                best, since, kept = value, 0, now
            else:
                since += 1
            if since == 8:
                since, reach, now = 0, reach / 2, kept
                continue
            length = float(uphill @ uphill)
            if length == 0.0:
                break
            now = np.maximum(0.0, now + reach * abs(best) / length * uphill)
        return float(best)

    def value(self, multipliers: Floats) -> tuple[float, Floats]:
        """The bound that `multipliers` >= 0 give, and its subgradient."""
        m = len(self.links)
        on_link = multipliers[:m] + multipliers[m:][self.links[:, 0]] + multipliers[m + self.count :][self.links[:, 1]]
        price = np.full((self.count, self.count), np.inf)
        price[self.links[:, 0], self.links[:, 1]] = self.own_price + self.gbit * on_link
        tree_price, tree = cheapest_tree(price, self.source, self.ends)
        per_second = self.rate * self.regions - float(multipliers @ self.capacity)
        time_s = self.least_time if per_second > 0 else self.most_time
        carried = np.array([(a, b) in tree for a, b in self.links.tolist()], dtype=np.float64)
        load = np.concatenate(
            [
                carried,
                np.bincount(self.links[:, 0], carried, minlength=self.count),
                np.bincount(self.links[:, 1], carried, minlength=self.count),
            ]
        )
        return tree_price + per_second * time_s, self.gbit * load - self.capacity * time_s


def _times(job: Job) -> tuple[float, float]:
    """No plan takes less than the first, in s; one that takes more than the second costs more than the direct one."""
    ingress, egress = job.limits
    least = 8 * job.data_vol / min(egress[job.index[job.source]], ingress[job.ends].min())
    direct = transfer(job, job.direct()).cost
    return least, max(least, direct / (USD_PER_REGION_SECOND * (len(job.destinations) + 1)))


@dataclass(frozen=True, slots=True)
class _Program:
    """min objective x, subject to at_most x <= 0, equal x = equal_to, low <= x <= high."""

    objective: Floats
    at_most: sparse.csr_matrix
    equal: sparse.csr_matrix
    equal_to: Floats
    low: Floats
    high: Floats

    def dual_bound(self, at_most: Floats, equal: Floats) -> float:
        """A lower bound on the optimum from any multipliers; negative ones of `at_most` count as 0."""
        reduced = self.objective + self.at_most.T @ np.maximum(at_most, 0.0) - self.equal.T @ equal
        return float(equal @ self.equal_to + np.where(reduced > 0, reduced * self.low, reduced * self.high).sum())


def _program(job: Job) -> _Program:
    """The linear program; its variables are x by link, f by destination and link, y by relay, T."""
    source, ends, count = job.index[job.source], job.ends, len(job.network.regions)
    kept = job.network.links[:, 1] != source  # a partition is at its source already
    links = job.network.links[kept]
    m, k = len(links), len(ends)
    relays = np.setdiff1d(np.arange(count), [source, *ends])
    widths = (m, k * m, len(relays), 1)
    gbit = 8 * job.data_vol
    ingress, egress = job.limits
    tails_at, heads_at = _incidence(links[:, 0], count), _incidence(links[:, 1], count)
    same = sparse.identity(m, format="csr")
    passing = sparse.block_diag([heads_at[relays]] * k, format="csr")
    at_most = sparse.vstack(
        [
            _rows(widths, x=gbit * same, time=_column(-job.network.throughput[kept])),
            _rows(widths, x=gbit * tails_at, time=_column(-egress)),
            _rows(widths, x=gbit * heads_at, time=_column(-ingress)),
            _rows(widths, x=sparse.vstack([-same] * k), f=sparse.identity(k * m)),
            _rows(widths, f=passing, y=sparse.vstack([-sparse.identity(len(relays))] * k)),
        ],
        format="csr",
    )
    arriving, wanted = [], []
    others = np.arange(count) != source
    for end in ends:
        leaving = sparse.diags((np.arange(count) != end).astype(float)) @ tails_at
        arriving.append((heads_at - leaving)[others])
        wanted.append((np.arange(count) == end).astype(float)[others])
    equal = _rows(widths, f=sparse.block_diag(arriving, format="csr"))

    least_time, most_time = _times(job)
    rate = USD_PER_REGION_SECOND
    objective = np.concatenate(
        [
            job.data_vol * job.network.cost[kept],
            np.zeros(k * m),
            np.full(len(relays), rate * least_time),
            [rate * (k + 1)],
        ]
    )
    low, high = np.zeros(len(objective)), np.ones(len(objective))
    low[-1], high[-1] = least_time, most_time
    return _Program(objective, at_most, equal, np.concatenate(wanted), low, high)


def _rows(widths: tuple[int, ...], x: Any = None, f: Any = None, y: Any = None, time: Any = None) -> Any:
    """Rows of a matrix over all variables from blocks; those left out are zero."""
    blocks = (x, f, y, time)
    height = next(block.shape[0] for block in blocks if block is not None)
    filled = [
        block if block is not None else sparse.csr_matrix((height, width))
        for block, width in zip(blocks, widths, strict=True)
    ]
    return sparse.hstack(filled, format="csr")


def _column(values: Floats) -> Any:
    return sparse.csr_matrix(values.reshape(-1, 1))


def _incidence(ends: Ints, count: int) -> sparse.csr_matrix:
    """(regions, links), 1 where the link has that end."""
    return sparse.csr_matrix((np.ones(len(ends)), (ends, np.arange(len(ends)))), shape=(count, len(ends)))


@cache
def _table() -> dict[str, float]:
    if not TABLE.is_file():
        return {}
    return {row["digest"]: row["cost_bound"] for row in json.loads(TABLE.read_text(encoding="utf-8"))}


def main() -> None:
    """Solve for every job of every split, with and without the recorded network, and write the table."""
    from . import splits

    known = _table()
    rows = []
    for name, job in splits.every_job().items():
        key = digest(job)
        bound = known[key] if key in known else solve(job)
        direct = transfer(job, job.direct()).cost
        print(f"{name:<36} direct {direct:10.4f}  bound {bound:10.4f}", flush=True)
        rows.append({"job": name, "digest": key, "cost_bound": bound})
    TABLE.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
