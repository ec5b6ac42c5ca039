"""A run folder from a mirror."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.importing import JournalImport
from adrs_ray.storage.mirror_batch import DamagedBatchError, batch_name
from adrs_ray.storage.mirror_chain import Chain, batch_numbers, read_batch
from adrs_ray.storage.mirror_files import PatientFiles, ReadableFiles, StoreError, open_files
from adrs_ray.storage.runfolder import RUN_YAML, RunFolder, write_atomically

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RestoredRun:
    """What a restore made."""

    events: int
    last_seq: int
    epoch: int
    """The highest that was seen; whoever opens the journal next gets a higher one."""
    lost: str | None
    """What the mirror holds beyond, and why it cannot be used, one line; None when everything was restored."""


async def restore(url: str, path: Path) -> RestoredRun:
    """Make the run folder `path`, which must be missing or empty, from the mirror at `url`, which is only read.

    The journal holds the events, with their seq, id, epoch and time, and the texts of the whole batches up to the first
    one that is missing or damaged; a warning says what stands behind it. The folder appears when it is complete; what a
    crash leaves beside it is cleared by the next restore.

    Raises UsageError when the folder cannot be used or the mirror holds nothing usable, RunError when the store fails.
    """
    return await asyncio.to_thread(_restore, url, path.absolute())


def _restore(url: str, path: Path) -> RestoredRun:
    files = PatientFiles(open_files(url))
    _require_empty(path)
    try:
        run_yaml = files.read(RUN_YAML)
        if run_yaml is None:
            raise UsageError(f"no mirror at {files.where}: it has no {RUN_YAML}")
        with _building(path) as folder:
            restored = _fill(folder, files, run_yaml)
            _sync(folder)
            os.rename(folder, path)
            _sync(path.parent)
    except StoreError as error:
        raise RunError(f"mirror {files.where}: it cannot be read: {error}") from None
    except OSError as error:
        raise UsageError(f"cannot make a run in {path}: {error.strerror} ({error.filename})") from None
    if restored.lost is not None:
        _log.warning("mirror %s: %s", files.where, restored.lost)
    return restored


def _fill(folder: Path, files: ReadableFiles, run_yaml: bytes) -> RestoredRun:
    """Everything that a run folder has."""
    write_atomically(folder / RUN_YAML, run_yaml)
    try:
        run = RunFolder.open(folder)
    except UsageError as error:
        raise UsageError(f"mirror {files.where}: {str(error).replace(str(folder) + os.sep, '')}") from None
    run.commands.mkdir()
    run.best_program.parent.mkdir()
    for best in (run.best_program, run.best_verdict):
        content = files.read(f"best/{best.name}")
        if content is not None:
            write_atomically(best, content)
    journal = JournalImport(run.journal)
    try:
        restored = _import_chain(journal, files)
        journal.finish(restored.epoch)
    finally:
        journal.close()
    return restored


def _import_chain(journal: JournalImport, files: ReadableFiles) -> RestoredRun:
    chain = Chain(files)
    events = last_seq = epoch = batches = 0
    fault = None
    for batch in chain:
        try:
            events += journal.add(batch.entries())
        except DamagedBatchError as error:
            fault = f"{batch_name(batches + 1)} is damaged: {error}"
            break
        batches += 1
        last_seq, epoch = batch.header.last_seq, batch.header.epoch
    fault = fault or chain.fault
    if batches == 0:
        raise UsageError(f"no mirror at {files.where} that can be used: {fault or 'it holds no batch'}")
    if fault is None:
        return RestoredRun(events, last_seq, epoch, None)
    beyond, highest = _beyond(files, batches)
    lost = f"{fault}; restored the {events} events before it, {beyond} in later batches are lost"
    return RestoredRun(events, last_seq, max(epoch, highest), lost)


def _beyond(files: ReadableFiles, batches: int) -> tuple[int, int]:
    """Events in the readable batches behind the usable ones, and the highest epoch there."""
    events = epoch = 0
    for number in batch_numbers(files):
        if number > batches:
            with contextlib.suppress(DamagedBatchError):
                batch = read_batch(files, number)
                if batch is not None:
                    events += batch.header.count
                    epoch = max(epoch, batch.header.epoch)
    return events, epoch


def _require_empty(path: Path) -> None:
    try:
        if path.is_dir():
            first = next(iter(sorted(path.iterdir())), None)
            if first is not None:
                raise UsageError(f"{path} is not empty ({first.name!r} is there): restore into a new folder")
        elif path.exists():
            raise UsageError(f"{path} is a file: restore into a new folder")
    except OSError as error:
        raise UsageError(f"cannot make a run in {path}: {error.strerror}") from None


@contextlib.contextmanager
def _building(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, locked; removed at the end when it was not renamed. Raises OSError."""
    folder = path.with_name(f".{path.name}.restoring")
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            ours = os.path.samestat(os.fstat(descriptor), os.stat(folder))
        except (BlockingIOError, FileNotFoundError):
            ours = False
        if not ours:
            raise UsageError(f"{path} is being restored by another process")
        for entry in folder.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        try:
            yield folder
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
