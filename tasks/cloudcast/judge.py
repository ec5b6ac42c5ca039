"""The trusted side: cases, what the topologies cost by the network's own figures, and the score of a split.

With C the cost of a broadcast, B that of sending every partition straight from the source to each destination and L a
proven lower bound (`bounds.cost_bound`), the saving of a case is (B - C) / (B - L): 0 is direct sending, 1 cannot be
beaten, below 0 is worse than direct. The score of a split is the mean saving of its cases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, Split, quality

from . import splits
from .answer import parse, plan
from .bounds import cost_bound
from .network import NUM_VMS
from .transfer import USD_PER_VM_HOUR, BrokenPlanError, Job, transfer

_FIRST_SEED: dict[Split, int] = {"train": 1_000, "validation": 2_000, "test": 3_000, "stress": 4_000}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a case. Costs in USD."""

    job: Job
    direct_cost: float
    cost_bound: float
    recorded: bool
    """Whether this is a public configuration."""


def cases(split: Split) -> list[Case]:
    """The jobs of a split. Raises UsageError when a recorded file is there with another content."""
    paths = splits.recorded_paths()
    recorded = split == "test" and paths is not None
    return [
        make_case(name, _FIRST_SEED[split] + i, job, recorded)
        for i, (name, job) in enumerate(splits.jobs(split, paths).items())
    ]


def make_case(name: str, seed: int, job: Job, recorded: bool = False) -> Case:
    """One job as a case."""
    reference = Reference(job, transfer(job, job.direct()).cost, cost_bound(job), recorded)
    return Case(id=name, seed=seed, public=public_part(job), hidden=reference)


def public_part(job: Job, edge_data: bool = False) -> dict[str, Any]:
    """What the candidate's side is told; `edge_data` asks it for the figures that the answer's edges carry."""
    return {
        "source": job.source,
        "destinations": list(job.destinations),
        "partitions": job.partitions,
        "data_vol": job.data_vol,
        "ingress_limit": dict(job.ingress_limit),
        "egress_limit": dict(job.egress_limit),
        "num_vms": NUM_VMS,
        "instance_cost_per_hour": USD_PER_VM_HOUR,
        "regions": list(job.network.regions),
        "links": job.network.links,
        "cost": job.network.cost,
        "throughput": job.network.throughput,
        "edge_data": edge_data,
    }


def split_note(split: Split) -> str | None:
    """Says so when a split is generated because the recorded network is not on this machine."""
    if split == "stress" or splits.recorded_paths() is not None:
        return None
    what = "network and configurations" if split == "test" else "network"
    return f"generated {what}: the recorded one is not here (`adrs data pull cloudcast` fetches it)"


def score(case: Case, raw: Any) -> dict[str, float]:
    """USD, seconds and counts of one broadcast, from the network alone; the answer's own figures are not read.

    Raises MalformedOutput when `raw` is no topology, InvalidOutput when it uses what is not there or a partition does
    not arrive.
    """
    reference: Reference = case.hidden
    rows = plan(parse(raw, reference.job.partitions), reference.job)
    try:
        done = transfer(reference.job, rows)
    except BrokenPlanError as error:
        raise InvalidOutput(str(error)) from None
    direct, bound = reference.direct_cost, reference.cost_bound
    return {
        "saving": (direct - done.cost) / (direct - bound),
        "total_cost": done.cost,
        "egress_cost": done.egress_cost,
        "instance_cost": done.instance_cost,
        "total_time_s": done.time_s,
        "regions": float(done.regions),
        "links": float(done.links),
        "direct_cost": direct,
        "cost_bound": bound,
        "destinations": float(len(reference.job.destinations)),
        "recorded": float(reference.recorded),
    }


_SUMMED = ("total_cost", "egress_cost", "instance_cost", "total_time_s", "direct_cost", "cost_bound")
_AVERAGED = ("saving", "regions", "links")


def combine(results: Sequence[CaseResult]) -> Combined:
    """Costs and times are summed over the cases of a split, the rest averaged. The score is the mean saving."""
    cases = [result.metrics for result in results]
    metrics = {name: sum(case[name] for case in cases) for name in _SUMMED}
    metrics |= {name: fmean(case[name] for case in cases) for name in _AVERAGED}
    metrics |= quality(results, value="saving", direction="max", size="destinations")
    metrics |= leaderboard(metrics["total_cost"], sum(case["recorded"] for case in cases))
    metrics["score_bound"] = 1.0
    lines = [
        f"{'case':<20} {'USD':>9} {'direct':>9} {'bound':>9} {'saving':>8} {'time s':>9} {'regions':>7} {'links':>5}"
    ]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<20} {m['total_cost']:>9.3f} {m['direct_cost']:>9.3f} {m['cost_bound']:>9.3f}"
            f" {m['saving']:>8.4f} {m['total_time_s']:>9.1f} {m['regions']:>7.0f} {m['links']:>5.0f}"
        )
    return Combined(score=metrics["saving"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def leaderboard(total_cost: float, recorded: float) -> dict[str, float]:
    """The ADRS leaderboard's score, 0..100, and the share of its five configurations that it was computed on, in %."""
    worst, best = 1199.00, 626.24
    return {
        "leaderboard_formula": 100.0 * (worst - min(max(total_cost, best), worst)) / (worst - best),
        "leaderboard_coverage": 100.0 * recorded / len(splits.PUBLIC),
    }
