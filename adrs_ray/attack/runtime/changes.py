"""Changes to an answer. Each gives a new value, as far as values can be copied, and raises where it does not fit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from .shapes import DEPTH, fields_of, is_array, is_frame, is_number, walk


def rebuilt(value: Any, path: list[Any], change: Callable[[Any], Any]) -> Any:
    """A copy of `value` with `change` applied at `path`: steps are a key, an index, `.name` for an attribute, `*`."""
    if not path:
        return change(value)
    step, rest = path[0], path[1:]
    if step == "*":
        if isinstance(value, dict):
            return {key: rebuilt(item, rest, change) for key, item in value.items()}
        return same_type(value, [rebuilt(item, rest, change) for item in value])
    if isinstance(step, str) and step.startswith("."):
        changed = copy.copy(value)
        setattr(changed, step[1:], rebuilt(getattr(value, step[1:]), rest, change))
        return changed
    if isinstance(value, tuple):
        items = list(value)
        items[step] = rebuilt(items[step], rest, change)
        return same_type(value, items)
    changed = copy.copy(value)
    changed[step] = rebuilt(value[step], rest, change)
    return changed


def same_type(like: Any, items: list[Any]) -> Any:
    if isinstance(like, tuple):
        return type(like)(*items) if hasattr(like, "_fields") else tuple(items)
    return items


def cut(arg: Any, value: Any) -> Any:
    """`none`, `first`, `half` or `tail` of a collection."""
    size = len(value)
    start, stop = {"none": (0, 0), "first": (0, 1), "half": (0, (size + 1) // 2), "tail": (size // 2, size)}[arg]
    if isinstance(value, dict):
        return dict(list(value.items())[start:stop])
    if is_frame(value):
        return value.iloc[start:stop]
    if isinstance(value, set | frozenset):
        return type(value)(sorted(value, key=repr)[start:stop])
    return value[start:stop]


def drop(arg: Any, value: Any) -> Any:
    """Without one key of a record."""
    return {key: item for key, item in value.items() if key != arg}


def same(arg: Any, value: Any) -> Any:
    """Every element is the first."""
    if isinstance(value, dict):
        first = next(iter(value.values()))
        return dict.fromkeys(value, first)
    if is_frame(value):
        return value.iloc[[0] * len(value)]
    if is_array(value):
        return value[[0] * len(value)]
    return same_type(value, [value[0]] * len(value))


def double(arg: Any, value: Any) -> Any:
    """Everything twice."""
    if is_array(value) or is_frame(value):
        twice = list(range(len(value))) * 2
        return value.iloc[twice] if is_frame(value) else value[twice]
    return value + value


def reverse(arg: Any, value: Any) -> Any:
    """The elements in reverse order; of a dict, the values, under the same keys."""
    if isinstance(value, dict):
        return dict(zip(value, reversed(list(value.values())), strict=True))
    order = list(range(len(value)))[::-1]
    if is_frame(value):
        return value.iloc[order]
    return value[order] if is_array(value) else same_type(value, [value[i] for i in order])


def leaves(change: Callable[[Any], Any], value: Any, depth: int = 0) -> Any:
    """`change` applied to every number in a value."""
    if is_frame(value):
        return type(value)(change(0), index=value.index, columns=value.columns)
    if is_array(value):
        return change(value)
    if isinstance(value, dict):
        return {key: leaves(change, item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return same_type(value, [leaves(change, item, depth + 1) for item in value])
    if is_number(value):
        return change(value)
    fields = fields_of(value)
    if fields and depth < DEPTH:
        changed = copy.copy(value)
        for name, item in fields.items():
            setattr(changed, name, leaves(change, item, depth + 1))
        return changed
    return value


def fill(arg: Any, value: Any) -> Any:
    """Every number becomes `arg`: a number, or the name of one that is not finite."""
    number = float(arg) if isinstance(arg, str) else arg
    return leaves(lambda old: old * 0 + number if is_array(old) else number, value)


def fill_largest(arg: Any, value: Any) -> Any:
    """Every number becomes the largest, times `arg`."""
    largest = max((item for item in walk(value) if is_number(item)), default=0)
    return fill(arg * largest, value)


def shift(arg: Any, value: Any) -> Any:
    """Every number is moved far away: by `arg`, or below zero."""
    return leaves(lambda old: -1 - old if arg == "below" else old + arg, value)


def as_text(arg: Any, value: Any) -> Any:
    return leaves(lambda old: str(old) if is_number(old) else old.astype(str), value)


def as_bool(arg: Any, value: Any) -> Any:
    return leaves(lambda old: bool(old) if is_number(old) else old.astype(bool), value)


def spread(arg: Any, value: Any) -> Any:
    """Every element gets a holder of its own, with names beyond those in use."""
    if isinstance(value, dict):
        if not all(isinstance(item, list | tuple) for item in value.values()):
            return dict(zip(value, range(arg, arg + len(value)), strict=True))
        items = [item for held in value.values() for item in held]
        keys = list(value)
        numbers = [key for key in keys if is_number(key)]
        for extra in range(len(keys), len(items)):
            keys.append(max(numbers) + 1 + extra - len(value) if numbers else f"extra{extra}")
        return {key: [item] for key, item in zip(keys, items, strict=False)}
    if is_array(value):
        return value * 0 + type(value)(value.shape) if not len(value) else _numbered(value, arg)
    if value and all(isinstance(item, list | tuple) for item in value):
        return [[item] for held in value for item in held]
    return same_type(value, list(range(arg, arg + len(value))))


def _numbered(value: Any, start: int) -> Any:
    changed = copy.deepcopy(value)
    flat = changed.reshape(-1)
    for position in range(len(flat)):
        flat[position] = start + position
    return flat.reshape(value.shape)


CHANGES: dict[str, Callable[[Any, Any], Any]] = {
    "cut": cut,
    "drop": drop,
    "same": same,
    "double": double,
    "reverse": reverse,
    "fill": fill,
    "fill_largest": fill_largest,
    "shift": shift,
    "text": as_text,
    "bool": as_bool,
    "spread": spread,
}


def forged(value: Any, name: str, number: float, depth: int) -> Any:
    """Every number under `name`, as a key or an attribute, becomes `number`."""
    if depth > 2 * DEPTH:
        return value
    if isinstance(value, dict):
        return {
            key: number if key == name and is_number(item) else forged(item, name, number, depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return same_type(value, [forged(item, name, number, depth + 1) for item in value])
    fields = {} if is_array(value) or is_frame(value) else fields_of(value)
    if not fields:
        return value
    changed = copy.copy(value)
    for key, item in fields.items():
        setattr(changed, key, number if key == name and is_number(item) else forged(item, name, number, depth + 1))
    return changed
