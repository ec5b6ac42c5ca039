"""From a program to its terminal state: verdicts on train, repeated where scores are noisy, in a batch with the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Protocol

from adrs_ray.candidate import Candidate, CaseResult, Evaluation, Failure, Measurement
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.island import Island
from adrs_ray.order import Order
from adrs_ray.prompt import TaskBrief
from adrs_ray.selector import Elite, noise
from adrs_ray.storage.events import STAGE, elite_of, measured_event, settled_event
from adrs_ray.storage.journal import Event


class MeasuringLedger(Protocol):
    """What is needed of the journal's owner."""

    @property
    def epoch(self) -> int: ...

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]: ...


async def measure(
    candidate: Candidate,
    evaluator: Evaluator,
    ledger: MeasuringLedger,
    island: Island,
    lost: int,
    order: Order,
    brief: TaskBrief,
) -> Event:
    """Evaluate on train and record verdicts and terminal state in one batch; returns the recorded terminal event.

    On a noisy task a candidate that would take a place is measured again (`adrs_ray.selector.noise`); one that fails
    in any measurement is rejected. `lost`: evaluations of it that earlier lives have started.
    """
    verdicts: list[Evaluation] = []
    batch: list[Event] = []
    failure: Failure | None = None
    while failure is None:
        job = EvaluationJob(candidate.id, candidate.source, "train", repeat=len(verdicts), attempts=lost)
        verdict = await evaluator.evaluate(job)
        measurement = Measurement(candidate.id, STAGE, job.split, job.repeat, verdict)
        batch.append(measured_event(measurement, candidate.island))
        if isinstance(verdict, Failure):
            failure = verdict
            break
        verdicts.append(verdict)
        if not brief.noisy:
            break
        await order.turn(f"q{candidate.id}:{job.repeat}")
        if not island.needs_another(_as_elite(candidate, island, verdicts)):
            break
        lost = 0
    await order.turn(f"d{candidate.id}")
    end = failure or averaged(verdicts)
    standing = island.standing(candidate, end, [v.score for v in verdicts])
    batch.append(settled_event(candidate, end, replace(standing, ops=order.taken())))
    return (await ledger.append(batch, ledger.epoch))[-1]


def _as_elite(candidate: Candidate, island: Island, verdicts: Sequence[Evaluation]) -> Elite:
    mean = averaged(verdicts)
    standing = island.standing(candidate, mean, [v.score for v in verdicts])
    return elite_of(settled_event(candidate, mean, standing))


def averaged(verdicts: Sequence[Evaluation]) -> Evaluation:
    """The mean of repeated evaluations on the same cases: score, metrics and the metrics of each case."""
    first = verdicts[0]
    if len(verdicts) == 1:
        return first
    cases = tuple(
        CaseResult(
            same[0].case,
            _means([case.metrics for case in same]),
            fmean(case.cpu_s for case in same),
            fmean(case.wall_s for case in same),
        )
        for same in zip(*(verdict.cases for verdict in verdicts), strict=True)
    )
    score, _ = noise.mean_and_error([verdict.score for verdict in verdicts])
    return replace(first, score=score, metrics=_means([v.metrics for v in verdicts]), cases=cases)


def _means(metrics: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of each metric that all of them have."""
    return {name: fmean(m[name] for m in metrics) for name in metrics[0] if all(name in m for m in metrics)}
