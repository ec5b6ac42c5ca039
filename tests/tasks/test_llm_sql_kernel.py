"""Hits, bounded cache and bound of llm_sql against literal versions, and placements against what they rebuild."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import load_task

from . import literal_llm_sql as literal

FOLDER = load_task("llm_sql").folder
PREFIXES = import_private(FOLDER, "prefixes")
PLACEMENT = import_private(FOLDER, "placement")
BOUND = import_private(FOLDER, "bound")

CELL = st.text(alphabet="ab1", max_size=3)
TEXTS = st.lists(st.text(alphabet="aé東🚲\ud800", max_size=12), min_size=1, max_size=12)
SLOW = settings(derandomize=True, deadline=None, max_examples=30)


def tables(cell: st.SearchStrategy[str], rows: int, columns: int) -> st.SearchStrategy[list[list[str]]]:
    """Lists of rows of equal length."""
    return st.integers(1, columns).flatmap(
        lambda width: st.lists(st.lists(cell, min_size=width, max_size=width), min_size=1, max_size=rows)
    )


def columns_of(rows: list[list[str]]) -> list[list[str]]:
    return [list(column) for column in zip(*rows, strict=True)]


@SLOW
@given(TEXTS, st.randoms(use_true_random=False))
def test_hits_are_those_of_a_trie_whatever_the_order(texts: list[str], rng: random.Random) -> None:
    assert PREFIXES.prefix_hits(texts) == literal.prefix_hits(texts)
    rng.shuffle(texts)
    assert PREFIXES.prefix_hits(texts) == literal.prefix_hits(texts)


@SLOW
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 90), st.sampled_from("xy")), min_size=1, max_size=14),
    st.integers(1, 12),
)
def test_the_bounded_cache_is_a_list_of_blocks(parts: list[tuple[str, int, str]], capacity: int) -> None:
    texts = [head * count + tail * 20 for head, count, tail in parts]
    expected = literal.cache_hits(texts, capacity, PREFIXES.BLOCK_CHARS)
    assert PREFIXES.cache_hits(texts, capacity) == expected


def test_in_a_bounded_cache_the_order_of_rows_counts() -> None:
    texts = ["a" * 64, "b" * 64, "a" * 64, "b" * 64]
    assert PREFIXES.cache_hits(texts, 4) == 0
    assert PREFIXES.cache_hits(sorted(texts), 4) == 128
    assert PREFIXES.cache_hits(texts, 8) == 128


@SLOW
@given(tables(CELL, rows=3, columns=3))
def test_no_orders_have_more_hits_than_the_bound(rows: list[list[str]]) -> None:
    assert literal.most_hits(rows) <= BOUND.hits_bound(columns_of(rows))


@SLOW
@given(tables(st.sampled_from(["a", "aa", "ab", "ba", "b", "aba", "bab", ""]), rows=2, columns=4))
def test_no_orders_of_cells_that_hide_in_each_other_have_more_hits_than_the_bound(rows: list[list[str]]) -> None:
    assert literal.most_hits(rows) <= BOUND.hits_bound(columns_of(rows))


def test_the_bound_is_reached_where_cells_are_all_or_nothing() -> None:
    rows = [["shared", "only one"], ["shared", "of many"], ["other", "shared"]]
    assert BOUND.hits_bound(columns_of(rows)) == literal.most_hits(rows) == 12 + 2  # "o"


def test_the_bound_counts_cells_that_are_out_of_step() -> None:
    rows = [["ab", "cd"], ["a", "bc"]]
    assert literal.most_hits(rows) == 3
    assert BOUND.hits_bound(columns_of(rows)) >= 3


@SLOW
@given(tables(CELL, rows=6, columns=5), st.randoms(use_true_random=False), st.booleans())
def test_a_rearranged_table_is_placed_and_rebuilt(rows: list[list[str]], rng: random.Random, merge: bool) -> None:
    columns, width = columns_of(rows), len(rows[0])
    group = tuple(range(width))[:3]
    groups = [group] if merge and len(group) > 1 else []
    inside = rng.sample(group, len(group)) if groups else []
    answer = []
    for row in rng.sample(rows, len(rows)):
        cells = [text for c, text in enumerate(row) if not groups or c not in group]
        cells += ["".join(row[c] for c in inside)] if groups else []
        answer.append(rng.sample(cells, len(cells)))
    placed = PLACEMENT.place(columns, groups, columns_of(answer), len(rows))
    assert sorted(placed.rows.tolist()) == list(range(len(rows)))
    assert all(sorted(order) == list(range(width)) for order in placed.orders.tolist())
    rebuilt = PREFIXES.row_texts(np.array(rows, dtype=object), placed.rows, placed.orders)
    assert rebuilt == ["".join(row) for row in answer]


@SLOW
@given(tables(CELL, rows=5, columns=4), st.randoms(use_true_random=False), CELL)
def test_a_changed_cell_is_placed_only_if_the_rows_stay_the_same(
    rows: list[list[str]], rng: random.Random, text: str
) -> None:
    answer = [list(row) for row in rows]
    answer[rng.randrange(len(rows))][rng.randrange(len(rows[0]))] = text
    if sorted(map(sorted, answer)) == sorted(map(sorted, rows)):
        PLACEMENT.place(columns_of(rows), [], columns_of(answer), len(rows))
    else:
        with pytest.raises(PLACEMENT.NoPlacement, match=r"^row \d+ of the answer: "):
            PLACEMENT.place(columns_of(rows), [], columns_of(answer), len(rows))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ([["a", "b"]], "the answer has 1 rows, the table 2"),
        ([["a"], ["c"]], "the answer has 1 columns, expected 2"),
        ([["a", "b"], ["x", "d"]], "row 1 of the answer: no cell of the table is 'x'"),
        ([["a", "b"], ["c", "b"]], r"row 1 of the answer: no row of the table has these cells, \['c', 'b'\]"),
        ([["a", "b"], ["b", "a"]], "row 1 of the answer: the table has fewer rows with these cells"),
        ([["ab", ""], ["c", "d"]], "row 0 of the answer: no cell of the table is 'ab'"),
    ],
)
def test_what_has_no_placement_says_where(answer: list[list[str]], message: str) -> None:
    with pytest.raises(PLACEMENT.NoPlacement, match=message):
        PLACEMENT.place([["a", "c"], ["b", "d"]], [], columns_of(answer), len(answer))
