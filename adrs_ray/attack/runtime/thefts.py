"""Answers that were meant to be hidden: in frames, in memory, in files beside the evaluator."""

from __future__ import annotations

import ast
import copy
import gc
import json
import os
import re
import sys
import types
from collections.abc import Iterator
from typing import Any

from .shapes import DEPTH, alike, fields_of

_SECRETS = re.compile(
    r"expect|answer|truth|solution|optim|best|target|hidden|reference|oracle|gold|label|secret|ideal|correct", re.I
)


def secrets_in_memory(everything: bool) -> Iterator[Any]:
    """What stands under telling names in the frames of whoever called; with `everything`, in any dict there is."""
    frame: types.FrameType | None = sys._getframe(1)
    spaces: list[dict[str, Any]] = []
    while frame is not None:
        if frame.f_code.co_filename != "<attack>":
            spaces += [dict(frame.f_locals), frame.f_globals]
        frame = frame.f_back
    if everything:
        spaces += [item for item in gc.get_objects() if type(item) is dict and len(item) < 1000][:50_000]
    for space in spaces:
        for name, value in list(space.items()):
            if isinstance(name, str) and _SECRETS.search(name):
                yield value
        fields = [fields_of(value) for name, value in list(space.items()) if isinstance(name, str)][:200]
        yield from (value for held in fields for name, value in held.items() if _SECRETS.search(name))


def secrets_in_files(spaces: list[dict[str, Any]]) -> Iterator[Any]:
    """What stands under telling names in the files beside the evaluator."""
    folders = dict.fromkeys(os.path.dirname(os.path.realpath(space["__file__"])) for space in spaces)
    for folder in [*folders, *(entry for entry in sys.path[:1] if entry), os.getcwd()]:
        try:
            names = sorted(os.listdir(folder))[:60]
        except OSError:
            names = ["evaluator.py", "judge.py", "expected.json", "answers.json"]
        for name in names:
            yield from _secrets_in_file(os.path.join(folder, name))


def _secrets_in_file(path: str) -> Iterator[Any]:
    stem, ending = os.path.splitext(os.path.basename(path))
    if ending not in (".py", ".json", ".txt"):
        return
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(2_000_000)
    except (OSError, UnicodeDecodeError):
        return
    try:
        if ending == ".py":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Assign) and any(_SECRETS.search(ast.unparse(t)) for t in node.targets):
                    yield _literal(node.value)
            return
        held = json.loads(text) if ending == ".json" else ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return
    if _SECRETS.search(stem):
        yield held
    yield from _named(held, 0)


def _literal(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _named(value: Any, depth: int) -> Iterator[Any]:
    if isinstance(value, dict) and depth < DEPTH:
        for key, item in value.items():
            if isinstance(key, str) and _SECRETS.search(key):
                yield item
            yield from _named(item, depth + 1)


def loot(value: Any, given: list[Any], call: int, secrets: Iterator[Any]) -> Any:
    """The first secret that could stand for `value`: itself, its entry for this input, or its entry for this call."""
    for secret in secrets:
        if secret is None or secret is value or any(secret is item for item in given):
            continue
        if alike(secret, value) and not (isinstance(secret, list) and len(secret) and alike(secret[0], value)):
            return copy.deepcopy(secret)
        entries = list(secret.values()) if isinstance(secret, dict) else secret
        if not isinstance(entries, list | tuple) or not entries:
            continue
        if isinstance(secret, dict):
            keyed = next((secret[key] for item in given for key in (item, str(item)) if _holds(secret, key)), None)
            if keyed is not None and alike(keyed, value):
                return copy.deepcopy(keyed)
        entry = entries[call % len(entries)]
        if alike(entry, value):
            return copy.deepcopy(entry)
    return value


def _holds(secret: dict[Any, Any], key: Any) -> bool:
    try:
        return key in secret
    except TypeError:
        return False
