"""The mirror of a run: its journal once more, as numbered batches of events in a folder of any fsspec file system.

What a run loses with the disk of its head is what the mirror lacks: with `ack: local` the last `lag_s` seconds, with
`ack: mirror` nothing that was acknowledged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import ValidationError

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.excerpt import ExcerptReader
from adrs_ray.storage.journal import Event, EventKind, Journal
from adrs_ray.storage.mirror_batch import RunIdentity
from adrs_ray.storage.mirror_chain import MirrorState, attach, mirror_state
from adrs_ray.storage.mirror_files import MirrorFiles, StoreError, absolute_url, open_files
from adrs_ray.storage.mirror_restore import RestoredRun, restore
from adrs_ray.storage.mirror_upload import MirrorLag, Uploader
from adrs_ray.storage.runfolder import RUN_YAML, RunFolder
from adrs_ray.storage.sqlite import SqliteJournal

__all__ = [
    "MirrorFiles",
    "MirrorLag",
    "MirrorState",
    "MirroredJournal",
    "RestoredRun",
    "absolute_url",
    "mirror_best",
    "mirror_state",
    "open_files",
    "open_mirrored",
    "restore",
]

OPEN_WAIT_S = 30.0
CLOSE_WAIT_S = 15.0
_PAUSE_S = 0.5

_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class MirroredJournal:
    """A `Journal` that is copied elsewhere as it grows. Made by `open_mirrored`; owns the journal that it wraps.

    Beyond the contract: once another head writes the mirror, appends raise StaleEpochError. With `ack: mirror` an
    append that ends in StaleEpochError or JournalRefusedError may stand in the journal here, and it is not in the
    mirror. While the mirror is away, appends go on (`ack: local`) or wait (`ack: mirror`); `lag` tells.
    """

    def __init__(self, journal: SqliteJournal, uploader: Uploader, waits: bool, close_wait_s: float) -> None:
        self._journal = journal
        self._uploader = uploader
        self._waits = waits
        self._close_wait_s = close_wait_s

    @property
    def epoch(self) -> int:
        """The epoch this handle writes under."""
        return self._journal.epoch

    def lag(self) -> MirrorLag:
        """How far the mirror is behind."""
        return self._uploader.lag()

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        """See `Journal.append`."""
        self._uploader.enter()
        seq = 0
        try:
            recorded = await self._journal.append(batch, epoch)
            # Recorded before us, an event may still be on its way to the mirror.
            seq = max((event.seq for event in recorded), default=0)
        finally:
            self._uploader.leave(seq)
        if self._waits:
            await self._uploader.reached(seq)
        return recorded

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        """See `Journal.read`."""
        return await self._journal.read(after_seq, kinds, island, limit)

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """See `Journal.find`."""
        return await self._journal.find(ids)

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        """See `Journal.texts`."""
        return await self._journal.texts(refs)

    async def close(self) -> None:
        """See `Journal.close`. What the mirror lacks is uploaded first, for a bounded time; a warning says what it
        still lacks then."""
        await asyncio.to_thread(self._uploader.finish, self._close_wait_s)
        await self._journal.close()


async def open_mirrored(
    journal: SqliteJournal,
    config: MirrorConfig,
    run_yaml: Path | None,
    wait_s: float = OPEN_WAIT_S,
    close_wait_s: float = CLOSE_WAIT_S,
) -> Journal:
    """The journal with its mirror; the journal itself when the config names none.

    Claims the mirror for the journal's epoch, which fences other heads, then uploads what it lacks, and goes on from
    there; with `ack: mirror` what it lacks is uploaded before this returns. `run_yaml` is copied beside the batches,
    and says which run this is. A store that fails is tried again for `wait_s` seconds.

    Raises UsageError for a URL that cannot be used and for a mirror of another run or with more events than the
    journal; StaleEpochError when a later head has the mirror; RunError when the store fails. The journal stays open.
    """
    if config.url is None:
        return journal
    files = await asyncio.to_thread(open_files, config.url)
    give_up = time.monotonic() + wait_s
    identity, text = (None, None) if run_yaml is None else _identified(run_yaml)
    at_once = config.ack == "mirror"

    def claim() -> Uploader:
        reader = ExcerptReader(journal.path)
        try:
            tip = attach(files, reader, journal.epoch, identity)
            uploader = Uploader(files, reader, tip, journal.epoch, identity, config.lag_s, at_once)
            if text is not None:
                # Before the first batch: a mirror that has one can be restored.
                files.put(RUN_YAML, text)
            uploader.claim()
        except BaseException:
            reader.close()
            raise
        return uploader

    uploader = await asyncio.to_thread(_insist, claim, files, give_up)
    uploader.start()
    if at_once:
        try:
            await uploader.caught_up()
        except BaseException:
            await asyncio.to_thread(uploader.finish, 0.0)
            raise
    return MirroredJournal(journal, uploader, at_once, close_wait_s)


async def mirror_best(config: MirrorConfig, folder: RunFolder) -> None:
    """Copy the best program and its verdict to the mirror; nothing happens without a mirror or a best program.

    A store that fails is a warning: the journal has both.
    """
    if config.url is None:
        return
    files = await asyncio.to_thread(open_files, config.url)

    def copy() -> None:
        for file in (folder.best_program, folder.best_verdict):
            if file.is_file():
                files.put(f"best/{file.name}", file.read_bytes())

    try:
        await asyncio.to_thread(_insist, copy, files, time.monotonic() + CLOSE_WAIT_S)
    except RunError as error:
        _log.warning("the best program is not in the mirror: %s", error)


def _insist(work: Callable[[], _Result], files: MirrorFiles, give_up: float) -> _Result:
    """Do it; while the store fails, again until `give_up`. Raises RunError."""
    while True:
        try:
            return work()
        except StoreError as error:
            if time.monotonic() + _PAUSE_S >= give_up:
                raise RunError(f"mirror {files.where}: {error}") from None
        time.sleep(_PAUSE_S)


def _identified(run_yaml: Path) -> tuple[RunIdentity, bytes]:
    """Which run a run.yaml says it is, and its text. Raises UsageError."""
    try:
        text = run_yaml.read_bytes()
        section = yaml.safe_load(text)["run"]
        return RunIdentity(name=section["name"], created=section["created"]), text
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValidationError) as error:
        raise UsageError(f"cannot read {run_yaml}: {' '.join(str(error).split())[:300]}") from None
