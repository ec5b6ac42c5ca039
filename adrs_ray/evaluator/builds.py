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
_MOST_ENTRIES = 20_000
_DEEPEST = 32
_PARTIAL = ".partial-"
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class UnkeepableError(Exception):
    """What a build left behind is too much, too deep or closed to us: one line."""


class BuildCache:
    """Folders by key, at most some gigabytes together; those that were not used for longest go first.

    Any number of processes may use one cache: entries are renamed into place whole, and the first of two wins.
    """

    def __init__(self, folder: Path, limit_bytes: int = _CACHE_BYTES) -> None:
        """Raises OSError when the folder cannot be made, or is another user's."""
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = os.lstat(folder)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise PermissionError(errno.EPERM, "not a folder that this user alone can write", str(folder))
        self._folder = folder
        self._limit_bytes = limit_bytes

    @classmethod
    def of_this_user(cls) -> BuildCache:
        """Under the system's temporary folder, which candidates' user can reach into. Raises UsageError."""
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
            os.utime(entry)
            shutil.copytree(entry, target, copy_function=_link if linked else shutil.copy2, dirs_exist_ok=True)
        except OSError:
            if entry.exists():
                raise
            empty(target)  # it was removed before or meanwhile
            return False
        return True

    def take(self, built: Path) -> Path:
        """A copy of what a build left, not yet an entry. No process of the build may be alive.

        Raises UnkeepableError.
        """
        partial = self._folder / f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(8)}"
        try:
            _Copy().add(built, partial, 0)
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

    def _make_room(self, newest: str) -> None:
        entries: list[tuple[float, int, Path]] = []
        for path in self._folder.iterdir():
            with contextlib.suppress(OSError):  # another process removes too
                if not path.name.startswith(_PARTIAL):
                    entries.append((path.stat().st_mtime, _size(path), path))
        total = sum(size for _, size, _ in entries)
        for _, size, path in sorted(entries):
            if total <= self._limit_bytes:
                return
            if path.name != newest:
                with contextlib.suppress(OSError):
                    doomed = self._folder / f"{_PARTIAL}{os.getpid()}-{secrets.token_hex(8)}"
                    os.rename(path, doomed)  # at once: nobody links half of it
                    shutil.rmtree(doomed, ignore_errors=True)
                    total -= size


class _Copy:
    """A copy of a folder that a candidate filled, in which links and special files are left out."""

    def __init__(self) -> None:
        self._entries = 0
        self._room = BUILT_MB * 2**20

    def add(self, source: Path, target: Path, depth: int) -> None:
        if depth > _DEEPEST:
            raise UnkeepableError(f"its folders are more than {_DEEPEST} deep")
        os.mkdir(target, 0o755)
        with os.scandir(source) as entries:
            for entry in entries:
                self._entries += 1
                if self._entries > _MOST_ENTRIES:
                    raise UnkeepableError(f"more than {_MOST_ENTRIES} files")
                if entry.is_dir(follow_symlinks=False):
                    self.add(Path(entry.path), target / entry.name, depth + 1)
                elif entry.is_file(follow_symlinks=False):
                    self._add_file(entry.path, target / entry.name)

    def _add_file(self, source: str, target: Path) -> None:
        fd = os.open(source, _FILE_FLAGS)
        with open(fd, "rb") as readable, open(target, "xb") as written:
            found = os.fstat(fd)
            self._room -= found.st_size
            if self._room < 0:
                raise UnkeepableError(f"more than {BUILT_MB} MB")
            shutil.copyfileobj(readable, written)
        os.chmod(target, 0o755 if found.st_mode & 0o111 else 0o644)
        os.utime(target, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EMLINK):
            raise
        shutil.copy2(source, target)


def empty(folder: Path) -> None:
    """Remove what lies in a folder of `place`."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _size(folder: Path) -> int:
    return sum(os.lstat(Path(root, name)).st_size for root, _, files in os.walk(folder) for name in files)
