"""Which files of a model an engine needs, and whether a folder has them whole."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
"""Of the repository's top folder alone: below it, repositories keep the same weights again in other formats."""
_SUFFIXES = (".safetensors", ".json", ".txt", ".model", ".jinja", ".tiktoken")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "*.tiktoken")
INDEX = "model.safetensors.index.json"
_LARGEST_HEADER = 100_000_000
"""Bytes, as the safetensors format has it."""


def needed(names: Iterable[str]) -> list[str]:
    """Those of a repository's files that are pulled: weights as safetensors, configuration, tokenizer."""
    return sorted(name for name in names if _SAFE_NAME.fullmatch(name) and name.endswith(_SUFFIXES))


def folder_problem(folder: Path) -> str | None:
    """What an engine would miss in this folder, in one line; None when it has everything, whole.

    Every file of weights must be as long as its own header says, so that a copy that broke off is found without
    reading it.
    """
    try:
        return _problem(folder)
    except OSError as error:
        return f"cannot be read: {error.strerror}: {error.filename}"


def _problem(folder: Path) -> str | None:
    if not folder.is_dir():
        return "is no folder"
    if not isinstance(_json(folder / "config.json"), dict):
        return "has no config.json that can be read"
    if not any(next(folder.glob(pattern), None) for pattern in _TOKENIZERS):
        return "has no tokenizer"
    weights = _weights(folder)
    if isinstance(weights, str):
        return weights
    for name in weights:
        path = folder / name
        if not path.is_file():
            return f"lacks {name}"
        expected = _expected_bytes(path)
        if expected is None:
            return f"holds {name}, which is no safetensors file"
        if path.stat().st_size != expected:
            return f"holds {name} of {path.stat().st_size} bytes, its header says {expected}"
    return None


def folder_bytes(folder: Path) -> int:
    """Of the files that an engine needs."""
    return sum(folder.joinpath(name).stat().st_size for name in needed(path.name for path in folder.iterdir()))


def _weights(folder: Path) -> list[str] | str:
    """Names of the files of weights, or what is wrong."""
    if (folder / INDEX).exists():
        index = _json(folder / INDEX)
        places = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(places, dict) or not places or not all(isinstance(v, str) for v in places.values()):
            return f"has an {INDEX} that cannot be read"
        names = sorted(set(places.values()))
        outside = [name for name in names if not _SAFE_NAME.fullmatch(name)]
        return f"has an {INDEX} that names {outside[0]!r}" if outside else names
    names = sorted(path.name for path in folder.glob("*.safetensors"))
    return names or "has no weights (*.safetensors)"


def _json(path: Path) -> Any:
    """What the file says, or None."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError, RecursionError):
        return None


def _expected_bytes(path: Path) -> int | None:
    """Length of a safetensors file by its header (8 bytes of length, JSON, then tensors end to end)."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= _LARGEST_HEADER:
            return None
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError):
            return None
    if not isinstance(header, dict):
        return None
    end = 0
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        offsets = tensor.get("data_offsets") if isinstance(tensor, dict) else None
        if not (isinstance(offsets, list) and len(offsets) == 2 and all(type(each) is int for each in offsets)):
            return None
        end = max(end, offsets[1])
    return 8 + length + end
