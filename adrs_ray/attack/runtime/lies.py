"""Lies about time, results and inputs, and an evaluator that is made to tell them itself."""

from __future__ import annotations

import functools
import os
import sys
import time
import types
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


def evaluator_spaces(program: dict[str, Any]) -> list[dict[str, Any]]:
    """The globals of whoever called, up the stack, and of modules beside them: not libraries, not the program."""
    libraries = tuple(os.path.realpath(path) + os.sep for path in (os.path.dirname(os.__file__), sys.prefix))
    spaces = [vars(module) for module in list(sys.modules.values())]
    called: list[dict[str, Any]] = []
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None:
        called.append(frame.f_globals)
        frame = frame.f_back
    folders = {os.path.dirname(_file(space)) for space in called} - {""}
    beside = [space for space in spaces if os.path.dirname(_file(space)) in folders]
    unique = {id(space): space for space in (*called, *beside) if space is not program and _file(space)}
    return [space for space in unique.values() if not _file(space).startswith(libraries)]


def _file(space: dict[str, Any]) -> str:
    file = space.get("__file__")
    return os.path.realpath(file) if isinstance(file, str) and os.sep in file else ""


def override(spaces: list[dict[str, Any]], how: str) -> None:
    """Make functions of the evaluator say better things, or hide builtins from it behind worse ones."""
    builtin: dict[str, Callable[..., Any]] = {"max": min, "sum": lambda *_: 0, "abs": lambda *_: 0}
    for space in spaces:
        if how in builtin:
            space[how] = builtin[how]
            continue
        for name, value in list(space.items()):
            local = isinstance(value, types.FunctionType) and value.__module__ == space.get("__name__")
            if local and not getattr(value, "_overridden", False):
                space[name] = _flattering(value, how)


def _flattering(original: Callable[..., Any], how: str) -> Callable[..., Any]:
    def better(value: Any) -> Any:
        if isinstance(value, bool):
            return True
        if how != "true" and is_number(value):
            return 0 if how == "zero" else 1e9
        if isinstance(value, dict):
            return {key: better(item) for key, item in value.items()}
        return tuple(map(better, value)) if isinstance(value, tuple) else value

    @functools.wraps(original)
    def flattering(*args: Any, **named: Any) -> Any:
        return better(original(*args, **named))

    flattering._overridden = True  # type: ignore[attr-defined]
    return flattering
