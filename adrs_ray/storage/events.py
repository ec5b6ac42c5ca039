"""Between the values of the loop and the journal's events: one function each way."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from adrs_ray.candidate import (
    Candidate,
    Completion,
    Failure,
    FailureKind,
    Measurement,
    Refused,
    Usage,
    Verdict,
    verdict_from_json,
    verdict_to_json,
)
from adrs_ray.cascade import Decision
from adrs_ray.generator import GenerationRequest, Message
from adrs_ray.outcome import Outcome, Standing
from adrs_ray.selector import Elite
from adrs_ray.storage.journal import Event, EventKind, measured_id, settled_id, text_ref


def requested_event(request: GenerationRequest, island: int, worst: Usage) -> Event:
    """REQUESTED: with its messages as texts, so that it can be sent again, or answered by a person later."""
    body = {
        "request": request.id,
        "model": request.model,
        "operator": request.operator,
        "form": request.form,
        "parents": [text_ref(parent) for parent in request.parents],
        "messages": [[m.role, [text_ref(part) for part in _parts(m.content)]] for m in request.messages],
        "temperature": request.temperature,
        "less_reasoning": request.less_reasoning,
        "rng_key": list(request.rng_key),
        "worst": asdict(worst),
    }
    texts = tuple(part for message in request.messages for part in _parts(message.content))
    return Event(f"{request.id}:requested", EventKind.REQUESTED, request.candidate, island, body, texts)


def request_of(event: Event, texts: Mapping[str, str]) -> GenerationRequest:
    """The request of a REQUESTED event."""
    assert event.candidate is not None
    body = event.body
    return GenerationRequest(
        candidate=event.candidate,
        operator=body["operator"],
        parents=tuple(texts[ref] for ref in body["parents"]),
        rng_key=tuple(body["rng_key"]),
        id=body["request"],
        model=body["model"],
        form=body["form"],
        messages=messages_of(event, texts),
        temperature=body["temperature"],
        less_reasoning=body["less_reasoning"],
    )


def request_texts(event: Event) -> list[str]:
    """The text refs that `request_of` needs."""
    return [*event.body["parents"], *message_refs(event)]


def message_refs(event: Event) -> list[str]:
    """The text refs that `messages_of` needs."""
    return [ref for _, refs in event.body["messages"] for ref in refs]


def messages_of(event: Event, texts: Mapping[str, str]) -> tuple[Message, ...]:
    """The messages of a REQUESTED event."""
    return tuple(Message(role, "".join(texts[ref] for ref in refs)) for role, refs in event.body["messages"])


def _parts(content: str) -> list[str]:
    """A prompt in sections: those that many prompts share, such as the task, are stored once."""
    return re.split(r"(?<=\n\n)(?=# )", content)


def answered_id(request: str) -> str:
    """The one id that both COMPLETED and LOST of a request have: it is paid for once."""
    return f"{request}:answered"


def completed_event(request: GenerationRequest, island: int, completion: Completion) -> Event:
    """COMPLETED: acknowledged before the answer is used."""
    texts = [text for text in (completion.text, completion.reasoning or None) if text is not None]
    body = {
        "request": request.id,
        "model": request.model,
        "operator": completion.operator,
        "text": None if completion.text is None else text_ref(completion.text),
        "reasoning": text_ref(completion.reasoning) if completion.reasoning else None,
        "detail": completion.detail,
        "thinking_only": completion.thinking_only,
        "usage": asdict(completion.usage),
    }
    return Event(answered_id(request.id), EventKind.COMPLETED, request.candidate, island, body, tuple(texts))


def completion_of(event: Event, texts: Mapping[str, str]) -> Completion:
    """The completion of a COMPLETED event."""
    body = event.body
    return Completion(
        text=None if body["text"] is None else texts[body["text"]],
        model=body["model"],
        operator=body["operator"],
        detail=body["detail"],
        reasoning="" if body["reasoning"] is None else texts[body["reasoning"]],
        thinking_only=body["thinking_only"],
        usage=Usage(**body["usage"]),
    )


def lost_event(requested: Event) -> Event:
    """LOST: the request of a REQUESTED event was in flight when its process died; it is charged in full."""
    body = {key: requested.body[key] for key in ("request", "model")} | {"usage": requested.body["worst"]}
    return Event(answered_id(requested.body["request"]), EventKind.LOST, requested.candidate, requested.island, body)


def generated_event(candidate: Candidate, model: str, draws: int, detail: str = "") -> Event:
    """GENERATED: the program is acknowledged before any evaluation, so that it is never asked for twice."""
    body = {
        "decision": candidate.decision,
        "operator": candidate.operator,
        "parents": list(candidate.parents),
        "source": text_ref(candidate.source),
        "fingerprint": candidate.fingerprint,
        "model": model,
        "arm": list(candidate.arm),
        "draws": draws,
        "detail": detail,
        "note": candidate.note,
        "cost": candidate.cost,
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
        arm=_arm(event.body["arm"]),
        note=event.body["note"],
        cost=event.body["cost"],
    )


def _arm(pair: Sequence[str]) -> tuple[str, str]:
    model, operator = pair
    return model, operator


def measured_event(measurement: Measurement, island: int, gate: Decision | None = None) -> Event:
    """MEASURED: the verdict, its artifacts stored as texts; of a stage that has a gate behind it, what that said."""
    verdict = verdict_to_json(measurement.verdict)
    artifacts: Mapping[str, str] = measurement.verdict.artifacts
    verdict["artifacts"] = {name: text_ref(text) for name, text in artifacts.items()}
    body = {
        "stage": measurement.stage,
        "split": measurement.split,
        "repeat": measurement.repeat,
        "verdict": verdict,
    }
    if gate is not None:
        body["gate"] = asdict(gate)
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


def gate_of(event: Event) -> Decision | None:
    """What the gate behind the stage of a MEASURED event said; None where there is none."""
    gate = event.body.get("gate")
    return None if gate is None else Decision(**gate)


def settled_event(candidate: Candidate, verdict: Verdict, standing: Standing) -> Event:
    """ADMITTED or REJECTED: the candidate's terminal state."""
    common: dict[str, Any] = {
        "decision": candidate.decision,
        "operator": candidate.operator,
        "arm": list(candidate.arm),
        "parents": list(candidate.parents),
        "fingerprint": candidate.fingerprint,
        "source": text_ref(candidate.source),
        "cost": candidate.cost,
        "shape": standing.shape,
        "note": candidate.note,
        "ops": list(standing.ops),
    }
    if standing.stages:
        common["stages"] = dict(standing.stages)
    if isinstance(verdict, Failure):
        body = {"failure": verdict.kind.value, "detail": verdict.detail, "case": verdict.case, **common}
        return Event(settled_id(candidate.id), EventKind.REJECTED, candidate.id, candidate.island, body)
    body = {
        "score": verdict.score,
        "metrics": dict(verdict.metrics),
        "cases": list(standing.cases),
        "error": standing.error,
        "repeats": standing.repeats,
        "descriptor": list(standing.descriptor),
        "gain": standing.gain,
        **common,
    }
    return Event(settled_id(candidate.id), EventKind.ADMITTED, candidate.id, candidate.island, body)


def screened_out_event(refused: Refused, standing: Standing) -> Event:
    """REJECTED before any evaluation: a duplicate, or nothing usable. The program, if any, is kept."""
    duplicate = refused.failure.kind is FailureKind.DUPLICATE
    kept = None if duplicate else refused.source
    body = {
        "failure": refused.failure.kind.value,
        "detail": refused.failure.detail,
        "case": None,
        "decision": refused.decision,
        "operator": refused.operator,
        "arm": list(refused.arm),
        "parents": list(refused.parents),
        "fingerprint": None,
        "source": None if kept is None else text_ref(kept),
        "cost": refused.cost,
        "shape": "",
        "note": refused.note,
        "ops": list(standing.ops),
    }
    texts = () if kept is None else (kept,)
    return Event(settled_id(refused.id), EventKind.REJECTED, refused.id, refused.island, body, texts)


def outcome_of(event: Event) -> Outcome:
    """The outcome of an ADMITTED or REJECTED event."""
    assert event.candidate is not None
    body = event.body
    failure = body.get("failure")
    return Outcome(
        candidate=event.candidate,
        island=event.island,
        decision=body["decision"],
        operator=body["operator"],
        arm=_arm(body["arm"]),
        parents=tuple(body["parents"]),
        score=body.get("score"),
        gain=body.get("gain"),
        failure=None if failure is None else FailureKind(failure),
        detail=body.get("detail", ""),
        cost=body["cost"],
        metrics=body.get("metrics", {}),
        shape=body["shape"],
        note=body["note"],
        stages=body.get("stages", {}),
    )


def noted_event(island: int, decision: int, text: str) -> Event:
    """NOTED: an island's scratchpad after a decision."""
    body = {"decision": decision, "text": text_ref(text)}
    return Event(f"{island}:noted:{decision}", EventKind.NOTED, None, island, body, (text,))


def migrated_event(elite: Elite, source_island: int, target: int) -> Event:
    """MIGRATED, journaled by the source under the number of the target island, which learns it by reading."""
    body = {
        "from": source_island,
        "score": elite.score,
        "metrics": dict(elite.metrics),
        "cases": list(elite.cases),
        "error": elite.error,
        "repeats": elite.repeats,
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
    body = event.body
    return Elite(
        candidate=event.candidate,
        score=body["score"],
        metrics=body["metrics"],
        descriptor=tuple(body["descriptor"]),
        fingerprint=body["fingerprint"],
        source=body["source"],
        cases=tuple(body["cases"]),
        error=body["error"],
        repeats=body["repeats"],
    )
