"""A slot's scratch folder: made, watched and emptied by the worker, whatever a candidate left in it.

Emptying never recurses and never follows a link: a candidate chooses names, depth and links.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

_INODE_BYTES = 4096
"""Counted for every entry, so that a flood of empty files is a flood."""


_PREFIX = "adrs-scratch-"


def sweep_abandoned() -> None:
    """Remove the scratch folders of workers that were killed: nobody holds their locks any more."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            fd = _lock(path)
        except OSError:
            continue  # in use, another user's, or gone
        os.close(fd)
        shutil.rmtree(path, ignore_errors=True)


def _lock(path: Path) -> int:
    """The descriptor of a folder that this process now holds the lock of. Raises OSError when another does."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(fd), os.stat(path)):
            raise FileNotFoundError(path)
    except OSError:
        os.close(fd)
        raise
    return fd


class Scratch:
    """One folder, readable by its owner alone, locked as long as this process lives."""

    def __init__(self, owner: int | None) -> None:
        while True:
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX)).resolve()
            try:
                self._held: int | None = _lock(self.path)
                break
            except OSError:
                continue  # swept before it was locked
        if owner is not None:
            os.chown(self.path, owner, owner)

    def exceeds(self, limit_bytes: int, pids: Iterable[int]) -> bool:
        """Whether files here, and unlinked files that `pids` hold open, take more than the limit.

        Not seen: an unlinked file that is only mapped, or whose descriptor is on its way through a socket.
        """
        used = sum(_unlinked_bytes(pid) for pid in pids)
        waiting = [str(self.path)]
        while waiting:
            try:
                with os.scandir(waiting.pop()) as entries:
                    for entry in entries:
                        found = entry.stat(follow_symlinks=False)
                        used += 512 * found.st_blocks + _INODE_BYTES
                        if used > limit_bytes:
                            return True
                        if stat.S_ISDIR(found.st_mode):
                            waiting.append(entry.path)
            except FileNotFoundError:
                continue  # removed while we looked
            except OSError:
                return True  # too deep to be looked into, or closed to us: not honest use
        return used > limit_bytes

    def empty(self) -> None:
        """Remove everything inside. Folders are taken apart level by level, each brought up to the top."""
        root = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
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
        """Remove the folder itself; nothing happens when it is gone."""
        if self._held is None:
            return
        with contextlib.suppress(FileNotFoundError):
            self.empty()
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._held)
        self._held = None


def _flatten(root: int, name: str, moved: int) -> int:
    os.chmod(name, 0o700, dir_fd=root)
    folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
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


def _unlinked_bytes(pid: int) -> int:
    used = 0
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found = os.stat(f"/proc/{pid}/fd/{fd}")
            except OSError:
                continue  # closed meanwhile
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                used += 512 * found.st_blocks
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass  # ended, or of another user: the limit on one file's size remains
    return used
