"""From a program to its terminal state: verdicts on train, stage by stage, repeated in the last one where scores are
noisy, in a batch with the end.

Of a task with stages, what a stage said is recorded before the next one starts: a crash in the dear stage does not
repeat the cheap one, nor ask its gate again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Protocol

from adrs_ray.candidate import Candidate, CaseResult, Evaluation, Failure, FailureKind, Measurement, Verdict
from adrs_ray.cascade import Decision
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.island import Island
from adrs_ray.order import Order
from adrs_ray.prompt import TaskBrief
from adrs_ray.selector import Elite, noise
from adrs_ray.storage.events import elite_of, gate_of, measured_event, measurement_of, settled_event
from adrs_ray.storage.journal import Event, measured_id


class MeasuringLedger(Protocol):
    """What is needed of the journal's owner."""

    @property
    def epoch(self) -> int: ...

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]: ...

    async def find(self, ids: Sequence[str]) -> dict[str, Event]: ...


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

    Of a task with stages a failure in any rejects, and so does a gate that holds back (`gated`). On a noisy task a
    candidate that would take a place is measured again in the last stage (`adrs_ray.selector.noise`); one that fails
    in any measurement is rejected. `lost`: evaluations of it that earlier lives have started.
    """
    cheap = _CheapStages(candidate, evaluator, ledger, island, order)
    *before, last = brief.stages
    failure = await cheap.pass_all(before, last, lost) if before else None
    batch, stages = cheap.unrecorded, cheap.scores
    verdicts: list[Evaluation] = []
    lost = 0 if cheap.started else lost
    while failure is None:
        job = EvaluationJob(candidate.id, candidate.source, "train", len(verdicts), lost, last)
        verdict = await evaluator.evaluate(job)
        batch.append(measured_event(Measurement(candidate.id, last, job.split, job.repeat, verdict), candidate.island))
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
    if before and isinstance(end, Evaluation):
        stages[last] = end.score
    standing = island.standing(candidate, end, [v.score for v in verdicts])
    batch.append(settled_event(candidate, end, replace(standing, stages=stages, ops=order.taken())))
    return (await ledger.append(batch, ledger.epoch))[-1]


class _CheapStages:
    """A candidate's way through all stages but the last."""

    def __init__(
        self, candidate: Candidate, evaluator: Evaluator, ledger: MeasuringLedger, island: Island, order: Order
    ) -> None:
        self._candidate = candidate
        self._evaluator = evaluator
        self._ledger = ledger
        self._island = island
        self._order = order
        self.scores: dict[str, float] = {}
        """Of the stages that were measured, by name, in their order."""
        self.unrecorded: list[Event] = []
        """Goes with the terminal state: the stage that ended it here."""
        self.started = False
        """Whether any evaluation was started in this life."""

    async def pass_all(self, stages: Sequence[str], last: str, lost: int) -> Failure | None:
        """Why the candidate does not come to the last stage; None when it does."""
        known = await self._known(stages) if lost else {}
        for stage, following in zip(stages, [*stages[1:], last], strict=True):
            event = known.get(stage)
            if event is None:
                verdict = await self._evaluate(stage, 0 if self.started else lost)
                event = await self._judged(stage, verdict)
            verdict, gate = measurement_of(event).verdict, gate_of(event)
            if isinstance(verdict, Failure):
                return verdict
            self.scores[stage] = verdict.score
            if gate is not None and not gate.passes:
                return _held_back(stage, following, verdict, gate)
        return None

    async def _known(self, stages: Sequence[str]) -> dict[str, Event]:
        """What earlier lives have recorded, by stage."""
        ids = {measured_id(self._candidate.id, stage, "train", 0): stage for stage in stages}
        return {ids[name]: event for name, event in (await self._ledger.find(list(ids))).items()}

    async def _evaluate(self, stage: str, lost: int) -> Verdict:
        self.started = True
        candidate = self._candidate
        return await self._evaluator.evaluate(EvaluationJob(candidate.id, candidate.source, "train", 0, lost, stage))

    async def _judged(self, stage: str, verdict: Verdict) -> Event:
        """MEASURED with what the gate says: recorded where the candidate goes on, else kept for the terminal batch."""
        candidate = self._candidate
        gate: Decision | None = None
        if isinstance(verdict, Evaluation):
            await self._order.turn(f"g{candidate.id}:{stage}")
            gate = self._island.gate(candidate, stage, verdict.score)
        event = measured_event(Measurement(candidate.id, stage, "train", 0, verdict), candidate.island, gate)
        if gate is not None and gate.passes:
            # Another life of this island may have been first: what is recorded counts.
            return (await self._ledger.append([event], self._ledger.epoch))[0]
        self.unrecorded.append(event)
        return event


def _held_back(stage: str, following: str, verdict: Evaluation, gate: Decision) -> Failure:
    detail = (
        f"held back behind stage {stage}: by its score {verdict.score:.6g} there, stage {following} would give about "
        f"{gate.predicted or 0.0:.6g}; the chance that it reaches the median there is {gate.chance:.2g}"
    )
    return Failure(FailureKind.GATED, detail, trust=verdict.trust, wall_s=verdict.wall_s, evidence=verdict.evidence)


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
