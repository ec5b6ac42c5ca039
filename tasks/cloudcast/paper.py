"""The second scoring: the public evaluator's figures on its five configurations, faults included.

What it does and `judge.py` does not: it takes price and throughput of an edge from the answer; it does not ask whether
data arrives; it looks up partition i >= 1 of a destination under the last region that partition i - 1 named; it
applies limits region by region, in the order in which regions appear. Where the public program stops with an
exception, the answer fails here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Split, UsageError, quality

from . import splits
from .answer import UNSET, Answer, parse
from .judge import leaderboard, public_part, split_note
from .network import NUM_VMS, provider
from .transfer import USD_PER_VM_HOUR, Job

__all__ = ["cases", "combine", "evaluate", "score", "split_note"]


def cases(split: Split) -> list[Case]:
    """The five public configurations, or what stands in for them. Raises UsageError for another split than test."""
    if split != "test":
        raise UsageError(f"cloudcast is scored as in the paper on the split test only, not on {split}: use `sound`")
    paths = splits.recorded_paths()
    return [
        Case(id=name, seed=3_000 + i, public=public_part(job, edge_data=True), hidden=(job, paths is not None))
        for i, (name, job) in enumerate(splits.jobs("test", paths).items())
    ]


def score(case: Case, raw: Any) -> dict[str, float]:
    """The public cost in USD and time in seconds. Raises MalformedOutput or InvalidOutput where that one stops."""
    job, recorded = case.hidden
    answer = parse(raw, job.partitions)
    if answer.data is None:
        raise MalformedOutput("the answer carries no data of its edges")
    try:
        cost, time_s = evaluate(job, answer)
    except (KeyError, ZeroDivisionError, TypeError, ValueError) as error:
        raise InvalidOutput(f"the public evaluator stops with {type(error).__name__}: {error}") from None
    return {
        "total_cost": cost,
        "total_time_s": time_s,
        "destinations": float(len(job.destinations)),
        "recorded": float(recorded),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """1 / (1 + total cost), which is what the public evaluator maximises. Raises InvalidOutput where it stops."""
    metrics = {name: sum(result.metrics[name] for result in results) for name in ("total_cost", "total_time_s")}
    if metrics["total_cost"] == -1.0:
        raise InvalidOutput("the public evaluator stops with ZeroDivisionError: the costs add up to -1 USD")
    metrics |= quality(results, value="total_cost", direction="min", size="destinations")
    metrics |= leaderboard(metrics["total_cost"], sum(result.metrics["recorded"] for result in results))
    lines = [f"{'case':<20} {'USD':>12} {'time s':>12}"]
    lines += [f"{r.case:<20} {r.metrics['total_cost']:>12.6f} {r.metrics['total_time_s']:>12.6f}" for r in results]
    return Combined(1.0 / (1.0 + metrics["total_cost"]), metrics, {"cases": "\n".join(lines)})


@dataclass(slots=True)
class _Link:
    cost: float
    throughput: float
    flow: float
    partitions: set[int] = field(default_factory=set)


_Pair = tuple[str, str]


def evaluate(job: Job, answer: Answer) -> tuple[float, float]:
    """The public cost in USD and time in s. Raises what the public program would: KeyError, ZeroDivisionError, ..."""
    listed = _listed(answer)
    links = _used_links(job, answer, listed)
    _limit_flows(job, links)
    gb = job.data_vol / job.partitions
    time_s = max(
        len(links[pair].partitions) * gb * 8 / links[pair].flow
        for partitions in listed.values()
        for edges in partitions
        for pair, _ in _edges(edges)
    )
    cost = 0.0
    for link in links.values():
        cost += len(link.partitions) * gb * link.cost
    regions = dict.fromkeys(region for pair in links for region in pair)
    return cost + len(regions) * NUM_VMS * (USD_PER_VM_HOUR / 3600) * round(time_s, 2), time_s


_Edges = list[tuple[_Pair, tuple[float, float]]]


def _listed(answer: Answer) -> dict[str, list[_Edges | None]]:
    """Edges with their data, by destination and partition, None where there is no list."""
    data = answer.data.tolist() if answer.data is not None else []
    edges: _Edges = [
        ((answer.regions[a], answer.regions[b]), (cost, throughput))
        for (a, b), (cost, throughput) in zip(answer.edges.tolist(), data, strict=True)
    ]
    found: dict[str, list[_Edges | None]] = {}
    start = 0
    for destination, counts in zip(answer.destinations.tolist(), answer.counts.tolist(), strict=True):
        row: list[_Edges | None] = []
        for count in counts:
            row.append(None if count == UNSET else edges[start : start + count])
            start += max(count, 0)
        found[answer.regions[destination]] = row
    return found


def _edges(edges: _Edges | None) -> _Edges:
    if edges is None:
        raise TypeError("a partition has no list of edges")
    return edges


def _used_links(job: Job, answer: Answer, listed: dict[str, list[_Edges | None]]) -> dict[_Pair, _Link]:
    links: dict[_Pair, _Link] = {}
    last: dict[tuple[str, int], str] = {}  # to read a list once more would add nothing
    for name in listed:
        looked_up = name
        for partition in range(job.partitions):
            start = (looked_up, partition)
            if start not in last:
                for pair, (cost, throughput) in _edges(listed[looked_up][partition]):
                    looked_up = pair[1]  # the public loop's own variable, overwritten
                    link = links.setdefault(pair, _Link(cost, throughput, throughput))
                    link.partitions.add(partition)
                last[start] = looked_up
            looked_up = last[start]
    return links


def _limit_flows(job: Job, links: dict[_Pair, _Link]) -> None:
    arriving, leaving = defaultdict[str, list[_Link]](list), defaultdict[str, list[_Link]](list)
    for (tail, head), link in links.items():
        leaving[tail].append(link)
        arriving[head].append(link)
    for region in dict.fromkeys(region for pair in links for region in pair):
        sides = (arriving[region], leaving[region])
        wanted = [_total(side) for side in sides]
        limits = (job.ingress_limit, job.egress_limit)
        for side, flow, limit in zip(sides, wanted, limits, strict=True):
            allowed = NUM_VMS * limit[provider(region)]
            if flow > allowed:
                for link in side:
                    link.flow = min(link.flow, allowed / len(side))


def _total(links: list[_Link]) -> float:
    total = 0.0
    for link in links:
        total += link.flow
    return total
