"""The journal's SQLite file: its tables, how it is opened and checked, and how rows become events.

Shared by the writer (`sqlite.py`) and by read-only readers (`reader.py`). No module may open the file by other means
in a process that has a connection: closing any descriptor of it drops SQLite's POSIX locks.
"""

from __future__ import annotations

import json
import os
import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias
from urllib.parse import quote

from sqlalchemy import (
    ClauseElement,
    Column,
    Connection,
    Engine,
    Float,
    Integer,
    LargeBinary,
    MetaData,
    Pool,
    QueuePool,
    Table,
    Text,
    bindparam,
    create_engine,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy.dialects import sqlite

from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError

SCHEMA_VERSION = 2

Mode: TypeAlias = Literal["rwc", "rw", "ro"]
Begin: TypeAlias = Literal["BEGIN", "BEGIN IMMEDIATE"]

BUSY_S = 30.0
"""How long a transaction waits for another process's."""

_DIALECT = sqlite.dialect()

metadata = MetaData()

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("kind", Text, nullable=False),
    Column("candidate", Text),
    Column("island", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("at", Float, nullable=False),
    Column("body", Text, nullable=False),
)

texts = Table(
    "texts",
    metadata,
    Column("sha256", Text, primary_key=True),
    Column("zlib", LargeBinary, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("one", Integer, primary_key=True),
    Column("epoch", Integer, nullable=False),
    Column("schema_version", Integer, nullable=False),
)

_KINDS = {kind.value: kind for kind in EventKind}

# One bound JSON array instead of a parameter each: the statement's text, and so its compiled form, never changes.
_listed = select(func.json_each(bindparam("keys")).table_valued("value").c.value)
events_by_id = select(events).where(events.c.id.in_(_listed.scalar_subquery()))
texts_by_ref = select(texts).where(texts.c.sha256.in_(_listed.scalar_subquery()))
refs_stored = select(texts.c.sha256).where(texts.c.sha256.in_(_listed.scalar_subquery()))


def as_sql(statement: ClauseElement) -> str:
    """The text of a statement, parameters as `?` in the order of its columns or binds."""
    return str(statement.compile(dialect=_DIALECT))


def connect(path: Path, mode: Mode, busy_s: float = BUSY_S) -> sqlite3.Connection:
    """A connection of the driver, with transactions begun by hand. A lock is waited for up to `busy_s` seconds.

    Modes: `rwc` makes a missing file, `rw` and `ro` do not. Commits are fsynced.
    """
    uri = f"file:{quote(str(path))}?mode={mode}"
    if mode == "ro" and not os.access(path.parent, os.W_OK) and not _has_frames(path):
        # A folder we cannot write to has no place for the WAL index; with no WAL there is nothing it could say.
        uri += "&immutable=1"
    connection = sqlite3.connect(uri, timeout=busy_s, isolation_level=None, check_same_thread=False, uri=True)
    if mode != "ro":
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        except sqlite3.Error:
            connection.close()
            raise
    return connection


def open_engine(
    path: Path, mode: Mode, begin: Begin = "BEGIN", pool: type[Pool] = QueuePool, busy_s: float = BUSY_S
) -> Engine:
    """An engine over `connect`; each transaction starts with `begin`."""
    engine = create_engine("sqlite+pysqlite://", creator=lambda: connect(path, mode, busy_s), poolclass=pool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine


def _has_frames(path: Path) -> bool:
    wal = path.with_name(path.name + "-wal")
    return wal.exists() and wal.stat().st_size > 0


def holds_journal(connection: Connection, path: Path) -> bool:
    """Whether the file has the journal's tables; False when it is empty.

    Raises UsageError, one line, for another program's file and for another version's journal.
    """
    names = set(inspect(connection).get_table_names())
    if not names:
        return False
    if not names >= {"events", "texts", "meta"}:
        raise UsageError(f"{path} is a SQLite file of another program, not a journal of adrs")
    version = connection.execute(select(func.max(meta.c.schema_version))).scalar()
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has journal format {version}, this adrs reads format {SCHEMA_VERSION}: "
            "use the release that run.yaml names"
        )
    return True


def create_tables(connection: Connection) -> None:
    """Make an empty file a journal of epoch 0."""
    metadata.create_all(connection)
    connection.execute(meta.insert().values(one=1, epoch=0, schema_version=SCHEMA_VERSION))


class DamagedRowError(Exception):
    """SQLite reads the row, but what it holds was never written by a journal."""


def unusable(error: BaseException | None, path: Path) -> UsageError | JournalRefusedError:
    """What a user is told when the file cannot be opened."""
    if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
        return UsageError(f"{path} is not a journal: it is no SQLite file")
    return refusal(error, path)


def refusal(error: BaseException | None, path: Path) -> JournalRefusedError:
    """One line for a database error: what was wrong, where, and what to do."""
    name = "SQLITE_CORRUPT" if isinstance(error, DamagedRowError) else getattr(error, "sqlite_errorname", "")
    for prefix, line in (
        ("SQLITE_FULL", "the disk is full: free some space, then `adrs resume`"),
        ("SQLITE_READONLY", "it is read-only: make the folder writable, then `adrs resume`"),
        ("SQLITE_CORRUPT", "it is damaged: restore the run folder from a copy"),
        ("SQLITE_NOTADB", "it is damaged: restore the run folder from a copy"),
        ("SQLITE_BUSY", "a process was stopped or hangs in the middle of a write: end it (journal.lock names it)"),
        ("SQLITE_CANTOPEN", "it cannot be opened: check that the folder exists and may be read and written"),
        ("SQLITE_IOERR", "the disk gave an input/output error: check the disk, then `adrs resume`"),
    ):
        if name.startswith(prefix):
            return JournalRefusedError(f"journal {path}: {line} ({error})")
    return JournalRefusedError(f"journal {path}: {error}")


def event_from_row(row: Sequence[Any]) -> Event:
    """One row of `events` as an event without texts. Raises DamagedRowError."""
    seq, event_id, kind, candidate, island, epoch, at, body = row
    try:
        return Event(event_id, _KINDS[kind], candidate, island, json.loads(body), (), seq, epoch, at)
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRowError(f"event {seq}: {type(error).__name__}: {error}") from error


def select_events(
    connection: Connection, after_seq: int, kinds: Iterable[EventKind] | None, island: int | None, limit: int | None
) -> list[Event]:
    """The read of the Journal protocol."""
    query = select(events).where(events.c.seq > after_seq).order_by(events.c.seq)
    if kinds is not None:
        query = query.where(events.c.kind.in_([kind.value for kind in kinds]))
    if island is not None:
        query = query.where(events.c.island == island)
    if limit is not None:
        query = query.limit(limit)
    return [event_from_row(row) for row in connection.execute(query)]


def find_events(connection: Connection, ids: Sequence[str]) -> dict[str, Event]:
    """The find of the Journal protocol."""
    rows = connection.execute(events_by_id, {"keys": json.dumps(list(ids))})
    return {event.id: event for event in map(event_from_row, rows)}


def select_texts(connection: Connection, refs: Sequence[str]) -> dict[str, str]:
    """The texts of the Journal protocol. Raises KeyError naming a ref that is not stored."""
    found = {ref: unpack(blob) for ref, blob in connection.execute(texts_by_ref, {"keys": json.dumps(list(refs))})}
    return {ref: found[ref] for ref in refs}


def pack(text: str) -> bytes:
    """The stored form of a text. Lone surrogates survive: programs and outputs of candidates may hold any."""
    return zlib.compress(text.encode("utf-8", "surrogatepass"))


def unpack(blob: bytes) -> str:
    """The inverse of `pack`. Raises DamagedRowError."""
    try:
        return zlib.decompress(blob).decode("utf-8", "surrogatepass")
    except (TypeError, zlib.error, UnicodeDecodeError) as error:
        raise DamagedRowError(f"a text: {error}") from error
