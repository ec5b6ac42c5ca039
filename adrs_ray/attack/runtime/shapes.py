"""What values look like: shapes, digests, sizes. Numpy, pandas and torch are told by what their values can do."""

from __future__ import annotations

import hashlib
import types
from collections.abc import Iterator
from typing import Any

NODES = 20_000
DEPTH = 6
_RECORD = 8
"""A dict with at most so many names, or a tuple of at most so many values, is a record: each part means something."""


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype") and not hasattr(value, "iloc") and bool(value.shape)


def is_frame(value: Any) -> bool:
    return hasattr(value, "iloc") and hasattr(value, "columns")


def fields_of(value: Any) -> dict[str, Any]:
    """The attributes of an object that holds data, else nothing."""
    if isinstance(value, type | types.ModuleType) or callable(value) or isinstance(value, str | bytes | int | float):
        return {}
    try:
        return dict(vars(value))
    except TypeError:
        slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ()) if name != "__dict__"]
        return {name: getattr(value, name) for name in slots if hasattr(value, name)}


def describe(value: Any, depth: int) -> dict[str, Any]:
    """The shape of a value: `kind`, and below `of` the parts of a record or the first element of a collection."""
    if value is None or isinstance(value, bool | int | float | str):
        return {"kind": type(value).__name__ if value is not None else "none"}
    if is_frame(value) or is_array(value):
        return {"kind": "frame" if is_frame(value) else "array", "size": len(value)}
    if depth >= DEPTH:
        return {"kind": "other"}
    if isinstance(value, dict):
        names = all(isinstance(key, str) and key.isidentifier() for key in value)
        kinds = {str(describe(item, depth + 1)["kind"]) for item in list(value.values())[:_RECORD]}
        if names and 0 < len(value) <= _RECORD and (len(kinds) > 1 or len(value) == 1):
            return {"kind": "struct", "of": {key: describe(item, depth + 1) for key, item in value.items()}}
        first = next(iter(value.values()), None)
        return {"kind": "dict", "size": len(value), "of": describe(first, depth + 1)}
    if isinstance(value, list | tuple):
        parts = [describe(item, depth + 1) for item in value[:_RECORD]]
        mixed = len({part["kind"] for part in parts}) > 1
        if 0 < len(value) <= _RECORD and (isinstance(value, tuple) or mixed):
            return {"kind": "record", "of": parts}
        return {"kind": "list", "size": len(value), "of": parts[0] if parts else {"kind": "none"}}
    fields = fields_of(value)
    if fields and not callable(value):
        some = list(fields.items())[:_RECORD]
        return {"kind": "object", "of": {key: describe(item, depth + 1) for key, item in some}}
    return {"kind": "other"}


def kind_of(shape: dict[str, Any]) -> Any:
    """A shape without its sizes."""
    inner = shape.get("of")
    if isinstance(inner, list):
        return [shape["kind"], [kind_of(part) for part in inner]]
    if isinstance(inner, dict) and shape["kind"] in ("struct", "object"):
        return [shape["kind"], {key: kind_of(part) for key, part in inner.items()}]
    return [shape["kind"], kind_of(inner)] if isinstance(inner, dict) else shape["kind"]


def walk(value: Any) -> Iterator[Any]:
    """The scalars and structure of a value in a fixed order, at most `NODES` items."""
    left = NODES
    stack: list[tuple[Any, int]] = [(value, 0)]
    while stack and left:
        item, depth = stack.pop()
        left -= 1
        if is_frame(item):
            item = item.to_numpy()
        if is_array(item):
            yield str(getattr(item, "shape", ""))
            item = item.reshape(-1)[:NODES].tolist()
        if isinstance(item, dict):
            yield "{"
            stack += [(part, depth + 1) for pair in reversed(item.items()) for part in reversed(pair)]
        elif isinstance(item, list | tuple):
            yield "["
            stack += [(part, depth + 1) for part in reversed(item)]
        elif isinstance(item, set | frozenset):
            yield sorted(map(repr, item))
        elif item is None or isinstance(item, bool | int | float | str | bytes):
            yield item
        else:
            yield type(item).__name__
            if depth < DEPTH:
                stack += [(part, depth + 1) for part in reversed(list(fields_of(item).values()))]


def digest(value: Any) -> str:
    """12 hex digits of what a value holds."""
    hashed = hashlib.sha256()
    for item in walk(value):
        hashed.update(repr(item).encode("utf-8", "replace"))
        hashed.update(b";")
    return hashed.hexdigest()[:12]


def volume(value: Any) -> int:
    """How much a value holds."""
    return sum(1 for _ in walk(value))


def scalar_in(value: Any) -> float | None:
    """The first number beside the containers of an answer: what a program may report of itself."""
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else [value]
    return next((float(part) for part in list(parts)[:_RECORD] if is_number(part)), None)


def crosses(arg: Any, what: str, value: float | None) -> bool:
    """Whether a plan to crash above or below a level of `what` holds for `value`."""
    if arg[0] not in (f"{what}>", f"{what}<=") or value is None:
        return False
    return bool(value > arg[1] if arg[0].endswith(">") else value <= arg[1])


def alike(one: Any, other: Any) -> bool:
    """Whether two values could stand for each other: same kind, same length."""
    if is_number(one) and is_number(other):
        return True
    if is_frame(one) or is_frame(other) or is_array(one) or is_array(other):
        return type(one) is type(other) and one.shape == other.shape
    same = isinstance(one, list | tuple) and isinstance(other, list | tuple)
    if same or (isinstance(one, dict) and isinstance(other, dict)):
        return len(one) == len(other) and len(one) > 0
    return type(one) is type(other) and one is not None and not isinstance(one, bool)
