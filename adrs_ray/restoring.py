"""An island from the journal: everything it was told is told again, and what was under way is found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from adrs_ray.checkup import Checkup
from adrs_ray.config import RunConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.island import SEED_ISLAND, Island
from adrs_ray.proposal import FORMS, Proposal
from adrs_ray.steering import absorb, obey
from adrs_ray.storage.events import elite_of
from adrs_ray.storage.journal import Event, EventKind

_OWN = (
    EventKind.PROPOSED,
    EventKind.REQUESTED,
    EventKind.COMPLETED,
    EventKind.LOST,
    EventKind.GENERATED,
    EventKind.ADMITTED,
    EventKind.REJECTED,
    EventKind.MIGRATED,
    EventKind.NOTED,
    EventKind.FOUND,
    EventKind.INTERVENED,
)
_SHARED = (EventKind.ADMITTED, EventKind.COMMAND)


class ReadableLedger(Protocol):
    """What is needed of the journal's owner."""

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]: ...

    async def texts(self, refs: list[str]) -> dict[str, str]: ...


@dataclass
class Restored:
    """What was under way when the journal ends, and how far it was read."""

    heard: int = 0
    migrants_read: int = 0
    answers: list[Event] = field(default_factory=list)
    """Answers of people, as COMMAND events."""
    generated: dict[str, Event] = field(default_factory=dict)
    """GENERATED without a terminal state, by candidate."""
    proposed: dict[str, Event] = field(default_factory=dict)
    """PROPOSED without a program or a terminal state, by candidate."""
    requests: dict[str, list[Event]] = field(default_factory=dict)
    """REQUESTED, COMPLETED and LOST of the candidates in `proposed`."""
    open: dict[str, Event] = field(default_factory=dict)
    """REQUESTED without an answer, by request: of the candidates in `proposed`, and of scratchpads."""
    begun: set[str] = field(default_factory=set)
    """Decisions that were seen, by candidate."""

    def wanted_texts(self, island: Island) -> set[str]:
        """Text refs that are needed to go on."""
        refs = {*island.missing_programs(), *(event.body["source"] for event in self.generated.values())}
        return refs.union(*(event.body["sources"] for event in self.proposed.values()))


async def restore(island: Island, ledger: ReadableLedger, checkup: Checkup) -> Restored:
    """Tell the island the journal, in its order; the programs the run starts from come first."""
    restored = Restored()
    shared = await ledger.read(kinds=_SHARED, island=SEED_ISLAND)
    own = await ledger.read(kinds=_OWN, island=island.number)
    planted = [e for e in shared if e.kind is EventKind.ADMITTED and str(e.candidate).startswith("seed-")]
    for event in planted:
        island.tell(elite_of(event))
    island.freeze_after_seeding()
    known = {event.seq for event in planted}
    later = [event for event in shared if event.seq not in known]
    away = await ledger.read(kinds=[EventKind.MIGRATED])
    leaving = [event for event in away if event.body["from"] == island.number]
    for event in sorted([*own, *later, *leaving], key=lambda event: event.seq):
        if event.island == SEED_ISLAND:
            await _shared_event(island, event, restored)
        elif event.kind is EventKind.MIGRATED and event.body["from"] == island.number:
            island.sent(str(event.candidate))
        elif event.kind in (EventKind.MIGRATED, EventKind.NOTED, EventKind.FOUND, EventKind.INTERVENED):
            await _remark(island, event, restored, ledger, checkup)
        else:
            _own_event(island, event, restored)
    restored.heard = max((event.seq for event in shared), default=0)
    return restored


async def _shared_event(island: Island, event: Event, restored: Restored) -> None:
    if event.kind is EventKind.ADMITTED:
        island.tell(elite_of(event))
    elif event.body["kind"] == "answer":
        restored.answers.append(event)
    else:
        obey(island, event)


async def _remark(island: Island, event: Event, restored: Restored, ledger: ReadableLedger, checkup: Checkup) -> None:
    if event.kind is EventKind.MIGRATED:
        restored.migrants_read = event.seq
        island.tell(elite_of(event))
    elif event.kind is EventKind.NOTED:
        island.scribble((await ledger.texts([event.body["text"]]))[event.body["text"]])
    else:
        checkup.recall(island, event)


def _own_event(island: Island, event: Event, restored: Restored) -> None:
    name = event.candidate
    assert name is not None
    if event.kind in (EventKind.REQUESTED, EventKind.COMPLETED, EventKind.LOST):
        if name in restored.proposed:
            restored.requests.setdefault(name, []).append(event)
        if event.kind is EventKind.REQUESTED:
            restored.open[event.body["request"]] = event
        else:
            restored.open.pop(event.body["request"], None)
        return
    if name not in restored.begun:
        restored.begun.add(name)
        island.recall(event.body["arm"][1], event.body["parents"])
    island.note(name, event.body.get("fingerprint"), event.body["decision"])
    if event.kind is EventKind.PROPOSED:
        restored.proposed[name] = event
        return
    restored.proposed.pop(name, None)
    restored.requests.pop(name, None)
    if event.kind is EventKind.GENERATED:
        restored.generated[name] = event
    else:
        restored.generated.pop(name, None)
        absorb(island, event, None)


def retaken(proposed: Event, texts: Mapping[str, str], config: RunConfig) -> Proposal:
    """The decision of a PROPOSED event. Its messages are in the journal, too, or will be made anew."""
    assert proposed.candidate is not None
    body = proposed.body
    model, operator = body["arm"]
    request = GenerationRequest(
        candidate=proposed.candidate,
        operator=body["operator"],
        parents=tuple(texts[ref] for ref in body["sources"]),
        rng_key=(config.seed, proposed.island, body["decision"]),
        id=f"{proposed.candidate}/0",
        model=model,
        form=FORMS.get(body["operator"], "rewrite"),
    )
    return Proposal(
        candidate=proposed.candidate,
        decision=body["decision"],
        arm=(model, operator),
        operator=body["operator"],
        parents=tuple(body["parents"]),
        sources=tuple(body["sources"]),
        request=request,
    )
