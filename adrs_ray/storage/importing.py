"""Writing a journal's file from events that were recorded before, with their seq, epoch and time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import NullPool, insert
from sqlalchemy.exc import DBAPIError

from adrs_ray.storage import schema
from adrs_ray.storage.journal import Event, dump_body, text_ref
from adrs_ray.storage.mirror_batch import DamagedBatchError, Text

_INSERT_EVENT = schema.as_sql(insert(schema.events))
_INSERT_TEXT = "INSERT INTO texts (rowid, sha256, zlib) VALUES (?, ?, ?)"


class JournalImport:
    """A new journal file. What `add` was given is in it, whole or not at all; `finish` sets the epoch and closes it.

    Every method raises JournalRefusedError when the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            engine = schema.open_engine(path, "rwc", "BEGIN IMMEDIATE", NullPool)
            with engine.begin() as connection:
                schema.create_tables(connection)
            engine.dispose()
            self._connection = schema.connect(path, "rw")
        except (DBAPIError, sqlite3.Error) as error:
            raise schema.refusal(error.orig if isinstance(error, DBAPIError) else error, path) from error

    def add(self, entries: Iterable[Text | Event]) -> int:
        """Texts and events in one transaction; returns how many events. Raises DamagedBatchError for what no journal
        can hold (an event or text twice, names without UTF-8), and what `entries` raises."""
        count = 0
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            for entry in entries:
                if isinstance(entry, Text):
                    row = (entry.number, text_ref(entry.text), schema.pack(entry.text))
                    self._connection.execute(_INSERT_TEXT, row)
                else:
                    self._connection.execute(_INSERT_EVENT, _row(entry))
                    count += 1
            self._connection.execute("COMMIT")
        except BaseException as error:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError | ValueError | OverflowError | RecursionError):
                raise DamagedBatchError(f"it holds what no journal does: {error}") from None
            if isinstance(error, sqlite3.Error):
                raise schema.refusal(error, self._path) from error
            raise
        return count

    def finish(self, epoch: int) -> None:
        """Make it durable, as one file, with this epoch: the next writer gets a higher one."""
        try:
            self._connection.execute("UPDATE meta SET epoch = ?", (epoch,))
            # The last connection that closes moves the log into the file, synced.
            self._connection.close()
        except sqlite3.Error as error:
            raise schema.refusal(error, self._path) from error

    def close(self) -> None:
        """Close the file as it is; safe to call twice."""
        self._connection.close()


def _row(event: Event) -> tuple[object, ...]:
    body = dump_body(event.body)
    return event.seq, event.id, event.kind.value, event.candidate, event.island, event.epoch, event.at, body
