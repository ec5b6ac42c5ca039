"""The journal: an append-only list of events, the only truth of a run.

Implementations: `memory.MemoryJournal`, `sqlite.SqliteJournal`; one contract suite
(`tests/storage/test_journal_contract.py`) runs against each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from adrs_ray.errors import RunError


class EventKind(StrEnum):
    """What an event says. SETTLED kinds end a candidate: ADMITTED and REJECTED share one event id per candidate."""

    RUN_STARTED = "run_started"
    """A writer took the journal over: body {host, pid, version}."""
    PROPOSED = "proposed"
    """A decision that leads to paid requests: body {decision, operator, model, arm, parents,
    sources (text refs)}."""
    REQUESTED = "requested"
    """A request to a model is about to be sent, id `<request>:requested`: body {request, model, operator, form,
    parents (text refs), messages [[role, [text refs of its sections]]], temperature, less_reasoning, rng_key,
    worst (usage)}."""
    COMPLETED = "completed"
    """Its answer, id `<request>:answered`: body {request, model, operator, text, reasoning (text refs or None), detail,
    thinking_only, usage}. What it cost is counted from here, whatever becomes of it."""
    LOST = "lost"
    """It was in flight when its process died, id `<request>:answered`: body {request, model, usage (the worst)}."""
    GENERATED = "generated"
    """Body {decision, operator, parents, source (text ref), fingerprint, model, arm, draws, detail, note, cost}."""
    MEASURED = "measured"
    """Body {stage, split, repeat, verdict (adrs_ray.candidate.verdict_to_json)}; of a stage that another one follows,
    `gate`: what let the candidate through or held it back (adrs_ray.cascade.Decision)."""
    ADMITTED = "admitted"
    """Body {score, metrics, cases, error, repeats, descriptor, decision, operator, parents, fingerprint,
    source (text ref), and what an Outcome has: arm, gain, cost, shape, note}; `ops`: the order of its island; of a task
    with stages `stages`: their scores."""
    REJECTED = "rejected"
    """Body {failure, detail, case, decision, operator, parents, fingerprint, source (text ref or None), and what an
    Outcome has: arm, cost, shape, note}; `ops`: the order of its island; of a task with stages `stages`: the scores of
    those it passed."""
    MIGRATED = "migrated"
    """Under the number of the island that receives: body {from, score, metrics, cases, error, repeats, fingerprint,
    descriptor, source}."""
    NOTED = "noted"
    """An island's new scratchpad: body {decision, text (text ref)}."""
    FOUND = "found"
    """What a detector found: body {detector, evidence, figures, remedies, at}."""
    INTERVENED = "intervened"
    """What is done about findings, on one island: body {kind, reason, value, decision}."""
    COMMAND = "command"
    """A command from outside, id `command:<command id>`: body {kind, body}."""
    GRANT = "grant"
    """Body {count}: so many more candidates for the island, fewer where it is negative: given back; or {reopened}: it
    starts with so many under way."""
    RUN_ENDED = "run_ended"
    """Body {reason, wall_s, candidates, champion}."""


SETTLED = frozenset({EventKind.ADMITTED, EventKind.REJECTED})


@dataclass(frozen=True, slots=True)
class Event:
    """One fact. `id` is unique in a run: appending an id again changes nothing and returns the recorded event.

    Texts (programs, prompts, artifacts) are not in `body`: `text_ref(text)` is, and the text in `texts`.
    """

    id: str
    kind: EventKind
    candidate: str | None
    island: int
    body: Mapping[str, Any]
    texts: tuple[str, ...] = ()
    """Texts to be stored with the event, in the same transaction; empty on events that were read back."""
    seq: int = 0
    """Position in the journal, from 1; 0 before it is appended."""
    epoch: int = 0
    at: float = 0.0
    """Seconds since 1970, set when appended."""


class StaleEpochError(RunError):
    """Another writer has taken the journal over; nothing of the batch was written."""


class JournalRefusedError(RunError):
    """The journal cannot take events (disk full, read-only, damaged); nothing of the batch was written."""


def text_ref(text: str) -> str:
    """The name of a text in the journal: its sha256 in hex."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def settled_id(candidate: str) -> str:
    """The one id that both ADMITTED and REJECTED of a candidate have, so that only one of them can be recorded."""
    return f"{candidate}:settled"


def measured_id(candidate: str, stage: str, split: str, repeat: int) -> str:
    """The id of one measurement."""
    return f"{candidate}:measured:{stage}:{split}:{repeat}"


def dump_body(body: Mapping[str, Any]) -> str:
    """The stored form of a body: compact JSON.

    Raises ValueError for NaN and infinities, TypeError for what JSON does not have.
    """
    text = json.dumps(body, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate (undecodable output of a candidate) has no UTF-8; escaped it survives.
        text = json.dumps(body, separators=(",", ":"), allow_nan=False)
    return text


class Journal(Protocol):
    """Append-only, idempotent, fenced.

    - Bodies are JSON: mappings with string keys, lists, strings, finite numbers, booleans, None. An append may return
      the mapping it was given as the body of a new event; it must not be changed afterwards.
    - `append` is atomic: all events of a batch become visible together or none does. When it returns they are durable
      (fsynced, for SQLite). Events whose id is already recorded are left out, and the recorded event is returned in
      their place: the loser adopts the winner's verdict.
    - Every append carries the epoch its writer was given; a stale one raises StaleEpochError. JournalRefusedError when
      the store cannot take it; a later append may succeed.
    - Concurrency: any number of appends at once; batches are never interleaved; order of `seq` is the order in which
      appends were acknowledged or earlier.
    - Reads see every acknowledged append.
    """

    @property
    def epoch(self) -> int:
        """The epoch this handle writes under."""
        ...

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """Record a batch; returns the recorded events (with seq, epoch, at), in the order of the batch."""
        ...

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Events with seq > after_seq in order of seq, filtered by kind and island."""
        ...

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """The recorded events among `ids`, by id."""
        ...

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        """The texts behind `refs`. Raises KeyError naming a ref that is not stored."""
        ...

    async def close(self) -> None:
        """Flush and release the writer's lock; safe to call twice."""
        ...
