"""What programs have had built, kept for the next time the same one is judged: a cache of folders on this machine.

A folder is written by the candidate's build step in its scratch, and copied here by the worker once every process of
the step has ended: plain files and folders only, owned by the worker. Candidates get links to these files in a folder
that they can read and not write; so removing an entry takes nothing from who uses it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import tempfile
import time
from pathlib import Path

from adrs_ray.errors import UsageError

BUILT = "build"
"""The folder in the scratch of the build step that is kept."""
BUILT_MB = 512
"""What the build step may write, the kept part and the rest together."""
BUILD_PROGRAMS = ("/usr/local/bin", "/usr/local/cuda/bin")
"""Where compilers lie, beyond the folders of other programs."""
BUILD_FILES = ("/usr/include", "/usr/local/include", "/usr/libexec", "/usr/local/cuda", "/opt/cuda")
"""What compilers read, beyond what programs do: headers, and parts of their own."""
_CACHE_BYTES = 4 * 2**30
_ENTRY_BYTES, _FILE_BYTES = 2**20, 2**16
"""Counted for every entry and every file in it beside their sizes: so there are never too many to look at."""
_MOST_FILES = 20_000
_DEEPEST = 32
_LONGEST_PATH = 1000
"""Bytes below the folder: whatever the folder's own path, no file in it is out of reach."""
_PARTIAL = ".partial-"
_ABANDONED_S = 3600.0
"""Age at which what was being copied is nobody's any more."""
_UNREAD_S = 2**31 - 1
"""The time of the last read that everything kept has: what lies ahead is not brought up to date by a read, so no case
leaves marks there for the next (mount(8), relatime)."""
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER_FLAGS = _FILE_FLAGS | os.O_DIRECTORY


class UnkeepableError(Exception):
    """What a build left behind is too much, too deep or closed to us: one line."""


class BuildCache:
    """Folders by key, at most some gigabytes together; those that were not used for longest go first.

    Any number of processes may use one cache: entries are renamed into place whole, and the first of two wins.
    """

    def __init__(self, folder: Path, limit_bytes: int = _CACHE_BYTES) -> None:
        """Raises OSError when the folder cannot be made, or is another user's."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "not a folder that this user alone can write", str(folder))
        self._folder = folder
        self._limit_bytes = limit_bytes

    @classmethod
    def of_this_user(cls) -> BuildCache:
        """Under the system's temporary folder, where scratch folders can hold links to it. Raises UsageError."""
        folder = Path(tempfile.gettempdir()).resolve() / f"adrs-builds-{os.geteuid()}"
        try:
            return cls(folder)
        except OSError as error:
            raise UsageError(f"{folder}, where programs' builds are kept: {error.strerror}") from None

    def place(self, key: str, target: Path, linked: bool) -> bool:
        """Put the files of an entry into an empty folder, as copies unless `linked`, for which nobody who sees them may
        be able to write them; False when there is no such entry. Raises OSError for anything but its absence.
        """
        entry = self._folder / key
        try:
            os.utime(entry, (_UNREAD_S, time.time()))
            shutil.copytree(entry, target, copy_function=_link if linked else shutil.copy2, dirs_exist_ok=True)
        except OSError:
            if entry.exists():
                raise
            empty(target)  # it was removed before or meanwhile
            return False
        return True

    def take(self, built: Path) -> Path:
        """A copy of what a build left, not yet an entry. No process of the build may be alive.

        Raises UnkeepableError, also when a link or nothing at all is in the folder's place.
        """
        partial = self._new_partial()
        try:
            folder = os.open(built, _FOLDER_FLAGS)
            try:
                _Copy().add(folder, partial, _LONGEST_PATH, 0)
            finally:
                os.close(folder)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UnkeepableError(f"the folder cannot be kept: {error.strerror}") from None
        except UnkeepableError:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return partial

    def publish(self, partial: Path, key: str) -> None:
        """Make what `take` gave the entry of a key, unless there is one; make room for it. Raises OSError."""
        try:
            os.rename(partial, self._folder / key)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        self._make_room(key)

    def discard(self, partial: Path) -> None:
        shutil.rmtree(partial, ignore_errors=True)

    def _new_partial(self) -> Path:
        return self._folder / f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(8)}"

    def _make_room(self, newest: str) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # another process removes too
                used_at = path.stat().st_mtime
                if not path.name.startswith(_PARTIAL):
                    entries.append((used_at, _size(path), path))
                elif time.time() - used_at > _ABANDONED_S:  # of a worker that was killed
                    shutil.rmtree(path, ignore_errors=True)
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit_bytes:
                return
            if path.name != newest:
                with contextlib.suppress(OSError):
                    doomed = self._new_partial()
                    os.rename(path, doomed)  # at once: nobody links half of it
                    shutil.rmtree(doomed, ignore_errors=True)
                    total -= size


class _Copy:
    """A copy of a folder that a candidate filled, in which links and special files are left out.

    Folders and files are opened below the folder's own descriptor: a link in the place of any of them leads nowhere.
    """

    def __init__(self) -> None:
        self._files = 0
        self._room = BUILT_MB * 2**20

    def add(self, folder: int, target: Path, path_room: int, depth: int) -> None:
        if depth > _DEEPEST:
            raise UnkeepableError(f"its folders are more than {_DEEPEST} deep")
        os.mkdir(target)
        os.chmod(target, 0o755)  # whatever the umask
        with os.scandir(folder) as entries:
            for entry in entries:
                self._files += 1
                if self._files > _MOST_FILES:
                    raise UnkeepableError(f"more than {_MOST_FILES} files")
                room = path_room - len(os.fsencode(entry.name)) - 1
                if room < 0:
                    raise UnkeepableError(f"a path in it is longer than {_LONGEST_PATH} bytes")
                if entry.is_dir(follow_symlinks=False):
                    inner = os.open(entry.name, _FOLDER_FLAGS, dir_fd=folder)
                    try:
                        self.add(inner, target / entry.name, room, depth + 1)
                    finally:
                        os.close(inner)
                elif entry.is_file(follow_symlinks=False):
                    self._add_file(folder, entry.name, target / entry.name)
        os.utime(target, (_UNREAD_S, os.fstat(folder).st_mtime))

    def _add_file(self, folder: int, name: str, target: Path) -> None:
        fd = os.open(name, _FILE_FLAGS, dir_fd=folder)
        with open(fd, "rb") as readable, open(target, "xb") as written:
            found = os.fstat(fd)
            self._room -= found.st_size
            if self._room < 0:
                raise UnkeepableError(f"more than {BUILT_MB} MB")
            shutil.copyfileobj(readable, written)
        os.chmod(target, 0o755 if found.st_mode & 0o111 else 0o644)
        os.utime(target, ns=(_UNREAD_S * 10**9, found.st_mtime_ns))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK):
            raise
        shutil.copy2(source, target)


def empty(folder: Path) -> None:
    """Make a folder of `place` anew: an old one would tell by its size what lay there before."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)
    os.mkdir(folder)
    os.chmod(folder, 0o755)  # whatever the umask


def _size(folder: Path) -> int:
    total = _ENTRY_BYTES
    for root, folders, files in os.walk(folder):
        total += _FILE_BYTES * len(folders)
        total += sum(_FILE_BYTES + os.lstat(os.path.join(root, name)).st_size for name in files)
    return total
