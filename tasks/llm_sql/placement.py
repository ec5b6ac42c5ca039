"""Finds where the cells of an answer came from: which row, and in which order its columns stand.

The judge is given this placement only, never a text of the candidate: it builds the rows from its own copy of the
table. So whatever a candidate's process sends, it can claim nothing that it could not have had honestly. An answer
with a cell, a row or a character too many, too few or changed has no placement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, islice, permutations, product
from typing import Any, TypeAlias

import numpy as np

from .table import join_columns

Columns: TypeAlias = Sequence[Sequence[str]]
Atom: TypeAlias = tuple[int, ...]
"""Columns of the table that stand in one cell of the answer: one, or a merged group in the order of joining."""

_MAX_ATTEMPTS = 64
_MAX_ORDERS = 5_040


class NoPlacement(Exception):
    """The answer is no rearrangement of the table; the message names the first offending row."""


@dataclass(frozen=True, slots=True)
class Placement:
    """`rows[i]` is the table's row that stands at place i, `orders[i]` its columns from left to right."""

    rows: np.ndarray[Any, Any]
    orders: np.ndarray[Any, Any]


def place(table: Columns, groups: Sequence[Atom], answer: Columns, rows: int) -> Placement:
    """The placement of `answer`, whose columns hold `rows` texts each, in `table`.

    A group of `groups` may stand as separate cells or be joined into one, in one order for the whole table. Raises
    NoPlacement.
    """
    height = len(table[0])
    if rows != height:
        raise NoPlacement(f"the answer has {rows} rows, the table {height}")
    if any(len(column) != rows for column in answer):
        raise NoPlacement("the answer's rows have different numbers of cells")
    layouts = list(islice(_layouts(table, groups, answer), _MAX_ATTEMPTS))
    if not layouts:
        separate = len(table)
        merged = separate - sum(len(group) - 1 for group in groups)
        expected = f"{separate}" if merged == separate else f"{separate}, or {merged} with the groups merged"
        raise NoPlacement(f"the answer has {len(answer)} columns, expected {expected}")
    failure = None
    for layout in layouts:
        try:
            return _place(table, layout, answer)
        except NoPlacement as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _layouts(table: Columns, groups: Sequence[Atom], answer: Columns) -> Iterator[list[Atom]]:
    """Ways in which the answer's columns may hold the table's, the most likely first."""
    texts = {text for column in answer for text in column}
    for count in range(len(groups), -1, -1):
        for joined in combinations(groups, count):
            if len(table) - sum(len(group) - 1 for group in joined) != len(answer):
                continue
            inside = {column for group in joined for column in group}
            single: list[Atom] = [(column,) for column in range(len(table)) if column not in inside]
            choices = [_join_orders(table, group, texts) for group in joined]
            for orders in product(*choices):
                yield [*single, *orders]


def _join_orders(table: Columns, group: Atom, texts: set[str]) -> list[Atom]:
    """The orders in which the answer may have joined a group; the declared one if none fits."""
    fits: dict[tuple[str, ...], Atom] = {}
    for order in islice(permutations(group), _MAX_ORDERS):
        columns = [table[column] for column in order]
        if all("".join(cells) in texts for cells in zip(*columns, strict=True)):
            fits.setdefault(tuple(join_columns(columns)), order)
    return list(fits.values()) or [group]


def _place(table: Columns, layout: Sequence[Atom], answer: Columns) -> Placement:
    cells = [table[atom[0]] if len(atom) == 1 else join_columns([table[c] for c in atom]) for atom in layout]
    number: dict[str, int] = {}
    for column in cells:
        for text in column:
            number.setdefault(text, len(number))
    theirs = np.array([[number[text] for text in column] for column in cells], np.int64).T
    given = np.array([[number.get(text, -1) for text in column] for column in answer], np.int64).T
    place_theirs, place_given = (np.argsort(ids, axis=1, kind="stable") for ids in (theirs, given))
    theirs, given = np.take_along_axis(theirs, place_theirs, 1), np.take_along_axis(given, place_given, 1)
    rank_theirs, rank_given = (np.lexsort(ids.T[::-1]) for ids in (theirs, given))
    if not np.array_equal(theirs[rank_theirs], given[rank_given]):
        raise NoPlacement(_first_offence(theirs, given, answer, number))
    rows = np.empty(len(theirs), np.int32)
    rows[rank_given] = rank_theirs
    atoms = np.empty_like(given)
    np.put_along_axis(atoms, place_given, place_theirs[rows], 1)
    return Placement(rows, _columns(atoms, layout))


def _columns(atoms: np.ndarray[Any, Any], layout: Sequence[Atom]) -> np.ndarray[Any, Any]:
    """Orders of atoms as orders of columns."""
    width = np.array([len(atom) for atom in layout])
    orders = np.empty((len(atoms), int(width.sum())), np.uint16)
    ends = np.cumsum(width[atoms], axis=1)
    row = np.broadcast_to(np.arange(len(atoms))[:, None], atoms.shape)
    for k in range(int(width.max())):
        column = np.array([atom[k] if k < len(atom) else 0 for atom in layout])
        held = width[atoms] > k
        orders[row[held], (ends - width[atoms] + k)[held]] = column[atoms[held]]
    return orders


def _first_offence(
    theirs: np.ndarray[Any, Any], given: np.ndarray[Any, Any], answer: Columns, number: dict[str, int]
) -> str:
    left = Counter(map(bytes, theirs))
    known = set(left)
    for i, row in enumerate(map(bytes, given)):
        if left[row] > 0:
            left[row] -= 1
        elif row in known:
            return f"row {i} of the answer: the table has fewer rows with these cells"
        else:
            strange = next((column[i] for column in answer if column[i] not in number), None)
            if strange is not None:
                return f"row {i} of the answer: no cell of the table is {strange[:80]!r}"
            return f"row {i} of the answer: no row of the table has these cells, {[c[i] for c in answer][:4]!r}..."
    raise AssertionError("two different multisets of equal size")
