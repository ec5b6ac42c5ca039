"""Lies about time, results and inputs."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from .shapes import DEPTH, NODES, fields_of, is_array, is_number


def say(text: str) -> None:
    """To both streams, past whatever buffers them."""
    for stream in (sys.stdout, sys.stderr):
        stream.write(text)
        stream.flush()


def forge_clocks(kind: str) -> None:
    """Clocks that stand still, or run backwards."""
    ticks = [1e9]

    def seconds(*_: Any) -> float:
        if kind == "backwards":
            ticks[0] -= 1.0
        return ticks[0]

    for name in ("time", "perf_counter", "monotonic", "process_time", "thread_time"):
        setattr(time, name, seconds)
        setattr(time, f"{name}_ns", lambda *_: int(seconds() * 1e9))


def spoil(targets: list[Any], how: str) -> None:
    """Change the numbers in `targets` in place: `zero`, `one`, `tiny`, `huge`, `negative`; or `clear` containers."""
    change: dict[str, Callable[[Any], Any]] = {
        "zero": lambda old: old * 0,
        "one": lambda old: old * 0 + 1,
        "tiny": lambda old: old * 1e-6,
        "huge": lambda old: old * 10**6,
        "negative": lambda old: -abs(old),
    }
    seen: set[int] = set()
    stack: list[tuple[Any, int]] = [(item, 0) for item in targets]
    while stack and len(seen) < NODES:
        item, depth = stack.pop()
        if id(item) in seen or depth > DEPTH or item is None or isinstance(item, str | bytes | int | float):
            continue
        seen.add(id(item))
        if how == "clear":
            if isinstance(item, list | dict | set):
                item.clear()
            else:
                stack += [(part, depth + 1) for part in fields_of(item).values()]
            continue
        stack += [(part, depth + 1) for part in _spoilt(item, change[how])]


def _spoilt(item: Any, change: Callable[[Any], Any]) -> list[Any]:
    """Change the numbers that `item` holds itself, and give its other parts."""
    if is_array(item):
        try:
            item[...] = change(item)
        except (TypeError, ValueError, RuntimeError):
            pass  # read-only, or a dtype that cannot hold it
        return []
    if isinstance(item, dict):
        parts: list[tuple[Any, Any]] = list(item.items())
        put: Callable[[Any, Any], None] = item.__setitem__
    elif isinstance(item, list):
        parts, put = list(enumerate(item)), item.__setitem__
    elif isinstance(item, tuple):
        return list(item)
    else:
        parts = list(fields_of(item).items())
        put = functools.partial(setattr, item)
    others = []
    for key, value in parts:
        if is_number(value):
            try:
                put(key, change(value))
            except (AttributeError, TypeError, ValueError, OverflowError):
                continue  # a frozen object
        else:
            others.append(value)
    return others
