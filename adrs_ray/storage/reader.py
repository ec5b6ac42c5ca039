"""Reading a journal from outside, for `adrs show`, `best` and `status`, while its writer goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import DBAPIError

from adrs_ray.errors import UsageError
from adrs_ray.storage import schema
from adrs_ray.storage.journal import Event, EventKind

_Result = TypeVar("_Result")


class JournalReader:
    """A read-only view of the file: takes no lock, writes nothing, and sees every append that was acknowledged before
    the call. Each call is one consistent snapshot.

    Raises UsageError, one line, when the file is missing, empty, another program's or another version's; and
    JournalRefusedError when it is damaged.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UsageError(f"no journal at {path}: give the folder of a run")
        self._path = path
        self._engine = schema.open_engine(path, "ro")
        try:
            with self._engine.connect() as connection:
                if not schema.holds_journal(connection, path):
                    raise UsageError(f"{path} is empty: no run has started there yet")
        except DBAPIError as error:
            self._engine.dispose()
            raise schema.unusable(error.orig, path) from error
        except UsageError:
            self._engine.dispose()
            raise

    def __enter__(self) -> JournalReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """Events with seq > after_seq in order of seq, filtered by kind and island."""
        return self._read(lambda c: schema.select_events(c, after_seq, kinds, island, limit))

    def replay(self, after_seq: int = 0, block: int = 5000) -> Iterator[Event]:
        """All events in order, read in blocks: memory does not grow with the run."""
        while events := self.read(after_seq, limit=block):
            yield from events
            after_seq = events[-1].seq

    def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """The recorded events among `ids`, by id."""
        return self._read(lambda c: schema.find_events(c, ids))

    def texts(self, refs: Sequence[str]) -> dict[str, str]:
        """The texts behind `refs`. Raises KeyError naming a ref that is not stored."""
        return self._read(lambda c: schema.select_texts(c, refs))

    def position(self) -> tuple[int, int]:
        """The epoch of the last writer, and seq of the last event (0 without any)."""
        where = select(schema.meta.c.epoch, select(func.max(schema.events.c.seq)).scalar_subquery())
        epoch, last = self._read(lambda connection: connection.execute(where).one())
        return int(epoch), int(last or 0)

    def close(self) -> None:
        """Close the file; safe to call twice."""
        self._engine.dispose()

    def _read(self, query: Callable[[Connection], _Result]) -> _Result:
        try:
            with self._engine.connect() as connection:
                return query(connection)
        except DBAPIError as error:
            raise schema.refusal(error.orig, self._path) from error
        except schema.DamagedRowError as error:
            raise schema.refusal(error, self._path) from error
