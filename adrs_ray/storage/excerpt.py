"""Reading a journal's file in order for its mirror: what came after a place, packed, in pieces of bounded size.

The number of a text is its rowid in the journal: texts are only ever inserted, so rowids are the order in which they
came. A text that the body of an event refers to is taken with that event at the latest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.storage import schema
from adrs_ray.storage.mirror_batch import Position, Text, event_line, text_line

MAX_PACKED = 4 << 20
"""Bytes of an excerpt, packed, after which no further event is begun."""
MAX_LINES = 24 << 20
"""The same, unpacked."""
LEVEL = 6
"""Of zlib: level 1 saves a fifth of the CPU and doubles the files (tests/benchmarks/mirror.py)."""
_BLOCK = 256
_REF = re.compile(r'"([0-9a-f]{64})"')

_NEWEST = "SELECT coalesce(max(seq), 0) FROM events"
_EVENTS = "SELECT seq, id, kind, candidate, island, epoch, at, body FROM events WHERE seq > ? ORDER BY seq LIMIT ?"
_POSITION = "SELECT id, epoch, at FROM events WHERE seq = ?"
_NUMBERS = "SELECT sha256, rowid FROM texts WHERE sha256 IN (SELECT value FROM json_each(?))"
_TEXTS = "SELECT rowid, zlib FROM texts WHERE rowid > ? AND rowid <= ? ORDER BY rowid"
_NEWEST_TEXT = "SELECT coalesce(max(rowid), 0) FROM texts"


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of a batch."""

    last_seq: int
    last_text: int
    last: Position | None
    packed: bytes
    """As one gzip member."""
    sha256: str
    """Of the lines."""
    is_all: bool
    """Whether nothing was left behind when it was read."""


class ExcerptReader:
    """A read-only connection of its own to a journal's file; for one thread at a time.

    Every method raises JournalRefusedError, one line, when the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None

    def last_seq(self) -> int:
        """The seq of the newest event; 0 when there is none."""
        with self._snapshot() as connection:
            return int(connection.execute(_NEWEST).fetchone()[0])

    def position(self, seq: int) -> Position | None:
        """The event at `seq`; None when there is none."""
        with self._snapshot() as connection:
            row = connection.execute(_POSITION, (seq,)).fetchone()
        return None if row is None else Position(id=row[0], epoch=row[1], at=row[2])

    def excerpt(self, after_seq: int, after_text: int, last: Position | None) -> Excerpt:
        """What came after these two numbers, from the beginning, up to a size; `last` is the event at `after_seq`."""
        lines = _Lines()
        seq, text = after_seq, after_text
        with self._snapshot() as connection:
            newest, newest_text = (int(connection.execute(query).fetchone()[0]) for query in (_NEWEST, _NEWEST_TEXT))
            while seq < newest and not lines.full:
                rows = connection.execute(_EVENTS, (seq, _BLOCK)).fetchall()
                for row, needed in zip(rows, _needed(connection, rows), strict=True):
                    text = lines.add_texts(connection, text, needed)
                    lines.add(event_line(row))
                    seq = row[0]
                    if lines.full:
                        break
                last = Position(id=row[1], epoch=row[5], at=row[6])
            if seq == newest:
                # Those that no body names, which only an odd caller appends.
                text = lines.add_texts(connection, text, newest_text)
        packed, sha256 = lines.end()
        return Excerpt(seq, text, last, packed, sha256, seq == newest and text == newest_text)

    def close(self) -> None:
        """Close the connection; safe to call twice."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        try:
            if self._connection is None:
                self._connection = schema.connect(self._path, "ro")
            self._connection.execute("BEGIN")
            yield self._connection
            self._connection.execute("COMMIT")
        except (sqlite3.Error, schema.DamagedRowError) as error:
            self.close()
            raise schema.refusal(error, self._path) from error
        except BaseException:
            self.close()
            raise


class _Lines:
    """Lines that are packed one by one, so that memory holds one of them and what they pack to."""

    def __init__(self) -> None:
        self._packer = zlib.compressobj(LEVEL, zlib.DEFLATED, 31)
        self._packed: list[bytes] = []
        self._digest = hashlib.sha256()
        self._packed_size = self._size = 0

    @property
    def full(self) -> bool:
        return self._packed_size >= MAX_PACKED or self._size >= MAX_LINES

    def add(self, line: bytes) -> None:
        self._digest.update(line)
        self._size += len(line)
        self._keep(self._packer.compress(line))

    def add_texts(self, connection: sqlite3.Connection, after: int, upto: int) -> int:
        """Texts with a number above `after`; the number of the last one that was added, `after` when there is none."""
        if upto > after:
            for number, blob in connection.execute(_TEXTS, (after, upto)):
                self.add(text_line(Text(number, schema.unpack(blob))))
                after = number
        return after

    def end(self) -> tuple[bytes, str]:
        self._keep(self._packer.flush())
        return b"".join(self._packed), self._digest.hexdigest()

    def _keep(self, packed: bytes) -> None:
        if packed:
            self._packed.append(packed)
            self._packed_size += len(packed)


def _needed(
    connection: sqlite3.Connection, rows: Sequence[tuple[int, str, str, str | None, int, int, float, str]]
) -> list[int]:
    """For each event the highest number among the texts that its body refers to; 0 for none."""
    refs = [_REF.findall(row[7]) for row in rows]
    numbers = dict(connection.execute(_NUMBERS, (json.dumps(sorted({ref for each in refs for ref in each})),)))
    return [max((numbers.get(ref, 0) for ref in each), default=0) for each in refs]
