"""A recorded run: completions, verdicts, commands and the order of island decisions, enough to run it again.

A strict replay delivers all of it in the recorded order (`adrs_ray.order`) and ends in the same facts, whatever the
number of slots and however long anything takes. A loose one hands out the completions and promises no equality.
`adrs_ray.storage.cassette_file` keeps a cassette in a file; `adrs_ray.replay` runs one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from adrs_ray import __version__
from adrs_ray.candidate import Completion, Usage, Verdict
from adrs_ray.config import RunConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.island import SEED_ISLAND
from adrs_ray.planting import Seed
from adrs_ray.storage.events import completion_of, measurement_of, requested_event
from adrs_ray.storage.journal import SETTLED, Event, EventKind, text_ref
from adrs_ray.storage.runfolder import RunFolder

LOOSELY = "`adrs replay --loose` replays completions only"
"""What the user is told where a strict replay is refused or fails."""
_FACTS = SETTLED | {
    EventKind.GENERATED,
    EventKind.MIGRATED,
    EventKind.NOTED,
    EventKind.FOUND,
    EventKind.INTERVENED,
    EventKind.RUN_ENDED,
}
_SHOWN_CHARS = 80
"""Of a value in a difference."""


class EventReader(Protocol):
    """What is needed of a journal (`adrs_ray.storage.reader.JournalReader`)."""

    def replay(self) -> Iterable[Event]: ...

    def texts(self, refs: Sequence[str]) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class RecordedCompletion:
    """An answer of a model, and what was asked."""

    request: str
    operator: str
    """As it was asked for."""
    digest: str
    """Of the request's messages (`digest_of`)."""
    completion: Completion


@dataclass(frozen=True, slots=True)
class RecordedVerdict:
    """One verdict."""

    candidate: str
    stage: str
    split: str
    repeat: int
    program: str | None
    """Text ref of the program; None for a baseline, which the task has."""
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class RecordedCommand:
    """A command of a person, as the journal has it."""

    id: str
    kind: str
    body: Mapping[str, Any]

    def event(self) -> Event:
        """The COMMAND event."""
        body = {"kind": self.kind, "body": dict(self.body)}
        return Event(f"command:{self.id}", EventKind.COMMAND, None, SEED_ISLAND, body)


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that a strict replay must repeat: an event without seq, epoch and time."""

    id: str
    kind: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cassette:
    """Everything that was recorded of a run."""

    task: str
    """What `adrs_ray.task.load_task` takes."""
    config: RunConfig
    version: str
    """Of adrs-ray, that recorded it."""
    obstacle: str | None
    """Why the run cannot be replayed strictly, in words; None when it can."""
    reason: str
    """Why it ended; empty when it has not."""
    baselines: bool
    """Whether baselines were judged at its end."""
    seeds: tuple[Seed, ...] = ()
    completions: Mapping[str, RecordedCompletion] = field(default_factory=dict)
    """By request."""
    verdicts: Mapping[tuple[str, str, str, int], RecordedVerdict] = field(default_factory=dict)
    """By (candidate, stage, split, repeat)."""
    scripts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    """Steps by island, as `adrs_ray.order.Order` takes them."""
    commands: tuple[RecordedCommand, ...] = ()
    facts: tuple[Fact, ...] = ()

    @property
    def ended(self) -> tuple[str, ...]:
        """Candidates in a terminal state, in the order they got there."""
        return tuple(fact.id.removesuffix(":settled") for fact in self.facts if fact.kind in SETTLED)


def record(reader: EventReader, folder: RunFolder) -> Cassette:
    """What the journal of a run says. Any run can be recorded; `obstacle` says what a strict replay would lack."""
    events = list(reader.replay())
    end = next((e for e in reversed(events) if e.kind is EventKind.RUN_ENDED), None)
    seeds = [e for e in events if e.kind is EventKind.GENERATED and re.fullmatch(r"seed-\d+", str(e.candidate))]
    texts = reader.texts([event.body["source"] for event in seeds])
    return Cassette(
        task=folder.task,
        config=folder.config,
        version=__version__,
        obstacle=_obstacle(events, folder.config),
        reason="" if end is None else end.body["reason"],
        baselines=any(str(e.candidate).startswith("baseline-") for e in events if e.kind is EventKind.MEASURED),
        seeds=tuple(Seed(texts[e.body["source"]], e.body["operator"]) for e in seeds),
        completions=_completions(events, reader),
        verdicts=_verdicts(events, reader),
        scripts=_scripts(events, folder.config),
        commands=tuple(
            RecordedCommand(e.id.removeprefix("command:"), e.body["kind"], e.body["body"])
            for e in events
            if e.kind is EventKind.COMMAND
        ),
        facts=facts_of(events),
    )


def digest_of(request: GenerationRequest) -> str:
    """sha256 over roles and texts of a request's messages."""
    return _digest(requested_event(request, SEED_ISLAND, Usage()))


def _digest(requested: Event) -> str:
    return text_ref(json.dumps(requested.body["messages"]))


def _completions(events: Sequence[Event], reader: EventReader) -> dict[str, RecordedCompletion]:
    asked = {e.body["request"]: e for e in events if e.kind is EventKind.REQUESTED}
    answers = [e for e in events if e.kind is EventKind.COMPLETED]
    refs = {ref for e in answers for ref in (e.body["text"], e.body["reasoning"]) if ref is not None}
    texts = reader.texts(sorted(refs))
    found = {}
    for event in answers:
        name = event.body["request"]
        operator, digest = asked[name].body["operator"], _digest(asked[name])
        found[name] = RecordedCompletion(name, operator, digest, completion_of(event, texts))
    return found


def _verdicts(events: Sequence[Event], reader: EventReader) -> dict[tuple[str, str, str, int], RecordedVerdict]:
    programs = {e.candidate: e.body["source"] for e in events if e.kind is EventKind.GENERATED}
    measured = [e for e in events if e.kind is EventKind.MEASURED]
    texts = reader.texts(sorted({ref for e in measured for ref in e.body["verdict"]["artifacts"].values()}))
    found = {}
    for event in measured:
        one = measurement_of(event, texts)
        program = programs.get(one.candidate)
        key = (one.candidate, one.stage, one.split, one.repeat)
        found[key] = RecordedVerdict(*key, program, one.verdict)
    return found


def _scripts(events: Sequence[Event], config: RunConfig) -> dict[int, tuple[str, ...]]:
    steps: dict[int, list[str]] = {number: [] for number in range(SEED_ISLAND, config.islands.count)}
    for event in events:
        if event.kind in SETTLED or event.kind is EventKind.GRANT:
            steps.setdefault(event.island, []).extend(event.body.get("ops", ()))
    return {number: tuple(names) for number, names in steps.items()}


def _obstacle(events: Sequence[Event], config: RunConfig) -> str | None:
    kinds = Counter(event.kind for event in events)
    orders = [event.body for event in events if event.kind is EventKind.COMMAND]
    for kind, what in (
        ("inject", "a program was injected"),
        ("spawn", "an island was spawned"),
        ("retire", "an island was retired"),
    ):
        if any(order["kind"] == kind for order in orders):
            return f"{what} while the run went on"
    if any(order["kind"] == "budget" and "max_candidates" in order["body"]["values"] for order in orders):
        return "budget.max_candidates was changed while the run went on"
    if kinds[EventKind.RUN_STARTED] > 1:
        return f"the run was started {kinds[EventKind.RUN_STARTED]} times"
    starts = Counter(e.island for e in events if e.kind is EventKind.GRANT and "reopened" in e.body)
    if any(count > 1 for count in starts.values()):
        return "an island began more than once"
    whole = {e.island for e in events if e.kind is EventKind.GRANT and "ops" in e.body}
    if not kinds[EventKind.RUN_ENDED] or whole != set(range(SEED_ISLAND, config.islands.count)):
        return "the run has not ended"
    return None


def facts_of(events: Iterable[Event]) -> tuple[Fact, ...]:
    """A run in a form that two equal ones share: ends of candidates in the order they were recorded, the rest by id.

    It has programs, operators, parents, scores, notes, failures, migrants, scratchpads, findings, interventions, the
    order of each island's steps and how the run ended; no times, and nothing that is looked at by the clock (findings
    about the run as a whole, validation of a best so far).
    """
    found = []
    for event in events:
        if event.kind not in _FACTS or (event.kind is EventKind.FOUND and event.island == SEED_ISLAND):
            continue
        if event.kind is EventKind.RUN_ENDED:
            kept = {key: event.body[key] for key in ("reason", "candidates", "champion")}
            found.append(Fact("run_ended", event.kind, kept))
        else:
            found.append(Fact(event.id, event.kind, event.body))
    ends = [fact for fact in found if fact.kind in SETTLED]
    rest = sorted((fact for fact in found if fact.kind not in SETTLED), key=lambda fact: fact.id)
    return (*ends, *rest)


def difference(recorded: Sequence[Fact], replayed: Sequence[Fact]) -> str | None:
    """The first thing in which two runs differ, in one line; None when they are equal."""
    theirs = {fact.id: fact for fact in replayed}
    for fact in recorded:
        other = theirs.pop(fact.id, None)
        if other is None:
            return f"{fact.id} is missing"
        if other.kind != fact.kind:
            return f"{fact.id}: {other.kind}, recorded was {fact.kind}"
        for key in [*fact.body, *other.body]:
            if fact.body.get(key) != other.body.get(key):
                return f"{fact.id}: {key} {_shown(other.body.get(key))}, recorded was {_shown(fact.body.get(key))}"
    if theirs:
        return f"{next(iter(theirs))} was not recorded"
    for fact, other in zip(recorded, replayed, strict=True):
        if fact.id != other.id:
            return f"{other.id} came where {fact.id} was recorded"
    return None


def _shown(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}..."
