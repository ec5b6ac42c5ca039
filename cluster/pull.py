"""Fetching models from the Hugging Face hub, or from a server that speaks as it does, with errors of one line.

The token is read by the client library where the download runs: `HF_TOKEN`, or what `hf auth login` stored there.
Files that are complete are kept when a pull breaks off, and are not fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, UsageError, one_line
from cluster.model_files import needed
from cluster.model_lock import DEFAULT_REVISION, Lock

GIB = 2.0**30
_CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class Want:
    """A source of weights that a config names, and the models that it serves."""

    source: str
    revision: str
    names: tuple[str, ...]

    @property
    def folder(self) -> Path | None:
        """The folder that it is; None for a repository. A path has `/` or `.` or `~` at its start, or is there."""
        path = Path(self.source).expanduser()
        return path if self.source[:1] in ("/", ".", "~") or path.is_dir() else None


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a repository; `sha256` where the hub tells it, which it does of large ones."""

    name: str
    bytes: int
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Listing:
    """What a repository holds at one commit, as far as engines need it."""

    repository: str
    revision: str
    commit: str
    files: tuple[RemoteFile, ...]

    @property
    def bytes(self) -> int:
        """Of all its files."""
        return sum(file.bytes for file in self.files)


def wants(config: RunConfig, lock: Lock | None = None) -> list[Want]:
    """The sources that the pool's engines load, each once, at the lock's commit where it has one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, engine in config.pool.models.items():
        source = engine.source or config.models[name].model
        asked = engine.revision or DEFAULT_REVISION
        revision = (None if lock is None else lock.commit(source, engine.revision)) or asked
        found.setdefault((source, revision), []).append(name)
    return [Want(source, revision, tuple(names)) for (source, revision), names in found.items()]


def look_up(want: Want) -> Listing:
    """Ask the hub what there is, and whether this account may have it.

    Raises UsageError for a repository or revision that does not exist, RunError for one that is gated, and when the
    hub cannot be reached.
    """
    api = _hub().HfApi()
    with _one_line(want):
        info = api.model_info(want.source, revision=want.revision, files_metadata=True)
        if info.gated:
            api.auth_check(want.source)
    siblings = {each.rfilename: each for each in info.siblings or ()}
    files = tuple(_file(siblings[name]) for name in needed(siblings))
    if not any(file.name.endswith(".safetensors") for file in files):
        raise UsageError(f"{want.source} at {want.revision} has no weights as safetensors, which the pool needs")
    if not isinstance(info.sha, str) or not info.sha:
        raise RunError(f"{_endpoint()} does not tell the commit of {want.source} at {want.revision}")
    return Listing(want.source, want.revision, info.sha, files)


def cached_folder(want: Want) -> Path | None:
    """Where the hub's cache on this machine has this revision, whole or not."""
    hub = _hub()
    with _one_line(want):
        found = hub.try_to_load_from_cache(want.source, "config.json", revision=want.revision)
    return Path(found).parent if isinstance(found, str) else None


def cache_root() -> Path:
    """The hub's cache on this machine."""
    return Path(_hub().constants.HF_HUB_CACHE)


def missing(listing: Listing, folder: Path | None) -> list[RemoteFile]:
    """The files that are not in the folder, or of another size there."""
    if folder is None:
        return list(listing.files)
    return [file for file in listing.files if _size(folder / file.name) != file.bytes]


def require_space(listing: Listing, size: int, at: Path) -> None:
    """Raise RunError, one line, when the disk of `at` has no room for so many bytes more."""
    free = free_bytes(at)
    if size > free:
        raise RunError(f"{listing.repository} needs {size / GIB:.1f} GiB more, {at} has {free / GIB:.1f} GiB free")


def free_bytes(at: Path) -> int:
    """Free on the disk that a folder is or would be on."""
    while not at.exists():
        at = at.parent
    return shutil.disk_usage(at).free


def target(listing: Listing, to: Path | None) -> Path | None:
    """The plain folder that a repository is pulled to; None for the hub's cache."""
    return None if to is None else to / listing.repository


def pull(listing: Listing, to: Path | None = None, say: Callable[[str], None] = lambda line: None) -> Path:
    """Fetch what is missing, into the hub's cache or to `to`/<repository>, and check every checksum; the folder.

    Raises RunError, one line, for too little space, a lost connection, and a file that is not what the hub says; such
    a file is removed, so that the next pull fetches it again.
    """
    want = Want(listing.repository, listing.revision, ())
    place = target(listing, to)
    folder = place if place is not None else cached_folder(Want(listing.repository, listing.commit, ()))
    lacking = missing(listing, folder)
    size = sum(file.bytes for file in lacking)
    at = place if place is not None else cache_root()
    require_space(listing, size, at)
    say(f"{listing.repository}@{listing.commit[:10]}: {len(lacking)} files, {size / GIB:.2f} GiB to fetch into {at}")
    with _one_line(want, at):
        where: dict[str, Any] = {"local_dir": place, "revision": listing.commit}
        if place is None:
            # Under the name that was asked for, so that an engine finds the branch in the cache without a network.
            where = {"revision": listing.revision}
        found = Path(
            _hub().snapshot_download(listing.repository, allow_patterns=[f.name for f in listing.files], **where)
        )
    if place is None and found.name != listing.commit:
        raise RunError(
            f"{listing.repository}: {listing.revision} moved from {listing.commit[:10]} to {found.name[:10]} while it "
            "was pulled: pull again"
        )
    say(f"{listing.repository}: checking {listing.bytes / GIB:.2f} GiB")
    _verify(listing, found)
    return found


def _verify(listing: Listing, folder: Path) -> None:
    for file in listing.files:
        path = folder / file.name
        wrong = _difference(path, file)
        if wrong is not None:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise RunError(f"{listing.repository}: {file.name} {wrong}: removed it, pull again")


def _difference(path: Path, file: RemoteFile) -> str | None:
    size = _size(path)
    if size != file.bytes:
        return f"has {'no file' if size is None else f'{size} bytes'}, the hub says {file.bytes}"
    if file.sha256 is None:
        return None
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    found = digest.hexdigest()
    return None if found == file.sha256 else f"has the checksum {found[:16]}, the hub says {file.sha256[:16]}"


def _file(sibling: Any) -> RemoteFile:
    size = sibling.size if isinstance(sibling.size, int) else 0
    digest = None if sibling.lfs is None else sibling.lfs.sha256
    return RemoteFile(sibling.rfilename, size, digest if isinstance(digest, str) else None)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _hub() -> Any:
    """The client library. Raises UsageError when it is not installed."""
    try:
        import huggingface_hub
    except ImportError:
        raise UsageError("pulling models needs huggingface-hub: pip install 'adrs-ray[cluster]'") from None
    return huggingface_hub


def _endpoint() -> str:
    return str(_hub().constants.ENDPOINT)


@contextmanager
def _one_line(want: Want, at: Path | None = None) -> Iterator[None]:
    """What the client library raises, as UsageError or RunError of one line."""
    from huggingface_hub import errors

    # Its errors derive from those of the HTTP library that it was built on, which has changed between versions.
    transport: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    try:
        yield
    except errors.GatedRepoError:
        raise RunError(
            f"{want.source} is gated: ask for access at {_endpoint()}/{want.source} and set HF_TOKEN, where the pull "
            "runs, to a token of that account"
        ) from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{want.source} has no revision {want.revision!r}") from None
    except errors.RepositoryNotFoundError:
        raise UsageError(
            f"no model {want.source} at {_endpoint()}, or it is private: check the name; what is private needs HF_TOKEN"
        ) from None
    except errors.HFValidationError:
        raise UsageError(f"{want.source!r} is neither a folder nor a repository such as Qwen/Qwen3-8B") from None
    except errors.OfflineModeIsEnabled:
        raise RunError(f"{want.source} is not here whole, and HF_HUB_OFFLINE forbids to fetch it") from None
    except (transport, OSError, ValueError) as error:
        raise RunError(_refused(want, error, at)) from None


def _refused(want: Want, error: Exception, at: Path | None) -> str:
    detail = one_line(error, 200)
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{want.source}: the disk is full at {at}"
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EROFS, errno.EPERM) and status is None:
        return f"{want.source}: cannot write to {error.filename or at}: {error.strerror}"
    if status in (401, 403):
        return f"{want.source}: {_endpoint()} refuses with status {status}: set HF_TOKEN to a token that may read it"
    if status is not None:
        return f"{want.source}: {_endpoint()} answers with status {status}"
    if "onsistency check failed" in detail:
        return f"{want.source}: a file came cut off ({detail}): pull again, complete files are kept"
    return (
        f"cannot fetch {want.source} from {_endpoint()}: {detail}; without a network, pull elsewhere with --to "
        "FOLDER and give pool.models.<name>.source that folder"
    )
