"""Between the values of the loop and the journal's events: one function each way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adrs_ray.candidate import (
    Candidate,
    Evaluation,
    Failure,
    FailureKind,
    Measurement,
    verdict_from_json,
    verdict_to_json,
)
from adrs_ray.selector import Elite
from adrs_ray.storage.journal import Event, EventKind, measured_id, settled_id, text_ref

STAGE = "full"
"""The only stage of tasks that declare no cascade."""


def generated_event(candidate: Candidate, model: str, draws: int, detail: str = "") -> Event:
    """GENERATED: the program is acknowledged before any evaluation, so that it is never asked for twice."""
    body = {
        "decision": candidate.decision,
        "operator": candidate.operator,
        "parents": list(candidate.parents),
        "source": text_ref(candidate.source),
        "fingerprint": candidate.fingerprint,
        "model": model,
        "draws": draws,
        "detail": detail,
    }
    return Event(
        f"{candidate.id}:generated", EventKind.GENERATED, candidate.id, candidate.island, body, (candidate.source,)
    )


def candidate_of(event: Event, source: str) -> Candidate:
    """The candidate of a GENERATED event."""
    assert event.candidate is not None
    return Candidate(
        id=event.candidate,
        island=event.island,
        decision=event.body["decision"],
        operator=event.body["operator"],
        parents=tuple(event.body["parents"]),
        source=source,
        fingerprint=event.body["fingerprint"],
    )


def measured_event(measurement: Measurement, island: int) -> Event:
    """MEASURED: the verdict, its artifacts stored as texts."""
    verdict = verdict_to_json(measurement.verdict)
    artifacts: Mapping[str, str] = measurement.verdict.artifacts
    verdict["artifacts"] = {name: text_ref(text) for name, text in artifacts.items()}
    body = {
        "stage": measurement.stage,
        "split": measurement.split,
        "repeat": measurement.repeat,
        "verdict": verdict,
    }
    event_id = measured_id(measurement.candidate, measurement.stage, measurement.split, measurement.repeat)
    return Event(event_id, EventKind.MEASURED, measurement.candidate, island, body, tuple(artifacts.values()))


def measurement_of(event: Event, texts: Mapping[str, str] | None = None) -> Measurement:
    """The measurement of a MEASURED event; without `texts` the artifacts are left out."""
    assert event.candidate is not None
    verdict = dict(event.body["verdict"])
    refs: Mapping[str, str] = verdict["artifacts"]
    verdict["artifacts"] = {} if texts is None else {name: texts[ref] for name, ref in refs.items()}
    return Measurement(
        event.candidate,
        event.body["stage"],
        event.body["split"],
        event.body["repeat"],
        verdict_from_json(verdict),
    )


def settled_event(candidate: Candidate, verdict: Evaluation | Failure, descriptor: tuple[float, float]) -> Event:
    """ADMITTED or REJECTED: the candidate's terminal state."""
    common: dict[str, Any] = {
        "decision": candidate.decision,
        "operator": candidate.operator,
        "parents": list(candidate.parents),
        "fingerprint": candidate.fingerprint,
        "source": text_ref(candidate.source),
    }
    if isinstance(verdict, Failure):
        body = {"failure": verdict.kind.value, "detail": verdict.detail, "case": verdict.case, **common}
        return Event(settled_id(candidate.id), EventKind.REJECTED, candidate.id, candidate.island, body)
    body = {"score": verdict.score, "metrics": dict(verdict.metrics), "descriptor": list(descriptor), **common}
    return Event(settled_id(candidate.id), EventKind.ADMITTED, candidate.id, candidate.island, body)


def screened_out_event(
    candidate: str,
    island: int,
    decision: int,
    operator: str,
    parents: Sequence[str],
    failure: Failure,
    source: str | None,
) -> Event:
    """REJECTED before any evaluation: a duplicate, or nothing usable. The program, if any, is kept."""
    body = {
        "failure": failure.kind.value,
        "detail": failure.detail,
        "case": None,
        "decision": decision,
        "operator": operator,
        "parents": list(parents),
        "fingerprint": None,
        "source": None if source is None else text_ref(source),
    }
    texts = () if source is None or failure.kind is FailureKind.DUPLICATE else (source,)
    if failure.kind is FailureKind.DUPLICATE:
        body["source"] = None
    return Event(settled_id(candidate), EventKind.REJECTED, candidate, island, body, texts)


def migrated_event(elite: Elite, source_island: int, target: int) -> Event:
    """MIGRATED, journaled by the source under the number of the target island, which learns it by reading."""
    body = {
        "from": source_island,
        "score": elite.score,
        "metrics": dict(elite.metrics),
        "fingerprint": elite.fingerprint,
        "descriptor": list(elite.descriptor),
        "source": elite.source,
    }
    return Event(
        f"{elite.candidate}:migrated:{source_island}:{target}", EventKind.MIGRATED, elite.candidate, target, body
    )


def elite_of(event: Event) -> Elite:
    """The elite of an ADMITTED or MIGRATED event."""
    assert event.candidate is not None
    size, distance = event.body["descriptor"]
    return Elite(
        candidate=event.candidate,
        score=event.body["score"],
        metrics=event.body["metrics"],
        descriptor=(size, distance),
        fingerprint=event.body["fingerprint"],
        source=event.body["source"],
    )
