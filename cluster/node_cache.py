"""A task on every node: its folder and its recorded data go through the object store once, and onto each disk once.

The driver puts what it has (`parcel_task`); a slot on a node that lacks it writes it into that node's cache and loads
the task from there (`unpack_task`). Many slots of a node do so once: a lock per entry, and renames that are whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from adrs_ray.errors import UsageError
from adrs_ray.storage.runfolder import write_atomically
from adrs_ray.task import DataFile, Task, builtin_tasks
from adrs_ray.task_spec import data_dirs, data_file
from cluster import folder

KEEP_BYTES = 2 * 1024**3
"""Of unpacked task folders that no process uses; the oldest go first."""
ABANDONED_S = 3600.0
"""Age at which a folder that was being written is nobody's any more."""

Put = Callable[[Any], Any]
Get = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class DataParcel:
    """A recorded file; `content` refers to its bytes."""

    file: DataFile
    content: Any = field(repr=False)


@dataclass(frozen=True, slots=True)
class TaskParcel:
    """A task by name or folder, with what a node may lack of it."""

    reference: str
    """A built-in task's name, or the folder on the driver's machine."""
    digest: str | None = None
    """Of the folder; None: the task is on every node."""
    packed: Any = field(default=None, repr=False)
    """Refers to the folder's files."""
    data: tuple[DataParcel, ...] = ()


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Where `load_task` finds the task on this node; it stays there as long as `in_use` is open."""

    reference: str
    in_use: io.FileIO | None = None


def parcel_task(task: Task, reference: str, put: Put) -> TaskParcel:
    """Put the task's folder, unless it is built in, and the recorded files that are here.

    Raises UsageError, one line, when the folder is too large or cannot be read.
    """
    data = tuple(
        DataParcel(file, put(path.read_bytes())) for file in task.native.spec.data if (path := data_file(file))
    )
    if reference in builtin_tasks():
        return TaskParcel(reference, data=data)
    packed = folder.pack(task.native.folder)
    return TaskParcel(str(task.native.folder), folder.digest(packed), put(packed), data)


def unpack_task(parcel: TaskParcel, get: Get) -> Unpacked:
    """Make sure that the task and its data are on this node.

    A folder that is here under the driver's path with the same content is used where it is. Raises UsageError, one
    line, when the cache cannot be written or a wrong file has the name of a recorded one.
    """
    try:
        for item in parcel.data:
            _bring(item, get)
        if parcel.digest is None or folder.digest_of(Path(parcel.reference)) == parcel.digest:
            return Unpacked(parcel.reference)
        return _bring_folder(parcel, get)
    except OSError as error:
        where = error.filename or data_dirs()[-1]
        raise UsageError(f"cannot keep task {parcel.reference} on this node: {error.strerror} ({where})") from None


def _bring(item: DataParcel, get: Get) -> None:
    if data_file(item.file) is not None:
        return
    target = data_dirs()[-1] / item.file.file
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f".{target.name}.lock"), fcntl.LOCK_EX):
        if data_file(item.file) is not None:
            return
        content: bytes = get(item.content)
        found = hashlib.sha256(content).hexdigest()
        if found != item.file.sha256:
            raise UsageError(f"{item.file.file} came with sha256 {found} from the driver, not {item.file.sha256}")
        write_atomically(target, content)


def _bring_folder(parcel: TaskParcel, get: Get) -> Unpacked:
    assert parcel.digest is not None
    entry = cache() / parcel.digest
    place = entry / Path(parcel.reference).name
    entry.parent.mkdir(parents=True, exist_ok=True)
    with _locked(entry.with_suffix(".lock"), fcntl.LOCK_EX):
        if folder.digest_of(place) != parcel.digest:
            _write(entry, place.name, get(parcel.packed))
        # Whoever makes room takes the other lock first, so this one is to be had.
        in_use = _open_locked(_in_use(entry), fcntl.LOCK_SH)
    os.utime(_in_use(entry))
    _make_room(keep=entry)
    return Unpacked(str(place), in_use)


def _in_use(entry: Path) -> Path:
    """The file that every process which uses an entry holds a shared lock on, for its life."""
    return entry.with_suffix(".used")


def _write(entry: Path, name: str, packed: tuple[folder.PackedFile, ...]) -> None:
    """`entry/name` with these files, wholly or not at all."""
    shutil.rmtree(entry, ignore_errors=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=entry.parent))
    try:
        partial.chmod(0o755)
        folder.unpack(packed, partial / name)
        partial.rename(entry)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def cache() -> Path:
    """Where this node keeps task folders."""
    return data_dirs()[-1] / "tasks"


def _make_room(keep: Path) -> None:
    """Remove entries that no process holds, oldest first, until what is left is within `KEEP_BYTES`."""
    with contextlib.suppress(OSError):
        for partial in cache().glob(".partial-*"):  # of processes that were killed
            if time.time() - partial.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(partial, ignore_errors=True)
        entries = [path for path in cache().iterdir() if path.is_dir() and not path.name.startswith(".")]
        newest_first = sorted(entries, key=_used_at, reverse=True)
        total = 0
        for entry in newest_first:
            total += _size(entry)
            if total > KEEP_BYTES and entry != keep:
                _remove(entry)


def _remove(entry: Path) -> None:
    """Unless a process uses it."""
    lock, used = entry.with_suffix(".lock"), _in_use(entry)
    now_or_never = fcntl.LOCK_EX | fcntl.LOCK_NB
    with contextlib.suppress(OSError), _locked(lock, now_or_never), _locked(used, now_or_never):
        shutil.rmtree(entry, ignore_errors=True)
        used.unlink(missing_ok=True)
        lock.unlink(missing_ok=True)


def _used_at(entry: Path) -> float:
    try:
        return _in_use(entry).stat().st_mtime
    except OSError:
        return 0.0


def _size(entry: Path) -> int:
    total = 0
    for root, _, files in os.walk(entry):
        for name in files:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(root, name)).st_size
    return total


@contextlib.contextmanager
def _locked(path: Path, how: int) -> Iterator[None]:
    held = _open_locked(path, how)
    try:
        yield
    finally:
        held.close()


def _open_locked(path: Path, how: int) -> io.FileIO:
    """The lock file at `path`, held until it is closed; not one that was removed while we waited."""
    while True:
        opened = io.FileIO(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", closefd=True)
        try:
            fcntl.flock(opened.fileno(), how)
            if os.fstat(opened.fileno()).st_ino == path.stat().st_ino:
                return opened
        except FileNotFoundError:
            pass
        except BaseException:
            opened.close()
            raise
        opened.close()
