"""The durable journal: SQLite in WAL mode, one writer thread, group commit without a timer.

Appends are handed to the writer thread; what has arrived while one group was being committed is the next group, in one
transaction with one fsync. Under load groups grow, and alone an append waits for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from sqlalchemy import Connection, NullPool, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import DBAPIError

from adrs_ray.storage import schema
from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError, StaleEpochError, dump_body, text_ref
from adrs_ray.storage.lock import WriterLock, lock_file
from adrs_ray.storage.mounts import require_local

_Result = TypeVar("_Result")
_Outcome = list[Event] | Exception

# A lone append costs a third less CPU when the statements, made once from the tables, go to the driver directly.
_POSITION = schema.as_sql(select(schema.meta.c.epoch, select(func.max(schema.events.c.seq)).scalar_subquery()))
_EVENTS_BY_ID = schema.as_sql(schema.events_by_id)
_REFS_STORED = schema.as_sql(schema.refs_stored)
_INSERT_EVENTS = schema.as_sql(insert(schema.events))
_INSERT_TEXTS = schema.as_sql(sqlite_insert(schema.texts).on_conflict_do_nothing())


@dataclass(frozen=True, slots=True, eq=False)
class _Append:
    """One append under way: who waits for it, and on which loop."""

    batch: tuple[Event, ...]
    bodies: list[str]
    epoch: int
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[list[Event]]


class SqliteJournal:
    """A `Journal` in one file. Made by `open` or `join`; both block, so call them before the event loop runs or in a
    thread. The methods may be used from any number of event loops.

    An append that is cancelled while it waits may still be recorded; appending its events again is harmless.
    """

    def __init__(self, path: Path, epoch: int, lock: WriterLock | None) -> None:
        self._path = path
        self._epoch = epoch
        self._lock = lock
        self._inode = os.stat(path)
        self._reading = schema.open_engine(path, "rw")
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Append | None] = SimpleQueue()
        self._door = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._write_groups, name="journal-writer", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, path: Path, wait_s: float = 10.0, fence: bool = False) -> SqliteJournal:
        """Become the writer: take the lock (waiting up to `wait_s` seconds), then a new epoch; the file is made if it
        is missing. With `fence` the lock is taken over from whoever holds it, whose appends are refused from then on.

        Raises RunError naming the holder, JournalRefusedError when the file cannot be used here, and UsageError on a
        network file system, for another program's file or another version's journal.
        """
        require_local(path.parent)
        if not path.parent.is_dir():
            raise JournalRefusedError(f"journal {path}: the folder {path.parent} does not exist")
        with _lock_errors(path):
            lock = WriterLock.try_acquire(lock_file(path))
            if lock is None and not fence:
                lock = WriterLock.acquire(lock_file(path), wait_s)
        try:
            epoch = _take_epoch(path, wait_s)
            if lock is None:
                # Last: until the old holder is fenced, the lock file names it to whoever asks.
                with _lock_errors(path):
                    lock = WriterLock.seize(lock_file(path))
            return cls(path, epoch, lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @classmethod
    def join(cls, path: Path, epoch: int) -> SqliteJournal:
        """Write on under an epoch already given, as a restarted journal process does. The lock is taken when it is
        free; when a dying predecessor still holds it, the epoch alone keeps others out.

        Raises StaleEpochError when a later writer has taken over, and what `open` raises for an unusable file.
        """
        require_local(path.parent)
        if not path.exists():
            raise JournalRefusedError(f"journal {path}: it does not exist")
        with _lock_errors(path):
            lock = WriterLock.try_acquire(lock_file(path))
        try:
            _confirm_epoch(path, epoch)
            return cls(path, epoch, lock)
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    @property
    def epoch(self) -> int:
        """The epoch this handle writes under."""
        return self._epoch

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """See `Journal.append`. Raises TypeError or ValueError when a body is not JSON; the group is not affected."""
        bodies = [dump_body(event.body) for event in batch]
        loop = asyncio.get_running_loop()
        work = _Append(tuple(batch), bodies, epoch, loop, loop.create_future())
        with self._door:
            if self._closed:
                raise JournalRefusedError(f"journal {self._path}: it is closed")
            self._queue.put(work)
        return await work.future

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """See `Journal.read`; runs in a thread."""
        chosen = None if kinds is None else list(kinds)
        return await self._read(lambda c: schema.select_events(c, after_seq, chosen, island, limit))

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """See `Journal.find`."""
        return await self._read(lambda c: schema.find_events(c, ids)) if ids else {}

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        """See `Journal.texts`; runs in a thread."""
        return await self._read(lambda c: schema.select_texts(c, refs))

    async def close(self) -> None:
        """See `Journal.close`."""
        with self._door:
            if not self._closed:
                self._closed = True
                self._queue.put(None)
        await asyncio.to_thread(self._thread.join)
        self._reading.dispose()
        if self._lock is not None:
            self._lock.release()

    async def _read(self, query: Callable[[Connection], _Result]) -> _Result:
        def work() -> _Result:
            try:
                with self._reading.connect() as connection:
                    return query(connection)
            except DBAPIError as error:
                raise schema.refusal(error.orig, self._path) from error
            except schema.DamagedRowError as error:
                raise schema.refusal(error, self._path) from error

        return await asyncio.to_thread(work)

    def _write_groups(self) -> None:
        """The writer thread: commit what is waiting, answer, again; until the sentinel."""
        ending = False
        while not ending:
            item = self._queue.get()
            group: list[_Append] = []
            while item is not None:
                group.append(item)
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
            ending = item is None
            if group:
                _answer(group, self._commit(group))
        self._disconnect()

    def _commit(self, group: list[_Append]) -> list[_Outcome]:
        """One outcome per append. A group that fails is tried again one by one, so that only what is bad fails."""
        try:
            return self._record(group)
        except Exception as error:
            # Closing rolls back whatever the failed group had begun.
            self._disconnect()
            if len(group) > 1:
                return [outcome for work in group for outcome in self._commit([work])]
            ours = isinstance(error, sqlite3.Error | schema.DamagedRowError)
            return [schema.refusal(error, self._path) if ours else error]

    def _record(self, group: list[_Append]) -> list[_Outcome]:
        """Write a group in one transaction; appends of another epoch are left out."""
        self._check_in_place()
        if self._connection is None:
            self._connection = schema.connect(self._path, "rw")
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        epoch, last = connection.execute(_POSITION).fetchone()
        ids = [event.id for work in group if work.epoch == epoch for event in work.batch]
        recorded = {row[1]: schema.event_from_row(row) for row in connection.execute(_EVENTS_BY_ID, (json.dumps(ids),))}
        rows: list[tuple[object, ...]] = []
        texts: dict[str, str] = {}
        outcomes: list[_Outcome] = [
            _number(work, epoch, (last or 0) + len(rows), recorded, rows, texts)
            if work.epoch == epoch
            else _stale(self._path, work.epoch, epoch)
            for work in group
        ]
        if rows:
            connection.executemany(_INSERT_EVENTS, rows)
        if texts:
            stored = {row[0] for row in connection.execute(_REFS_STORED, (json.dumps(list(texts)),))}
            fresh = [(ref, schema.pack(text)) for ref, text in texts.items() if ref not in stored]
            connection.executemany(_INSERT_TEXTS, fresh)
        connection.execute("COMMIT")
        return outcomes

    def _check_in_place(self) -> None:
        """SQLite would go on writing into a file that was moved or deleted, and all of it would be lost."""
        try:
            same = os.path.samestat(os.stat(self._path), self._inode)
        except FileNotFoundError:
            same = False
        if not same:
            raise JournalRefusedError(f"journal {self._path}: the file was moved, replaced or deleted during the run")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _number(
    work: _Append,
    epoch: int,
    last: int,
    recorded: dict[str, Event],
    rows: list[tuple[object, ...]],
    texts: dict[str, str],
) -> list[Event]:
    """The recorded events of one append; new ones get the next seq and are added to `rows`, `texts`, `recorded`."""
    at = time.time()
    outcome = []
    for event, body in zip(work.batch, work.bodies, strict=True):
        known = recorded.get(event.id)
        if known is None:
            last += 1
            known = Event(event.id, event.kind, event.candidate, event.island, event.body, (), last, epoch, at)
            recorded[event.id] = known
            rows.append((last, event.id, event.kind.value, event.candidate, event.island, epoch, at, body))
            texts.update((text_ref(text), text) for text in event.texts)
        outcome.append(known)
    return outcome


def _stale(path: Path, given: int, current: int) -> StaleEpochError:
    return StaleEpochError(
        f"journal {path}: another process has taken this run over (epoch {current}, ours is {given}); "
        "nothing more is written here"
    )


def _answer(group: list[_Append], outcomes: list[_Outcome]) -> None:
    """Hand the outcomes to the loops that wait, one wake-up per loop."""
    waiting: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[list[Event]], _Outcome]]] = {}
    for work, outcome in zip(group, outcomes, strict=True):
        waiting.setdefault(work.loop, []).append((work.future, outcome))
    for loop, answers in waiting.items():
        # A loop that is closed has nobody left who waits.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, answers)


def _settle(answers: list[tuple[asyncio.Future[list[Event]], _Outcome]]) -> None:
    for future, outcome in answers:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


@contextlib.contextmanager
def _lock_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise JournalRefusedError(f"journal {path}: cannot lock {lock_file(path)}: {error.strerror}") from error


def _take_epoch(path: Path, wait_s: float) -> int:
    """Make or check the file and raise its epoch by one; the commit also makes durable what a killed writer left.

    A transaction under way, such as that of a stopped writer, is waited for up to `wait_s` seconds, one at least: a
    fenced writer may be busy.
    """

    def work(connection: Connection) -> int:
        if not schema.holds_journal(connection, path):
            schema.create_tables(connection)
        raised = update(schema.meta).values(epoch=schema.meta.c.epoch + 1).returning(schema.meta.c.epoch)
        return int(connection.execute(raised).scalar_one())

    if path.exists():
        # Read-only first: opening for writing would switch another program's file to WAL.
        _prepare(path, "ro", lambda connection: schema.holds_journal(connection, path))
    epoch = _prepare(path, "rwc", work, max(wait_s, 1.0))
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return epoch


def _confirm_epoch(path: Path, epoch: int) -> None:
    """Raise StaleEpochError unless `epoch` is current. It is written again, not read: that commit makes durable what
    a killed predecessor left unsynced, which we may acknowledge when it is appended again."""

    def work(connection: Connection) -> None:
        same = update(schema.meta).where(schema.meta.c.epoch == epoch).values(epoch=epoch)
        if connection.execute(same).rowcount == 0:
            current = connection.execute(select(schema.meta.c.epoch)).scalar_one()
            raise _stale(path, epoch, current)

    if not _prepare(path, "ro", lambda connection: schema.holds_journal(connection, path)):
        raise JournalRefusedError(f"journal {path}: it is empty, no epoch was given there")
    _prepare(path, "rw", work)


def _prepare(
    path: Path, mode: schema.Mode, work: Callable[[Connection], _Result], busy_s: float = schema.BUSY_S
) -> _Result:
    begin: schema.Begin = "BEGIN" if mode == "ro" else "BEGIN IMMEDIATE"
    engine = schema.open_engine(path, mode, begin, NullPool, busy_s)
    try:
        with engine.begin() as connection:
            return work(connection)
    except DBAPIError as error:
        raise schema.unusable(error.orig, path) from error
    finally:
        engine.dispose()
