"""What every placement must be, checked exactly on integers, and what a good one should be.

A placement of `shape` is three maps (names and layout of DeepSeek's EPLB, github.com/deepseek-ai/EPLB):

- `phy2log` [layers, slots]: the expert in each slot. Every expert stands in at least one slot.
- `log2phy` [layers, experts, width]: first the slots of that expert, each once, in any order; -1 in all that follow.
  `width` is at least the largest count and at most `slots - experts + 1`, the most copies that an expert can have;
  so trailing columns of -1 are fine and a map that names every slot for every expert is none.
- `counts` [layers, experts]: how many slots hold each expert.

All are plain `numpy.ndarray` of a signed integer type. Two public evaluators miss parts of this and can be driven to a
perfect score: by every slot for every expert (nothing checked), and by a map of four dimensions (only counts checked).
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from gpu_eval.shapes import Shape

IntArray = NDArray[np.int64]


class PlacementError(ValueError):
    """One line that says what is wrong with a placement.

    `kind`: type, dtype, shape, range, missing, count, width, inverse, padding, duplicate or locality.
    `layer`, `expert`: where, None where the whole map is meant.
    """

    def __init__(self, kind: str, text: str, layer: int | None = None, expert: int | None = None) -> None:
        self.kind = kind
        self.layer = layer
        self.expert = expert
        where = [f"{name} {number}" for name, number in (("layer", layer), ("expert", expert)) if number is not None]
        super().__init__(f"{', '.join(where)}: {text}" if where else text)

    @property
    def malformed(self) -> bool:
        """Whether what was given is no such map at all, rather than one that breaks a rule."""
        return self.kind in ("type", "dtype", "shape")


def check_placement(phy2log: object, log2phy: object, counts: object, shape: Shape) -> None:
    """Raise PlacementError unless the three maps are one valid placement of `shape` that agree with each other."""
    placed = _map("physical_to_logical", phy2log, 2, (shape.layers, shape.slots))
    inverse = _map("logical_to_physical", log2phy, 3, (shape.layers, shape.experts))
    told = _map("expert_count", counts, 2, (shape.layers, shape.experts))
    true = _counts(placed, shape)
    wrong = told != true
    if wrong.any():
        layer, expert = _first(wrong)
        _fail("count", f"expert_count is {told[layer, expert]}, its slots are {true[layer, expert]}", layer, expert)
    _check_width(inverse, true, shape)
    _check_inverse(placed, inverse, true, shape)


def check_phy2log(phy2log: object, shape: Shape) -> None:
    """Raise PlacementError unless the map alone is a valid placement of `shape`."""
    _counts(_map("physical_to_logical", phy2log, 2, (shape.layers, shape.slots)), shape)


def check_duplicates(phy2log: object, shape: Shape) -> None:
    """Raise PlacementError where a GPU holds an expert twice: memory without use, and once a cause of wrong output."""
    placed = _map("physical_to_logical", phy2log, 2, (shape.layers, shape.slots))
    _counts(placed, shape)
    by_gpu = np.sort(placed.reshape(shape.layers, shape.gpus, shape.slots_per_gpu), axis=2)
    twice = by_gpu[:, :, 1:] == by_gpu[:, :, :-1]
    if twice.any():
        layer, gpu, place = (int(index) for index in np.argwhere(twice)[0])
        expert = int(by_gpu[layer, gpu, place])
        found = int((by_gpu[layer, gpu] == expert).sum())
        _fail("duplicate", f"expected at most one copy per GPU, found {found} on GPU {gpu}", layer, expert)


def check_locality(phy2log: object, shape: Shape) -> None:
    """Raise PlacementError where the experts of one group stand on more than one node.

    Raises ValueError for a shape whose groups cannot stay on nodes (`Shape.local_groups`).
    """
    if not shape.local_groups:
        raise ValueError(f"{shape.name}: its {shape.groups} groups cannot stay on its {shape.nodes} nodes")
    placed = _map("physical_to_logical", phy2log, 2, (shape.layers, shape.slots))
    _counts(placed, shape)
    node = np.broadcast_to(np.arange(shape.slots) // (shape.slots // shape.nodes), placed.shape)
    group = placed // shape.experts_per_group
    rows = np.arange(shape.layers)[:, None]
    first = np.full((shape.layers, shape.groups), shape.nodes)
    np.minimum.at(first, (rows, group), node)
    away = first[rows, group] != node
    if away.any():
        layer, slot = _first(away)
        home, found = first[layer, group[layer, slot]], node[layer, slot]
        text = f"group {group[layer, slot]} expected on node {home} alone, found in slot {slot} on node {found}"
        _fail("locality", text, layer, int(placed[layer, slot]))


def _counts(placed: IntArray, shape: Shape) -> IntArray:
    """How many slots hold each expert, after checking that all are experts and that none is missing."""
    outside = (placed < 0) | (placed >= shape.experts)
    if outside.any():
        layer, slot = _first(outside)
        text = f"slot {slot} holds expert {placed[layer, slot]}, expected 0 to {shape.experts - 1}"
        _fail("range", text, layer)
    keys = placed + np.arange(shape.layers)[:, None] * shape.experts
    counts = np.bincount(keys.reshape(-1), minlength=shape.layers * shape.experts)
    counts = counts.reshape(shape.layers, shape.experts)
    if not counts.all():
        layer, expert = _first(counts == 0)
        _fail("missing", "expected in at least one slot, found in none", layer, expert)
    return counts


def _check_width(inverse: IntArray, counts: IntArray, shape: Shape) -> None:
    width, most = inverse.shape[2], shape.slots - shape.experts + 1
    if width < counts.max():
        layer, expert = _first(counts == counts.max())
        _fail("width", f"logical_to_physical has {width} columns, its copies are {counts.max()}", layer, expert)
    if width > most:
        text = f"logical_to_physical has {width} columns, an expert can have at most {most} copies"
        _fail("width", text)


def _check_inverse(placed: IntArray, inverse: IntArray, counts: IntArray, shape: Shape) -> None:
    """Every expert's first `counts` entries name its slots, each once; -1 follows."""
    width = inverse.shape[2]
    entries = shape.layers * shape.slots
    copies = counts.reshape(-1)
    owners = np.repeat(np.arange(copies.size), copies)
    column = np.arange(entries) - np.repeat(np.cumsum(copies) - copies, copies)
    named = inverse.reshape(-1)[owners * width + column]
    layers = owners // shape.experts

    outside = (named < 0) | (named >= shape.slots)
    if outside.any():
        entry = int(np.argmax(outside))
        text = f"entry {column[entry]} of logical_to_physical is {named[entry]}, expected 0 to {shape.slots - 1}"
        _fail("inverse", text, *divmod(int(owners[entry]), shape.experts))
    where = layers * shape.slots + named
    elsewhere = placed.reshape(-1)[where] != owners % shape.experts
    if elsewhere.any():
        entry = int(np.argmax(elsewhere))
        text = f"logical_to_physical names slot {named[entry]}, which holds expert {placed.reshape(-1)[where[entry]]}"
        _fail("inverse", text, *divmod(int(owners[entry]), shape.experts))
    # As many entries as slots, each in a slot of its own expert: a slot named twice is another that is named never.
    times = np.bincount(where, minlength=entries)
    if times.max() > 1:
        slot = int(np.argmax(times > 1))
        layer = slot // shape.slots
        text = f"logical_to_physical names slot {slot % shape.slots} {times[slot]} times, expected once"
        _fail("inverse", text, layer, int(placed.reshape(-1)[slot]))
    if np.count_nonzero(inverse == -1) != inverse.size - entries:
        wrong = (inverse != -1) & (np.arange(width) >= counts[:, :, None])
        layer, expert, place = (int(index) for index in np.argwhere(wrong)[0])
        text = f"entry {place} of logical_to_physical is {inverse[layer, expert, place]}, expected -1 after its copies"
        _fail("padding", text, layer, expert)


def _map(name: str, value: object, dimensions: int, leading: tuple[int, ...]) -> IntArray:
    """The value as int64, after its type, type of numbers and extents; `leading` are the extents that are known."""
    if type(value) is not np.ndarray:
        _fail("type", f"{name} is {type(value).__name__}, expected a plain numpy array")
    array: NDArray[Any] = value
    if array.dtype.kind != "i":
        _fail("dtype", f"{name} is {array.dtype}, expected a signed integer type")
    if array.ndim != dimensions or array.shape[: len(leading)] != leading:
        expected = "x".join([*map(str, leading), *["width"] * (dimensions - len(leading))])
        _fail("shape", f"{name} is {'x'.join(map(str, array.shape)) or 'a number'}, expected {expected}")
    return array.astype(np.int64, copy=False)


def _first(mask: NDArray[np.bool_]) -> tuple[int, int]:
    row, column = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return int(row), int(column)


def _fail(kind: str, text: str, layer: int | None = None, expert: int | None = None) -> NoReturn:
    raise PlacementError(kind, text, layer, expert)
