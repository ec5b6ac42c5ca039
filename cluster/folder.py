"""A folder as a value: its files in a fixed order with one digest, so that it can be made again elsewhere."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.errors import UsageError

LARGEST_BYTES = 512 * 1024 * 1024
MOST_FILES = 20_000
MOST_LEVELS = 64
LEFT_OUT = frozenset({"__pycache__", ".git", ".venv", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
"""Made anew wherever they are needed."""


@dataclass(frozen=True, slots=True)
class PackedFile:
    """`path` is relative, with slashes."""

    path: str
    executable: bool
    content: bytes


def pack(folder: Path) -> tuple[PackedFile, ...]:
    """The files of a folder, sorted by path. Links are followed: what they lead to is packed as if it lay there.

    Left out are `LEFT_OUT`, links that lead nowhere or in a circle, and what is neither file nor folder. Raises
    UsageError, one line, when it is too large or cannot be read.
    """
    packed = []
    total = 0
    for path, file in _walk(folder):
        try:
            size = file.stat().st_size
            if total + size > LARGEST_BYTES:
                raise UsageError(
                    f"{folder} has more than {LARGEST_BYTES // 2**20} MB and cannot be brought to other nodes: keep "
                    "data elsewhere and name it under `data` in task.yaml"
                )
            content = file.read_bytes()
            packed.append(PackedFile(path, _executable(file), content))
        except OSError as error:
            raise UsageError(f"cannot read {file} to bring it to other nodes: {error.strerror}") from None
        total += len(content)
    return tuple(packed)


def digest(packed: tuple[PackedFile, ...]) -> str:
    """SHA-256 over paths, whether they can be executed, and contents."""
    whole = hashlib.sha256()
    for file in packed:
        whole.update(_entry(file.path, file.executable, hashlib.sha256(file.content).hexdigest()))
    return whole.hexdigest()


def digest_of(folder: Path) -> str | None:
    """The digest of a folder on disk, without holding it in memory; None when there is none that could be packed."""
    whole = hashlib.sha256()
    total = 0
    try:
        for path, file in _walk(folder):
            total += file.stat().st_size
            if total > LARGEST_BYTES:
                return None
            with file.open("rb") as opened:
                content = hashlib.file_digest(opened, "sha256").hexdigest()
            whole.update(_entry(path, _executable(file), content))
    except (OSError, UsageError):
        return None
    return whole.hexdigest()


def unpack(packed: tuple[PackedFile, ...], folder: Path) -> None:
    """Write the files into a folder that is empty or not there. Raises OSError when that is not possible."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in packed:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(0o755 if file.executable else 0o644)


def _walk(folder: Path) -> Iterator[tuple[str, Path]]:
    """Relative path and place of every file, sorted by path."""
    found: list[tuple[str, Path]] = []
    _collect(folder, "", (), found)
    found.sort(key=lambda pair: pair[0])
    yield from found


def _collect(folder: Path, prefix: str, above: tuple[tuple[int, int], ...], found: list[tuple[str, Path]]) -> None:
    """`above`: device and inode of the folders we came through, so that a link to one of them ends there."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(f"cannot read {folder} to bring it to other nodes: {error.strerror}") from None
    here = (status.st_dev, status.st_ino)
    if here in above or len(above) >= MOST_LEVELS:
        return
    for entry in entries:
        if entry.name in LEFT_OUT:
            continue
        try:
            mode = entry.stat().st_mode
        except OSError:
            continue
        if stat.S_ISDIR(mode):
            _collect(Path(entry.path), f"{prefix}{entry.name}/", (*above, here), found)
        elif stat.S_ISREG(mode):
            found.append((prefix + entry.name, Path(entry.path)))
            if len(found) > MOST_FILES:
                raise UsageError(f"{folder} and what it links to are more than {MOST_FILES} files: too many to bring")


def _executable(file: Path) -> bool:
    return bool(file.stat().st_mode & 0o100)


def _entry(path: str, executable: bool, content: str) -> bytes:
    return f"{len(os.fsencode(path))}:".encode() + os.fsencode(path) + f":{int(executable)}:{content}\n".encode()
