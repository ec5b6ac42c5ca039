"""Recorded data of the tasks: what there is, where it lies, and fetching it from its public source.

A task folder may have `convert.py` with `convert(file: str, raw: bytes) -> bytes`, which turns what the public source
of a file (named as in task.yaml) holds into the file that the task reads. Whatever comes from outside is accepted by
checksum only.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pooch

from adrs_ray.errors import UsageError
from adrs_ray.private_import import import_private
from adrs_ray.storage.runfolder import write_atomically
from adrs_ray.task import DataFile, builtin_tasks, data_dirs, data_file, read_spec

TIMEOUT_S = 60.0
"""How long a silent server is waited for."""


@dataclass(frozen=True, slots=True)
class FileStatus:
    """One recorded file of a task. `path` is None when it is nowhere; `problem` when a wrong file has its name."""

    task: str
    file: DataFile
    path: Path | None
    problem: str | None = None

    def __str__(self) -> str:
        place = self.problem or (str(self.path) if self.path else f"missing (adrs data pull {self.task})")
        return f"{self.task}  {self.file.file}  {place}  # {self.file.provides}"


def status() -> list[FileStatus]:
    """Every recorded file that built-in tasks know of, checksums verified."""
    found = []
    for task, _, file in _files(None):
        try:
            found.append(FileStatus(task, file, data_file(file)))
        except UsageError as error:
            found.append(FileStatus(task, file, None, str(error)))
    return found


def pull(tasks: Sequence[str] | None = None) -> list[tuple[str, str]]:
    """Make sure that the recorded files of `tasks` (None: all) are here: pairs of file name and what was done.

    A file that is there with the right content is left alone; others are fetched into the cache folder (the last of
    `data_dirs()`), converted, checked and put in place at once, never in part. Raises UsageError with one line for an
    unknown task, a source that cannot be reached or has changed, and a wrong file that was placed by hand.
    """
    done = []
    for _, folder, file in _files(tasks):
        path = data_file(file)
        if path is None:
            path = _fetch(folder, file)
            done.append((file.file, f"fetched to {path}"))
        else:
            done.append((file.file, f"already at {path}"))
    return done


def _files(tasks: Sequence[str] | None) -> Iterator[tuple[str, Path, DataFile]]:
    known = builtin_tasks()
    for task in known if tasks is None else tasks:
        if task not in known:
            raise UsageError(f"no built-in task {task!r}: there are {', '.join(known)}")
        for file in read_spec(known[task] / "task.yaml").data:
            yield task, known[task], file


def _fetch(folder: Path, file: DataFile) -> Path:
    target = data_dirs()[-1] / file.file
    raw = _download(file, target)
    try:
        data = import_private(folder, "convert").convert(file.file, raw) if (folder / "convert.py").is_file() else raw
    except (ValueError, SyntaxError) as error:
        raise UsageError(
            f"{file.url} is not what was expected ({_one_line(error)}); {_by_hand(file, target)}"
        ) from error
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise UsageError(f"{file.url} has changed: it gives sha256 {found}; {_by_hand(file, target)}")
    try:
        write_atomically(target, data)
    except OSError as error:
        raise UsageError(f"cannot write {target}: {_one_line(error)}") from error
    return target


def _download(file: DataFile, target: Path) -> bytes:
    pooch.get_logger().setLevel("WARNING")
    with tempfile.TemporaryDirectory() as scratch:
        try:
            fetched = pooch.retrieve(
                file.url,
                known_hash=None,  # the checksum is that of the converted file
                path=scratch,
                downloader=pooch.HTTPDownloader(timeout=TIMEOUT_S),
            )
        except OSError as error:
            reason = f"{type(error).__name__}: {_one_line(error)[:120]}"
            raise UsageError(f"cannot fetch {file.url} ({reason}); {_by_hand(file, target)}") from error
        return Path(fetched).read_bytes()


def _by_hand(file: DataFile, target: Path) -> str:
    return (
        f"place {target} with sha256 {file.sha256} by hand (`adrs data pull` makes it on a machine with a network), "
        "or name its folder in ADRS_DATA_DIR"
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
