"""A journal in memory, for tests and for searches whose record nobody needs afterwards."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError, StaleEpochError, dump_body, text_ref


@dataclass
class _Store:
    epoch: int = 0
    events: list[Event] = field(default_factory=list)
    by_id: dict[str, Event] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)


class MemoryJournal:
    """A `Journal` that ends with the process. Nothing is durable; everything else of the contract holds.

    For one event loop. `take_over` gives a second writer on the same events, whose epoch fences this one.
    """

    def __init__(self, store: _Store | None = None) -> None:
        self._store = store or _Store()
        self._store.epoch += 1
        self._epoch = self._store.epoch
        self._closed = False

    def take_over(self) -> MemoryJournal:
        """A writer with the next epoch; this one's appends are refused from now on."""
        return MemoryJournal(self._store)

    @property
    def epoch(self) -> int:
        """The epoch this handle writes under."""
        return self._epoch

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """See `Journal.append`. Raises TypeError or ValueError when a body is not JSON."""
        bodies = [_frozen(event.body) for event in batch]
        store = self._store
        if self._closed:
            raise JournalRefusedError("the journal is closed")
        if epoch != store.epoch:
            raise StaleEpochError(f"another writer has taken the journal over (epoch {store.epoch}, ours is {epoch})")
        at = time.time()
        for event, body in zip(batch, bodies, strict=True):
            if event.id not in store.by_id:
                seq = len(store.events) + 1
                recorded = replace(event, body=body, texts=(), seq=seq, epoch=epoch, at=at)
                store.events.append(recorded)
                store.by_id[event.id] = recorded
                store.texts.update((text_ref(text), text) for text in event.texts)
        return [store.by_id[event.id] for event in batch]

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """See `Journal.read`."""
        chosen = None if kinds is None else frozenset(kinds)
        found = [
            event
            for event in self._store.events[max(after_seq, 0) :]
            if (chosen is None or event.kind in chosen) and (island is None or event.island == island)
        ]
        return found if limit is None else found[:limit]

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """See `Journal.find`."""
        return {id: self._store.by_id[id] for id in ids if id in self._store.by_id}

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        """See `Journal.texts`."""
        return {ref: self._store.texts[ref] for ref in refs}

    async def close(self) -> None:
        """See `Journal.close`; what was recorded can still be read."""
        self._closed = True


def _frozen(body: Mapping[str, object]) -> dict[str, object]:
    """A copy as it would be read back from a file: what the caller does to its mapping later changes nothing."""
    copy: dict[str, object] = json.loads(dump_body(body))
    return copy
