"""The working directory of a job as one archive: what belongs to it, how large it is, the same bytes each time.

The name that Ray gives a package is a hash of its bytes, so an unchanged folder is not sent twice.
"""

from __future__ import annotations

import fnmatch
import os
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import UsageError

LARGEST_BYTES = 200 * 10**6
"""Packages travel through the head's memory."""
LEFT_OUT = (
    ".venv",
    "venv",
    ".git",
    ".hg",
    ".env",
    "__pycache__",
    "*.pyc",
    "*.egg-info",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".hypothesis",
    ".grimp_cache",
    ".import_linter_cache",
    ".cache",
    ".tox",
    ".nox",
    ".ipynb_checkpoints",
    "node_modules",
)
"""Names that are left out wherever they stand."""
OUTPUTS = ("/runs", "/data")
"""What a working directory has beside code; a task may have folders of these names."""
_TIMESTAMP = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, slots=True)
class PackedFile:
    """A file and the name that it has in the archive."""

    name: str
    path: Path
    size_bytes: int


def listed(folder: Path, left_out: Sequence[str] = (), under: str = "") -> list[PackedFile]:
    """Files of a folder that belong to a job, by name; links are followed, into folders too. Names begin with `under`.

    `left_out`: further patterns, of a name, of a path below the folder, or with `/` in front of what stands directly
    in it. Raises UsageError when it is no folder or cannot be read.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder")
    files = []
    try:
        for path in _walk(folder, folder, tuple(left_out), frozenset()):
            relative = path.relative_to(folder).as_posix()
            files.append(PackedFile(f"{under}{relative}", path, path.stat().st_size))
    except OSError as error:
        raise UsageError(f"cannot read {error.filename}: {error.strerror}") from None
    return sorted(files, key=lambda file: file.name)


def checked_size(files: Sequence[PackedFile], limit_bytes: int = LARGEST_BYTES) -> int:
    """Bytes in all. Raises UsageError naming the largest files when that is too much."""
    total = sum(file.size_bytes for file in files)
    if total > limit_bytes:
        largest = sorted(files, key=lambda file: -file.size_bytes)[:5]
        named = ", ".join(f"{file.name} ({megabytes(file.size_bytes)})" for file in largest)
        raise UsageError(
            f"the working directory has {megabytes(total)}, at most {megabytes(limit_bytes)} are sent; the largest are "
            f"{named}: leave some out with --exclude, or give another --working-dir"
        )
    return total


def megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def write_archive(files: Sequence[PackedFile], archive: Path) -> None:
    """Write a zip of these files. The same content gives the same bytes, whenever and wherever."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for file in files:
            executable = file.path.stat().st_mode & 0o111
            out.writestr(_info(file.name, 0o755 if executable else 0o644), file.path.read_bytes())


def _info(name: str, mode: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, _TIMESTAMP)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    return info


def _walk(folder: Path, top: Path, left_out: tuple[str, ...], above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real in above:
        return
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        if _is_left_out(path.relative_to(top).as_posix(), left_out):
            continue
        if entry.is_dir():
            yield from _walk(path, top, left_out, above | {real})
        elif entry.is_file():
            yield path


def _is_left_out(relative: str, left_out: tuple[str, ...]) -> bool:
    name = relative.rsplit("/", 1)[-1]
    if any(fnmatch.fnmatchcase(name, pattern) for pattern in LEFT_OUT):
        return True
    return any(
        fnmatch.fnmatchcase(each, pattern.rstrip("/"))
        for pattern in left_out
        for each in (name, relative, f"/{relative}")
    )
