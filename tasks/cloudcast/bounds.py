"""Proven lower bounds on the cost of a broadcast, and the table that keeps them.

A linear program that every valid plan satisfies once its links are averaged over the partitions:

- x[e] in [0, 1], the share of the partitions that link e carries; f[d, e] <= x[e], a unit flow from the source to each
  destination d (each partition has a path to d over links that carry it); y[v] >= the flow of any d through a region v
  that is neither source nor destination;
- time T: 8 D x[e] <= throughput[e] T; summed over the links out of a region <= its egress limit x T, into it <= its
  ingress limit x T (flows keep within the limits); T >= T0, the time that one end alone needs for all data;
- cost >= D sum price[e] x[e] + r (k + 1) T + r T0 sum y[v], r the price of a region and second, k destinations: the
  number of regions in use is n >= k + 1 + sum y, and n T >= (k + 1) T + (n - k - 1) T0.

The solver's answer is not believed: its multipliers, whatever they are, give a lower bound by weak duality over the
box of the variables, which is computed here. T may be boxed in, because a plan so slow that its machines alone cost
more than the direct plan is above the bound anyway.

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
from scipy.optimize import linprog

from .network import Floats, Ints
from .transfer import USD_PER_REGION_SECOND, Job, transfer

TABLE = Path(__file__).with_name("bounds.json")
_SAFETY = 1e-9
"""Relative: more than rounding in the evaluation of the dual bound amounts to."""


def cost_bound(job: Job) -> float:
    """USD that no valid plan of `job` undercuts: from the table, or solved for when the table lacks these inputs."""
    known = _table().get(digest(job))
    return known if known is not None else solve(job)


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
    """The bound in USD, by HiGHS (interior point) and weak duality. Some seconds for 71 regions and 6 destinations."""
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
    bound = program.dual_bound(-result.ineqlin.marginals, result.eqlin.marginals)
    return bound - _SAFETY * abs(bound)


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
    source, ends, count = job.index[job.source], job.ends, len(job.network.regions)
    kept = job.network.links[:, 1] != source  # a partition is at its source already
    links, price = job.network.links[kept], job.network.cost[kept]
    throughput = job.network.throughput[kept]
    m, k = len(links), len(ends)
    relays = np.setdiff1d(np.arange(count), [source, *ends])
    first_f, first_y = m, m + k * m
    t = first_y + len(relays)
    gbit = 8 * job.data_vol
    ingress, egress = job.limits
    least_time = gbit / min(egress[source], ingress[ends].min())
    direct = transfer(job, job.direct()).cost

    tails_at = _incidence(links[:, 0], count)
    heads_at = _incidence(links[:, 1], count)

    def row_block(x: Any, f: Any, y: Any, time: Any) -> Any:
        rows = next(block.shape[0] for block in (x, f, y, time) if block is not None)
        widths = (m, k * m, len(relays), 1)
        blocks = [
            b if b is not None else sparse.csr_matrix((rows, w)) for b, w in zip((x, f, y, time), widths, strict=True)
        ]
        return sparse.hstack(blocks, format="csr")

    column = lambda values: sparse.csr_matrix(-np.asarray(values).reshape(-1, 1))  # noqa: E731
    identity = sparse.identity(m, format="csr")
    through = sparse.block_diag([heads_at[relays]] * k, format="csr")
    at_most = sparse.vstack(
        [
            row_block(gbit * identity, None, None, column(throughput)),
            row_block(gbit * tails_at, None, None, column(egress)),
            row_block(gbit * heads_at, None, None, column(ingress)),
            row_block(sparse.vstack([-identity] * k), sparse.identity(k * m), None, None),
            row_block(None, through, sparse.vstack([-sparse.identity(len(relays))] * k), None),
        ],
        format="csr",
    )
    conserved = []
    wanted = np.zeros((k, count))
    for j, end in enumerate(ends):
        leaving = sparse.diags((np.arange(count) != end).astype(float))
        conserved.append((heads_at - leaving @ tails_at)[np.arange(count) != source])
        wanted[j, end] = 1.0
    equal = row_block(None, sparse.block_diag(conserved, format="csr"), None, None)

    rate = USD_PER_REGION_SECOND
    objective = np.zeros(t + 1)
    objective[:m] = job.data_vol * price
    objective[first_y:t] = rate * least_time
    objective[t] = rate * (k + 1)
    low, high = np.zeros(t + 1), np.ones(t + 1)
    low[t], high[t] = least_time, max(least_time, direct / (rate * (k + 1)))
    assert first_f + k * m == first_y
    return _Program(objective, at_most, equal, np.delete(wanted, source, axis=1).ravel(), low, high)


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
