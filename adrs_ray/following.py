"""A run as its journal tells it, for who looks on while another process writes it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.runfolder import RunFolder


class _Recorded:
    """A journal for a ledger that only counts: what is appended is recorded already."""

    def __init__(self) -> None:
        self.epoch = 0

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        return list(batch)

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        return []

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        return {}

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return {}

    async def close(self) -> None:
        """Nothing is open."""


class Follower:
    """Reads what is new at every look and writes nothing: a look costs what has happened since the last one.

    Raises UsageError when there is no run, or no journal yet.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path)
        self._reader = JournalReader(self.folder.journal)
        self._begin()

    def _begin(self) -> None:
        self._recorded = _Recorded()
        self._ledger = Ledger(self._recorded, self.folder.config)
        self._seq = 0

    async def look(self) -> RunStatus:
        """The status as the run's own ledger has it."""
        epoch, _ = self._reader.position()
        if epoch != self._recorded.epoch:
            # The run was started again, perhaps with another budget.
            self.folder = RunFolder.open(self.folder.path)
            self._begin()
            self._recorded.epoch = epoch
        for event in self._reader.replay(self._seq):
            await self._ledger.append([event], event.epoch)
            self._seq = event.seq
        # What this copy takes to count an event is no lag of the run's journal.
        return replace(await self._ledger.status(), journal_lag_s=None)

    def is_running(self) -> bool:
        """Whether a process writes the journal now."""
        return self.folder.is_running()

    def close(self) -> None:
        self._reader.close()
