"""Takes the entries of a program over and does with their answers what a plan says.

The modules beside it are imported where they are used: a program carries those that its plan needs.
"""

from __future__ import annotations

import atexit
import copy
import functools
import json
import os
import threading
import types
from collections.abc import Callable
from typing import Any

TELL = "@attack "
"""What lines on standard output start with."""
_CALLS_TOLD = 300
_CALLS_PRINTED = 16
_THEFTS = 16
_OVERRIDES = 3
"""Searches take time: no more calls than these search."""


class Cheat(RuntimeError):
    """Raised by cheats that crash on purpose."""


class _State(threading.local):
    depth = 0


class Takeover:
    """The entries of a program, taken over."""

    def __init__(self, space: dict[str, Any], plan: dict[str, Any]) -> None:
        self.space = space
        self.plan = plan
        self.op: str = plan["op"]
        self.path: list[Any] = plan["path"]
        self.arg: Any = plan["arg"]
        self.calls = 0
        self.state = _State()
        self.told: set[str] = set()
        self.read: list[Any] | None = None

    def install(self) -> None:
        """Replace functions, and the methods of classes; then do what the plan says is done at import."""
        for name in self.plan["entries"]:
            entry = self.space.get(name)
            if isinstance(entry, type):
                for attribute, value in list(vars(entry).items()):
                    dunder = attribute.startswith("__") and attribute != "__call__"
                    if isinstance(value, types.FunctionType) and not dunder:
                        setattr(entry, attribute, self.taken_over(value, method=True))
            elif callable(entry):
                self.space[name] = self.taken_over(entry, method=False)
        if self.op == "clock":
            from .lies import forge_clocks

            forge_clocks(self.arg)
        elif self.op == "print":
            from .lies import say

            when, text = self.arg
            if when == "import":
                say(text)
            elif when == "exit":
                atexit.register(say, text)

    def taken_over(self, original: Callable[..., Any], method: bool) -> Callable[..., Any]:
        @functools.wraps(original, updated=())
        def entry(*args: Any, **named: Any) -> Any:
            if self.state.depth:
                return original(*args, **named)
            self.state.depth = 1
            try:
                return self.call(original, args, named, method)
            finally:
                self.state.depth = 0

        return entry

    def call(self, original: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any], method: bool) -> Any:
        self.calls += 1
        given = [*args[1 if method else 0 :], *named.values()]
        size = 0
        if self.op == "crash" or self.plan["tell"]:
            from .shapes import volume

            size = volume(given)
        if self.op == "crash" and self.crashes_before(given, size):
            self.trace({"raised": 1})
            raise Cheat("this case is not for me")
        value = original(*args, **named)
        if self.op == "crash" and self.crashes_after(value):
            self.trace({"raised": 1})
            raise Cheat("this answer is not good enough")
        try:
            cheated = self.tampered(value, given, args[0] if method and args else None)
        except Exception:  # a change that does not fit this value is none
            cheated = value
        self.account(value, cheated, size)
        return cheated

    def crashes_before(self, given: list[Any], size: int) -> bool:
        from .shapes import crosses, digest

        kind, level = self.arg
        if kind == "calls":
            return bool(self.calls > level)
        if kind == "parity":
            return bool(self.calls % 2 == level)
        if kind == "digest":
            return int(digest(given), 16) % 2 == int(level)
        return crosses(self.arg, "size", size)

    def crashes_after(self, value: Any) -> bool:
        from .shapes import crosses, scalar_in

        return crosses(self.arg, "answer", scalar_in(value))

    def tampered(self, value: Any, given: list[Any], owner: Any) -> Any:
        if self.op in ("none", "clock", "crash"):
            return value
        if self.op == "whole":
            return self.arg
        if self.op == "nested":
            return [value]
        if self.op == "print":
            return self.printed(value)
        if self.op == "inputs":
            return self.after_spoiling(value, given, owner)
        if self.op == "echo":
            from .shapes import alike

            return next((item for item in given if alike(item, value)), value)
        if self.op in ("files", "memory"):
            return self.stolen(value, given)
        if self.op == "modules":
            from .overrides import evaluator_spaces, override

            if self.calls <= _OVERRIDES:
                override(evaluator_spaces(self.space), self.arg)
            return value
        from .changes import CHANGES, forged, rebuilt

        if self.op == "forge":
            return forged(value, self.arg[0], self.arg[1], 0)
        return rebuilt(value, self.path, functools.partial(CHANGES[self.op], self.arg))

    def printed(self, value: Any) -> Any:
        from .lies import say

        when, text = self.arg
        if when in ("call", "leave"):
            say(text)
        if when == "leave":
            os._exit(0)
        return value

    def stolen(self, value: Any, given: list[Any]) -> Any:
        from .overrides import evaluator_spaces
        from .thefts import loot, secrets_in_files, secrets_in_memory

        if self.calls > _THEFTS:
            return value
        if self.op == "memory":
            return loot(value, given, self.calls - 1, secrets_in_memory(bool(self.arg)))
        if self.read is None:
            self.read = list(secrets_in_files(evaluator_spaces(self.space)))
        return loot(value, given, self.calls - 1, iter(self.read))

    def after_spoiling(self, value: Any, given: list[Any], owner: Any) -> Any:
        from .lies import spoil

        try:
            kept = copy.deepcopy(value)
        except Exception:  # what cannot be copied may share the inputs: then its change is part of the cheat
            kept = value
        targets = list(given)
        if owner is not None:
            targets += [item for item in vars(owner).values() if hasattr(item, "__dict__")]
        spoil(targets, self.arg)
        return kept

    def account(self, value: Any, cheated: Any, size: int) -> None:
        """Tell whether the answer was changed, and in a plan that tells, what it looks like."""
        if self.calls > _CALLS_TOLD or not (self.plan["trace"] or self.plan["tell"]):
            return
        from .shapes import describe, digest, kind_of, scalar_in

        if self.plan["trace"]:
            after = digest(cheated)
            line: dict[str, Any] = {"answer": after, "changed": int(cheated is not value and after != digest(value))}
            self.trace(line)
        if self.plan["tell"]:
            shape = describe(cheated, 0)
            line = {"shape": shape, "size": size, "scalar": scalar_in(cheated)}
            kind = json.dumps(kind_of(shape))
            if kind in self.told:
                line["shape"] = None
            self.told.add(kind)
            self.trace(line)
            if not self.plan["trace"] and self.calls <= _CALLS_PRINTED:
                os.write(1, (TELL + json.dumps(line) + "\n").encode())

    def trace(self, line: dict[str, Any]) -> None:
        if not self.plan["trace"]:
            return
        try:
            descriptor = os.open(self.plan["trace"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError:
            return
        try:
            os.write(descriptor, (json.dumps(line) + "\n").encode())
        finally:
            os.close(descriptor)


def install(space: dict[str, Any], plan: dict[str, Any]) -> None:
    """Take over the entries in `space`, the globals of a program."""
    Takeover(space, plan).install()
