"""Where a mirror lies: a folder of files by name, on a local disk or in any fsspec file system.

Readers of a name see all of a file or none of it where the store can do that: objects are put whole, local files are
linked into place. Nothing is appended to and, on object stores, nothing is renamed. Whatever a store says is told in
one line without credentials.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

from adrs_ray.errors import UsageError
from adrs_ray.storage.runfolder import write_atomically

ATTEMPTS = 4
PAUSE_S = 0.5
"""Between attempts of `PatientFiles`; each time longer by as much."""
_FLAT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "cos", "tos", "hf", "memory"})
"""Stores without folders: asked for one, some would make a bucket."""
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL, errno.EMLINK})

_USER = re.compile(r"(://)[^/@\s]*@")
_QUERY = re.compile(r"(\b\w{1,20}://[^\s?'\"]*)\?[^\s'\"]*")
_NAMED = [
    re.compile(
        rf"(?i)([\w-]{{0,40}}(?:key|secret|token|passw|credential|signature|authorization|\bsig)[\w-]{{0,40}}[\"']?\s*{mark}\s*[\"']?)"
        r"(?:(?:bearer|basic|aws4-hmac-sha256)\s+)?[^\s,;&\"']+"
    )
    for mark in "=:"
]
_KEEPS_SECRET = re.compile(r"(?i)key|secret|token|passw|credential")
_SHORTEST_SECRET = 8
_Result = TypeVar("_Result")
_LOOKED_AT = 2000
_TOLD = 300


class StoreError(Exception):
    """A store could not do what it was asked for: one line without credentials."""


class ReadableFiles(Protocol):
    """Files by name (`000001.jsonl.gz`, `best/program.py`). Every method raises StoreError when the store fails."""

    where: str
    """The folder, as a person names it."""

    def names(self) -> list[str]:
        """Files of the folder itself, in any order; a store may take a while to list a new one. None: no folder."""
        ...

    def read(self, name: str) -> bytes | None:
        """The content of a file; None when it is not there."""
        ...


class MirrorFiles(ReadableFiles, Protocol):
    """Files that can be written, too."""

    exclusive: bool
    """Whether `create` is known to be refused by the store itself when the file is there; else it only looks first."""

    def create(self, name: str, data: bytes) -> None:
        """Write a file that is not there. Raises FileExistsError when it is."""
        ...

    def put(self, name: str, data: bytes) -> None:
        """Write a file, in the place of what is there."""
        ...

    def remove(self, name: str) -> None:
        """Remove a file; nothing happens when it is not there."""
        ...


def open_files(url: str) -> MirrorFiles:
    """The folder behind a URL or a path; nothing is made yet.

    Raises UsageError for a URL that holds credentials or that nothing here can open. Credentials come from where the
    file system's library looks for them (environment, instance role).
    """
    local = _local_folder(url)
    if local is not None:
        return LocalFiles(local)
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    try:
        filesystem, folder = url_to_fs(url)
    except Exception as error:  # the libraries behind it raise what they like
        raise UsageError(f"mirror {url}: it cannot be opened: {one_line(error)}") from None
    if isinstance(filesystem, LocalFileSystem):
        return LocalFiles(Path(folder))
    return RemoteFiles(filesystem, folder, url, flat=urlsplit(url).scheme in _FLAT)


def absolute_url(url: str) -> str:
    """The same place from whatever folder a process works in: a relative path as an absolute one, a URL as it is.

    Raises UsageError for a URL that holds credentials, or is none.
    """
    local = _local_folder(url)
    return url if local is None else str(local)


def _local_folder(url: str) -> Path | None:
    """The folder that a plain path names; None for a URL. Raises UsageError for what must not be in a URL."""
    if not url.strip() or "\0" in url:
        raise UsageError("mirror.url is empty or no path: give a folder, such as s3://bucket/runs/night-3")
    if "://" not in url:
        return Path(url).expanduser().absolute()
    scheme = url.partition("://")[0]
    try:
        parts = urlsplit(url)
        secret = parts.password is not None
    except ValueError:
        raise UsageError(f"mirror.url: {scheme}://... is no URL") from None
    if secret or parts.query or parts.fragment:
        raise UsageError(
            f"mirror.url: {scheme}://... holds a password or a query: leave it out, credentials come from the "
            "environment"
        )
    if "::" in url:
        raise UsageError(f"mirror.url: {scheme}://... is a chain of file systems, which may keep copies: give one")
    return None


def one_line(error: BaseException) -> str:
    """What an error says, without what could be a credential: user parts and queries of URLs, values behind names such
    as `token=`, and what the environment holds under such names."""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST_SECRET and _KEEPS_SECRET.search(name):
            text = text.replace(value, "***")
    text = _QUERY.sub(r"\1?***", _USER.sub(r"\1***@", text[:_LOOKED_AT]))
    for named in _NAMED:
        text = named.sub(r"\1***", text)
    return text[:_TOLD]


class LocalFiles:
    """A folder of this machine or of a network mount. Files are fsynced before they get their name."""

    def __init__(self, folder: Path) -> None:
        self.where = str(folder)
        self.exclusive = True
        self._folder = folder

    def names(self) -> list[str]:
        with _missing_as_none(), os.scandir(self._folder) as entries:
            return [entry.name for entry in entries if not entry.is_dir()]
        return []

    def read(self, name: str) -> bytes | None:
        with _missing_as_none():
            return (self._folder / name).read_bytes()
        return None

    def create(self, name: str, data: bytes) -> None:
        path = self._folder / name
        with _told():
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(path.parent.parent)
        with _told(FileExistsError):
            descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            try:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), 0o644)
                    os.fsync(file.fileno())
                self._name(temporary, path)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
            _sync_folder(path.parent)

    def _name(self, temporary: str, path: Path) -> None:
        try:
            # A link is refused when the name is taken, on NFS, too; a rename would replace it.
            os.link(temporary, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            self.exclusive = False
            if path.exists():
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
            os.rename(temporary, path)

    def put(self, name: str, data: bytes) -> None:
        with _told():
            write_atomically(self._folder / name, data)

    def remove(self, name: str) -> None:
        with _told():
            (self._folder / name).unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class RemoteFiles:
    """A folder of an fsspec file system."""

    def __init__(self, filesystem: Any, folder: str, where: str, flat: bool) -> None:
        self.where = where
        self.exclusive = False
        self._filesystem = filesystem
        self._folder = folder.rstrip("/")
        self._flat = flat
        self._conditional: bool | None = None
        """Whether the store refuses exclusive writes of what is there; None before the first one."""
        self._made: set[str] = set()

    def names(self) -> list[str]:
        with _missing_as_none():
            # Listings are cached by many file systems, and others write here, too.
            self._filesystem.invalidate_cache()
            listed = self._filesystem.ls(self._folder, detail=False)
            return [str(path).rstrip("/").rpartition("/")[2] for path in listed]
        return []

    def read(self, name: str) -> bytes | None:
        with _missing_as_none():
            return bytes(self._filesystem.cat_file(self._path(name)))
        return None

    def create(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        if not self._conditional and self.read(name) is not None:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        if self._conditional is False:
            self.put(name, data)
            return
        try:
            self._put_exclusively(name, data)
            if self._conditional is None:
                self._try_conditions(name, data)
        except (TypeError, NotImplementedError):
            # The library behind this file system is from before exclusive writes.
            self._conditional = False
            self.put(name, data)

    def _put_exclusively(self, name: str, data: bytes) -> None:
        with _told(FileExistsError, TypeError, NotImplementedError):
            self._filesystem.pipe_file(self._path(name), data, mode="create")

    def _try_conditions(self, name: str, data: bytes) -> None:
        """Some stores or libraries take no notice of the wish: the same file once more must be refused."""
        try:
            self._put_exclusively(name, data)
            self._conditional = False
        except FileExistsError:
            self._conditional = self.exclusive = True

    def put(self, name: str, data: bytes) -> None:
        self._make_folder(name)
        with _told():
            self._filesystem.pipe_file(self._path(name), data)

    def remove(self, name: str) -> None:
        with _missing_as_none():
            self._filesystem.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._folder}/{name}"

    def _make_folder(self, name: str) -> None:
        folder = self._path(name).rpartition("/")[0]
        if not self._flat and folder not in self._made:
            with _told():
                self._filesystem.makedirs(folder, exist_ok=True)
            self._made.add(folder)


class PatientFiles:
    """A store that is read, each time tried again a few times: an outage must not look like a damage."""

    def __init__(self, files: MirrorFiles) -> None:
        self.where = files.where
        self._files = files

    def names(self) -> list[str]:
        return self._again(self._files.names)

    def read(self, name: str) -> bytes | None:
        return self._again(lambda: self._files.read(name))

    def _again(self, work: Callable[[], _Result]) -> _Result:
        for attempt in range(1, ATTEMPTS):
            try:
                return work()
            except StoreError:
                time.sleep(PAUSE_S * attempt)
        return work()


@contextlib.contextmanager
def _told(*passing: type[Exception]) -> Iterator[None]:
    """Errors as StoreError, but for those that the caller knows what to do with."""
    try:
        yield
    except passing:
        raise
    except Exception as error:  # the libraries behind it raise what they like
        raise StoreError(one_line(error)) from None


@contextlib.contextmanager
def _missing_as_none() -> Iterator[None]:
    """As `_told`, and nothing happens when the file is not there."""
    with contextlib.suppress(FileNotFoundError), _told(FileNotFoundError):
        yield
