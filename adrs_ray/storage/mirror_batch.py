"""One file of a mirror: a batch of events with the texts that they introduced.

`000001.jsonl.gz`, unpacked, is lines of JSON: first a header, then texts and events in the order of the journal, each
text before the first event that needs it, and once in the whole mirror. The header holds the sha256 of the rest and the
digest of the batch before, so that a mirror is a chain: what was damaged, left out, put in another order or written by
two heads at once is seen, and what stands before it is whole.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import Event, EventKind

VERSION = 1
MAX_UNPACKED = 1 << 28
"""Bytes of a batch, unpacked, that are read; ours end at a tenth of it unless one event's texts are larger."""
_NAME = re.compile(r"(\d{6,18})\.jsonl\.gz")
_INT64 = 1 << 63
_KINDS = {kind.value: kind for kind in EventKind}
_EVENT_KEYS = {"seq", "id", "kind", "candidate", "island", "epoch", "at", "body"}


class DamagedBatchError(Exception):
    """A batch that cannot be used; the message says why in a few words."""


class RunIdentity(BaseModel):
    """Which run a mirror holds, as its run.yaml says."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: str
    created: str


class Position(BaseModel):
    """Where a journal stands: the event at its `last_seq`. Two journals that agree here agree on all before."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str
    epoch: int
    at: float


class Header(BaseModel):
    """The first line of a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    version: Literal[1] = 1
    batch: int = Field(ge=1)
    run: RunIdentity | None
    writer: str
    """Drawn anew at each opening."""
    epoch: int = Field(ge=0, lt=_INT64)
    """Of the writer."""
    first_seq: int = Field(ge=1)
    last_seq: int = Field(ge=0)
    """One less than `first_seq` when it holds no event: a head that took the run over says so."""
    count: int = Field(ge=0)
    last_text: int = Field(ge=0)
    """Number of the last text in the mirror up to here."""
    last: Position | None
    """The event at `last_seq`; None before the first."""
    previous: str
    """Digest of the batch before; empty for the first."""
    sha256: str
    """Of the lines that follow."""


@dataclass(frozen=True, slots=True)
class Text:
    """A text and its place in the order in which the journal got its texts."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Batch:
    """A file that was read and is what its header says; what its lines hold is looked at by `entries`."""

    header: Header
    digest: str
    lines: bytes

    def entries(self) -> Iterator[Text | Event]:
        """Texts and events in order. Raises DamagedBatchError at the first line that is neither."""
        seq = self.header.first_seq
        for line in self.lines.split(b"\n")[:-1]:
            entry = _entry(line)
            if isinstance(entry, Event):
                if entry.seq != seq or entry.epoch > self.header.epoch:
                    raise DamagedBatchError(f"event {entry.id[:40]!r} is out of order")
                seq += 1
            yield entry
        if seq != self.header.last_seq + 1:
            raise DamagedBatchError(f"it holds {seq - self.header.first_seq} events of {self.header.count}")


def batch_name(number: int) -> str:
    """The file of a batch."""
    return f"{number:06}.jsonl.gz"


def batch_number(name: str) -> int | None:
    """The number of a batch's file; None for other files."""
    match = _NAME.fullmatch(name)
    return None if match is None or batch_name(int(match[1])) != name else int(match[1])


def header_line(header: Header) -> bytes:
    """The first line of a file, its newline included; its sha256 is the batch's digest."""
    return header.model_dump_json().encode() + b"\n"


def digest_of(line: bytes) -> str:
    """The digest of the batch with this header line."""
    return hashlib.sha256(line).hexdigest()


def whole_file(header_line: bytes, packed_lines: bytes) -> bytes:
    """The file of a batch: the header and the lines, which are packed already, as two gzip members."""
    return gzip.compress(header_line, mtime=0) + packed_lines


def text_line(text: Text) -> bytes:
    """The line of a text."""
    return _encoded({"text": text.number, "is": text.text})


def event_line(row: tuple[int, str, str, str | None, int, int, float, str]) -> bytes:
    """The line of an event, from its row in the journal; the body is JSON already."""
    seq, name, kind, candidate, island, epoch, at, body = row
    head = json.dumps(
        {"seq": seq, "id": name, "kind": kind, "candidate": candidate, "island": island, "epoch": epoch, "at": at},
        separators=(",", ":"),
        ensure_ascii=False,
    )
    return f'{head[:-1]},"body":{body}}}\n'.encode()


def _encoded(value: dict[str, Any]) -> bytes:
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; escaped it survives.
        return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def parse_file(data: bytes) -> Batch:
    """The batch in a file. Raises DamagedBatchError; UsageError when another version of this format wrote it."""
    unpacked = _unpacked(data)
    line, newline, lines = unpacked.partition(b"\n")
    if not newline:
        raise DamagedBatchError("it has no header")
    header = _header(line)
    if hashlib.sha256(lines).hexdigest() != header.sha256:
        raise DamagedBatchError("its content is not what its header says")
    if header.last_seq - header.first_seq + 1 != header.count or (header.last is None) != (header.last_seq == 0):
        raise DamagedBatchError("its header contradicts itself")
    return Batch(header, digest_of(line + newline), lines)


def _unpacked(data: bytes) -> bytes:
    parts: list[bytes] = []
    room = MAX_UNPACKED
    while data:
        member = zlib.decompressobj(31)
        try:
            parts.append(member.decompress(data, room))
        except zlib.error as error:
            raise DamagedBatchError(f"it cannot be unpacked: {error}") from None
        room -= len(parts[-1])
        if not member.eof:
            raise DamagedBatchError("it is cut off" if room > 0 else "it is larger than a batch can be")
        data = member.unused_data
    return b"".join(parts)


def _header(line: bytes) -> Header:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        raise DamagedBatchError("its first line is no header") from None
    version = data.get("version") if isinstance(data, dict) else None
    if isinstance(version, int) and version != VERSION:
        raise UsageError(
            f"a mirror of format {version}, this adrs reads format {VERSION}: use the release that wrote it"
        )
    try:
        header = Header.model_validate_json(line)
    except ValidationError:
        raise DamagedBatchError("its first line is no header") from None
    if header.last is not None and not math.isfinite(header.last.at):
        raise DamagedBatchError("its header holds no time")
    return header


def _entry(line: bytes) -> Text | Event:
    try:
        data = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise DamagedBatchError(f"a line is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise DamagedBatchError("a line is no object")
    if data.keys() == {"text", "is"}:
        number, text = data["text"], data["is"]
        if not _is_int(number) or not 0 < number < _INT64 or not isinstance(text, str):
            raise DamagedBatchError("a line is no text")
        return Text(number, text)
    if data.keys() != _EVENT_KEYS or not _is_event(data):
        raise DamagedBatchError("a line is no event")
    return Event(
        data["id"],
        _KINDS[data["kind"]],
        data["candidate"],
        data["island"],
        data["body"],
        (),
        data["seq"],
        data["epoch"],
        data["at"],
    )


def _is_event(data: dict[str, Any]) -> bool:
    numbers = (data["seq"], data["island"], data["epoch"])
    return (
        isinstance(data["id"], str)
        and isinstance(data["kind"], str)
        and data["kind"] in _KINDS
        and (data["candidate"] is None or isinstance(data["candidate"], str))
        and all(_is_int(number) and -_INT64 <= number < _INT64 for number in numbers)
        and isinstance(data["at"], float)
        and math.isfinite(data["at"])
        and isinstance(data["body"], dict)
    )


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
