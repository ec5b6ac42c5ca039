"""Programs of an OpenEvolve checkpoint, to start a run from.

A checkpoint is a folder `checkpoint_<N>` with `metadata.json` and `programs/<id>.json`, a file per program: `code`,
`language` and `metrics` are read here. The output folder of a run holds them as `checkpoints/checkpoint_<N>`; the
highest N is taken. What stands in the files is not trusted: what is no program is left out and counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adrs_ray import program
from adrs_ray.errors import UsageError

_LAYOUT = "expected checkpoint_<N>/ with metadata.json and programs/*.json, or the folder with checkpoints/ in it"
_PYTHON = frozenset({"", "py", "python", "python3"})
_MOST_FILES = 100_000
_MOST_BYTES = 8 * 1024 * 1024
"""Of one file: a program beside what its run kept of prompts and artifacts."""


@dataclass(frozen=True, slots=True)
class CheckpointProgram:
    """A program of a checkpoint."""

    id: str
    source: str
    score: float | None
    """`combined_score`, else the mean of its numeric metrics, as OpenEvolve ranks; None without any."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint held."""

    folder: Path
    programs: tuple[CheckpointProgram, ...]
    """All usable ones, distinct by fingerprint, the best first; those without a score last."""
    skipped: int
    """Programs left out: not Python, not parsable, unreadable."""
    duplicates: int
    """Programs left out because a better one differs in layout only."""


def is_checkpoint(folder: Path) -> bool:
    """Whether the folder is a checkpoint, or holds checkpoints of a run. Never raises."""
    try:
        return _find(Path(folder)) is not None
    except OSError:
        return False


def checkpoint_programs(folder: Path, count: int = 10) -> list[CheckpointProgram]:
    """The best `count` programs of `read_checkpoint`, which also tells how many were left out. Raises as it does."""
    return list(read_checkpoint(folder).programs[:count])


def read_checkpoint(folder: Path) -> Checkpoint:
    """Every usable program of a checkpoint folder, or of the latest one of an output folder.

    Raises UsageError, one line, when the folder is no checkpoint, cannot be read, or has no Python program.
    """
    folder = Path(folder)
    try:
        found = _find(folder)
        if found is None:
            raise UsageError(f"{folder} is no OpenEvolve checkpoint: {_LAYOUT}")
        files = sorted((found / "programs").glob("*.json"))
    except OSError as error:
        raise UsageError(f"cannot read checkpoint {folder}: {error.strerror or error}") from None
    if len(files) > _MOST_FILES:
        raise UsageError(f"{found / 'programs'} has {len(files)} files: a checkpoint of at most {_MOST_FILES} is read")
    usable = [each for path in files if (each := _read(path)) is not None]
    if not usable:
        raise UsageError(f"{found / 'programs'} has no Python program among its {len(files)} files: {_LAYOUT}")
    distinct = tuple(_distinct(sorted(usable, key=_rank)))
    return Checkpoint(found, distinct, len(files) - len(usable), len(usable) - len(distinct))


def _find(folder: Path) -> Path | None:
    if _has_programs(folder):
        return folder
    numbered = [
        (int(match[1]), path)
        for parent in (folder, folder / "checkpoints")
        if parent.is_dir()
        for path in parent.iterdir()
        if (match := re.fullmatch(r"checkpoint_(\d{1,18})", path.name, re.ASCII)) and _has_programs(path)
    ]
    return max(numbered)[1] if numbered else None


def _has_programs(folder: Path) -> bool:
    return (folder / "metadata.json").is_file() and (folder / "programs").is_dir()


def _rank(each: CheckpointProgram) -> tuple[bool, float, str]:
    return each.score is None, -(each.score or 0.0), each.id


def _distinct(ranked: list[CheckpointProgram]) -> Iterator[CheckpointProgram]:
    seen: set[str] = set()
    for each in ranked:
        digest = program.fingerprint(each.source)
        if digest not in seen:
            seen.add(digest)
            yield each


def _read(path: Path) -> CheckpointProgram | None:
    """None for what is no Python program; files are as hostile as the run that wrote them."""
    try:
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    code, language = data.get("code"), data.get("language") or ""
    if not isinstance(code, str) or not isinstance(language, str) or language.lower() not in _PYTHON:
        return None
    if not code.strip() or not _storable(code) or program.syntax_problem(code) is not None:
        return None
    try:
        program.fingerprint(code)
    except SyntaxError:
        return None
    name = data.get("id")
    named = isinstance(name, str) and re.fullmatch(r"[\w.-]{1,200}", name, re.ASCII)
    return CheckpointProgram(str(name) if named else path.stem, code, _score(data.get("metrics")))


def _storable(code: str) -> bool:
    try:
        code.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _score(metrics: Any) -> float | None:
    if not isinstance(metrics, Mapping):
        return None
    values = {name: number for name, value in metrics.items() if (number := _finite(value)) is not None}
    if "combined_score" in values:
        return values["combined_score"]
    mean = sum(value / len(values) for value in values.values()) if values else math.nan
    return mean if math.isfinite(mean) else None


def _finite(value: Any) -> float | None:
    """As OpenEvolve averages: numbers, and booleans as 0 or 1; what is not finite says nothing."""
    if not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
