"""A slot's scratch folders: made, watched and renewed by the worker, whatever a candidate left in them.

Every process gets a new folder: a folder keeps more than its files (its size, its flags, its generation number), and
what one process wrote there the next could read. Emptying never recurses and never follows a link: a candidate chooses
names, depth and links.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

_INODE_BYTES = 4096
"""Counted for every entry, so that a flood of empty files is a flood."""
_DEEPEST = 100
"""Levels of folders that are looked into; each takes a descriptor while its inside is counted."""
_LOOKS = 100
"""How often a folder's names are read again because a folder in it was renamed or removed meanwhile."""
_PREFIX = "adrs-scratch-"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def sweep_abandoned() -> None:
    """Remove the scratch folders of workers that were killed: nobody holds their locks any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            fd = _lock(path)
        except OSError:
            continue  # in use, another user's, or gone
        os.close(fd)
        remove_tree(path)


def remove_tree(path: str | os.PathLike[str]) -> None:
    """Remove the folder of a `Scratch` and all in it, as far as that can be done. No candidate may be alive."""
    with contextlib.suppress(OSError):
        os.chmod(path, 0o700)
    shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> int:
    """The descriptor of a folder that this process now holds the lock of. Raises OSError when another does."""
    fd = os.open(path, _FOLDER)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise FileNotFoundError(path)
    except OSError:
        os.close(fd)
        raise
    return fd


class Scratch:
    """`path`, a folder for one process at a time, readable by its owner alone. The folder round it (`home`), which
    processes may pass and not write to, is locked as long as this worker lives.

    Processes that wait for a program have folders of their own, for which they were jailed (`add`, `use`). `built`
    holds what the program at hand has had built, and belongs to the worker; it is made anew for each program, in
    `built_home`, which stays and is what processes are jailed for.
    """

    def __init__(self, owner: int | None) -> None:
        self._owner = owner
        while True:
            self.home = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
            try:
                self._held: int | None = _lock(self.home)
                break
            except OSError:
                continue  # swept before it was locked
        self._usual = self.path = self.home / "files"
        self._added = 0
        self.built_home = self.home / "built"
        self.built = self.built_home / "program"
        os.mkdir(self.built_home)
        os.chmod(self.built_home, 0o755)  # whatever the umask
        self.renew()

    def exceeds(self, limit_bytes: int, pids: Iterable[int]) -> bool:
        """Whether files here, and files that `pids` hold open after unlinking them, take more than the limit.

        What cannot be counted counts as too much: folders too deep, closed to us, or never twice under one name.
        """
        used = _unlinked_bytes(pids)
        if used > limit_bytes:
            return True
        try:
            folder = os.open(self.path, _FOLDER)
        except FileNotFoundError:
            return False
        try:
            _Count(limit_bytes, used).add(folder, 0)
        except (_TooMuchError, OSError):
            return True
        finally:
            os.close(folder)
        return False

    def renew(self) -> None:
        """Remove the folder with everything inside, and have the usual one be there, and new. Raises OSError."""
        with self._open_home():
            if self.path.exists():
                self._empty()
                os.rmdir(self.path)
            self.path = self._usual
            if not self.path.exists():
                self._make(self.path)

    def add(self) -> Path:
        """A new folder for a process that is to wait for its program. Raises OSError."""
        self._added += 1
        folder = self.home / f"files-{self._added}"
        with self._open_home():
            self._make(folder)
        return folder

    def use(self, folder: str) -> None:
        """The process at hand is the one for which `add` made this folder: it is watched and, by `renew`, removed."""
        self.path = Path(folder)

    @contextlib.contextmanager
    def without_built(self) -> Iterator[None]:
        """Nothing that a program had built is there meanwhile, for a process that has no program. Raises OSError."""
        aside = self.home / "aside"
        with self._open_home():
            hidden = self.built.exists()
            if hidden:
                os.rename(self.built, aside)
        try:
            yield
        finally:
            with self._open_home():
                if hidden:
                    os.rename(aside, self.built)

    @contextlib.contextmanager
    def _open_home(self) -> Iterator[None]:
        os.chmod(self.home, 0o700)
        try:
            yield
        finally:
            os.chmod(self.home, 0o511)

    def _make(self, folder: Path) -> None:
        os.mkdir(folder, 0o700)
        if self._owner is not None:
            os.chown(folder, self._owner, self._owner)

    def _empty(self) -> None:
        """Folders are taken apart level by level, each brought up to the top."""
        root = os.open(self.path, _FOLDER)
        try:
            moved = 0
            while names := os.listdir(root):
                for name in names:
                    if stat.S_ISDIR(os.stat(name, dir_fd=root, follow_symlinks=False).st_mode):
                        moved = _flatten(root, name, moved)
                    else:
                        os.unlink(name, dir_fd=root)
        finally:
            os.close(root)

    def remove(self) -> None:
        """Remove all of it; nothing happens when it is gone."""
        if self._held is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self._empty()
        remove_tree(self.home)
        os.close(self._held)
        self._held = None


class _TooMuchError(Exception):
    """The limit is passed, or what lies there defies counting."""


class _Count:
    """Bytes under a folder while processes write, rename and remove there.

    Folders are entered by descriptor, so that renaming one of them loses nothing of what lies below it.
    """

    def __init__(self, limit_bytes: int, used: int) -> None:
        self._limit = limit_bytes
        self._used = used

    def add(self, folder: int, depth: int) -> None:
        """Count what lies in an open folder. Raises _TooMuchError, or OSError for a folder that is closed to us."""
        if depth > _DEEPEST:
            raise _TooMuchError
        entered: set[int] = set()
        listed = _entries(folder)
        for entry in listed:
            self._add_entry(entry)
        for _ in range(_LOOKS):
            names = [entry.name for entry in listed if entry.is_dir(follow_symlinks=False)]
            found = [self._enter(folder, name, depth, entered) for name in names]
            if all(found):
                return
            listed = _entries(folder)
        raise _TooMuchError

    def _add_entry(self, entry: os.DirEntry[str]) -> None:
        try:
            found = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return  # this one was renamed or removed while we looked; what lies in a folder is looked for by `add`
        self._used += 512 * found.st_blocks + _INODE_BYTES
        if self._used > self._limit:
            raise _TooMuchError

    def _enter(self, folder: int, name: str, depth: int, entered: set[int]) -> bool:
        """Count a folder's inside, once whatever it is called; False when nothing has that name any more."""
        try:
            inner = os.open(name, _FOLDER, dir_fd=folder)
        except (FileNotFoundError, NotADirectoryError):
            return False
        try:
            inode = os.fstat(inner).st_ino
            if inode not in entered:
                entered.add(inode)
                self.add(inner, depth + 1)
        finally:
            os.close(inner)
        return True


def _entries(folder: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        return []  # removed since it was opened


def _flatten(root: int, name: str, moved: int) -> int:
    os.chmod(name, 0o700, dir_fd=root)
    folder = os.open(name, _FOLDER, dir_fd=root)
    try:
        for inner in os.listdir(folder):
            if stat.S_ISDIR(os.stat(inner, dir_fd=folder, follow_symlinks=False).st_mode):
                os.chmod(inner, 0o700, dir_fd=folder)  # moving a folder writes into it
                moved += 1
                os.rename(inner, f".flattened-{os.getpid()}-{moved}", src_dir_fd=folder, dst_dir_fd=root)
            else:
                os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=root)
    return moved


def _unlinked_bytes(pids: Iterable[int]) -> int:
    """Over every thread: one may have descriptors of its own, and a main thread that has ended shows none."""
    sizes: dict[tuple[int, int], int] = {}
    for pid in pids:
        for thread in _listed(f"/proc/{pid}/task"):
            for fd in _listed(f"/proc/{pid}/task/{thread}/fd"):
                try:
                    found = os.stat(f"/proc/{pid}/task/{thread}/fd/{fd}")
                except OSError:
                    continue  # closed meanwhile
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                    sizes[found.st_dev, found.st_ino] = 512 * found.st_blocks
    return sum(sizes.values())


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []  # ended, or of another user: the limit on one file's size remains
