"""The batches of a mirror as a chain: where it ends, what of it is whole, and whose it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.excerpt import ExcerptReader
from adrs_ray.storage.journal import StaleEpochError
from adrs_ray.storage.mirror_batch import (
    Batch,
    DamagedBatchError,
    Header,
    Position,
    RunIdentity,
    batch_name,
    batch_number,
    parse_file,
)
from adrs_ray.storage.mirror_files import MirrorFiles, PatientFiles, ReadableFiles, StoreError, open_files

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tip:
    """The last batch of a chain; number 0 when there is none."""

    number: int = 0
    header: Header | None = None
    digest: str = ""

    @property
    def last_seq(self) -> int:
        return 0 if self.header is None else self.header.last_seq

    @property
    def last_text(self) -> int:
        return 0 if self.header is None else self.header.last_text

    @property
    def last(self) -> Position | None:
        return None if self.header is None else self.header.last

    @property
    def epoch(self) -> int:
        return 0 if self.header is None else self.header.epoch

    def fault(self, batch: Batch) -> str | None:
        """Why a batch cannot be the next one; None when it can."""
        header = batch.header
        if header.batch != self.number + 1:
            return f"it is batch {header.batch}"
        if header.previous != self.digest:
            return "it does not continue the batch before: two heads wrote at once, or it is of another mirror"
        if header.first_seq != self.last_seq + 1 or header.last_text < self.last_text or header.epoch < self.epoch:
            return "its events do not follow those of the batch before"
        return None

    def followed_by(self, batch: Batch) -> Tip:
        """The tip after the next batch."""
        return Tip(self.number + 1, batch.header, batch.digest)


@dataclass(frozen=True, slots=True)
class MirrorState:
    """How far a mirror is."""

    last_seq: int
    """Events in it."""
    epoch: int
    """The highest that a head wrote under."""
    run: str | None
    """The run's name."""
    last: Position | None = None
    """The event at `last_seq`; None without any."""

    def within(self, journal: Path) -> bool:
        """Whether a journal's file holds all events of the mirror. Raises UsageError when it is no journal."""
        reader = ExcerptReader(journal)
        try:
            return reader.position(self.last_seq) == self.last
        finally:
            reader.close()


class Chain:
    """The whole batches of a mirror, from the first; iterated once. Afterwards `tip` is the last one and `fault` says
    why the next one is none, if there is something in its place or behind it."""

    def __init__(self, files: ReadableFiles) -> None:
        self.tip = Tip()
        self.fault: str | None = None
        self._files = files

    def __iter__(self) -> Iterator[Batch]:
        while True:
            number = self.tip.number + 1
            try:
                batch = read_batch(self._files, number)
            except DamagedBatchError as error:
                self.fault = f"{batch_name(number)} is damaged: {error}"
                return
            if batch is None:
                if any(later > number for later in batch_numbers(self._files)):
                    self.fault = f"{batch_name(number)} is missing"
                return
            fault = self.tip.fault(batch)
            if fault is not None:
                self.fault = f"{batch_name(number)}: {fault}"
                return
            yield batch
            self.tip = self.tip.followed_by(batch)


def read_batch(files: ReadableFiles, number: int) -> Batch | None:
    """One batch; None when there is none. Raises DamagedBatchError, StoreError."""
    data = files.read(batch_name(number))
    return None if data is None else parse_file(data)


def batch_numbers(files: ReadableFiles) -> list[int]:
    """Numbers of the batches that the store lists, sorted."""
    return sorted(number for name in files.names() if (number := batch_number(name)) is not None)


def find_tip(files: ReadableFiles) -> tuple[Tip, bool]:
    """Where the chain ends, and whether every batch belongs to it as far as that is seen without reading them all: when
    the numbers have no gap, the last batch alone is read."""
    numbers = batch_numbers(files)
    last = numbers[-1] if numbers else 0
    if numbers != list(range(1, last + 1)):
        return _whole_tip(files)
    try:
        batch = read_batch(files, last) if last else None
        # Listings may be late; a file that was written is there by its name.
        while (later := read_batch(files, last + 1)) is not None:
            last, batch = last + 1, later
    except DamagedBatchError:
        return _whole_tip(files)
    if batch is None:
        return Tip(), True
    if batch.header.batch != last:
        return _whole_tip(files)
    return Tip(last, batch.header, batch.digest), True


def _whole_tip(files: ReadableFiles) -> tuple[Tip, bool]:
    chain = Chain(files)
    for _ in chain:
        pass
    return chain.tip, chain.fault is None


def mirror_state(url: str) -> MirrorState | None:
    """How far the mirror at `url` is; None when there is none. Blocks.

    Raises UsageError for a URL that cannot be used or another version's mirror, RunError when the store fails.
    """
    files = PatientFiles(open_files(url))
    try:
        tip, _ = find_tip(files)
    except StoreError as error:
        raise RunError(f"mirror {files.where}: it cannot be read: {error}") from None
    if tip.header is None:
        return None
    return MirrorState(tip.last_seq, tip.epoch, None if tip.header.run is None else tip.header.run.name, tip.last)


def attach(files: MirrorFiles, journal: ExcerptReader, epoch: int, run: RunIdentity | None) -> Tip:
    """Where a writer with this journal goes on in a mirror.

    Batches that no restore can reach, behind a damage, are set aside under `lost/`. Raises StaleEpochError when a later
    head writes there, UsageError when it holds another run or more of this one than the journal, StoreError.
    """
    tip, whole = find_tip(files)
    _refuse_other_run(files, tip, run)
    if tip.epoch > epoch:
        raise taken_over(files, tip.epoch, epoch)
    agrees = journal.position(tip.last_seq) == tip.last
    if not agrees and whole:
        # Restored from what stands before a damage, this journal cannot hold what stands behind it.
        tip, whole = _whole_tip(files)
        agrees = not whole and journal.position(tip.last_seq) == tip.last
    if not agrees:
        raise _other_events(files, tip, journal.last_seq())
    if not whole:
        _set_aside(files, tip.number)
    return tip


def taken_over(files: MirrorFiles, theirs: int, ours: int) -> StaleEpochError:
    """What a writer is told that is not the last one any more."""
    who = (
        f"another head has taken this run over (epoch {theirs}, ours is {ours})"
        if theirs > ours
        else "another head of this run writes there, too"
    )
    return StaleEpochError(f"mirror {files.where}: {who}; nothing more is written there")


def _refuse_other_run(files: MirrorFiles, tip: Tip, run: RunIdentity | None) -> None:
    theirs = None if tip.header is None else tip.header.run
    if theirs is not None and run is not None and theirs != run:
        raise UsageError(
            f"mirror {files.where} holds another run ({theirs.name}, made {theirs.created}): give this one a "
            "mirror.url of its own"
        )


def _other_events(files: MirrorFiles, tip: Tip, last_seq: int) -> UsageError:
    if tip.last_seq > last_seq:
        return UsageError(
            f"mirror {files.where} holds {tip.last_seq} events and this journal {last_seq}: go on from the mirror with "
            f"`adrs restore {files.where} NEW_FOLDER`, or give another mirror.url"
        )
    return UsageError(
        f"mirror {files.where} holds events of another run, or of another head's continuation of this one: give "
        f"another mirror.url, or go on from the mirror with `adrs restore {files.where} NEW_FOLDER`"
    )


def _set_aside(files: MirrorFiles, after: int) -> None:
    """Move the batches with higher numbers to `lost/`, the last one first: a crash in between leaves fewer of them."""
    numbers = [number for number in batch_numbers(files) if number > after]
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    for number in reversed(numbers):
        name = batch_name(number)
        data = files.read(name)
        if data is not None:
            files.put(f"lost/{stamp}-{name}", data)
            files.remove(name)
    _log.warning("mirror %s: batches %s cannot be restored and lie in lost/ now", files.where, numbers)
