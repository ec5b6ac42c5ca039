"""docs/jail.md keeps up with the code: its table with the corpus, its lists with the filter and the limits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from adrs_ray.candidate import FailureKind
from adrs_ray.evaluator import seccomp
from adrs_ray.task import Limits
from tests.security.corpus import CORPUS, Hostile
from tests.security.variants import VARIANTS

BEGIN, END = "<!-- hostile table: begin -->", "<!-- hostile table: end -->"
REMEDY = f"run `python -m tests.benchmarks.hostile_table` and put its output between the markers {BEGIN} {END}"


@pytest.fixture(scope="module")
def document() -> str:
    return (Path(__file__).parents[2] / "docs" / "jail.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def table(document: str) -> list[list[str]]:
    """The cells of the hostile table, heading first, without the line of dashes."""
    assert document.count(BEGIN) == document.count(END) == 1
    body = document.partition(BEGIN)[2].partition(END)[0].strip()
    rows = [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in body.splitlines()]
    return [rows[0], *rows[2:]]


def expectation(hostile: Hostile) -> str:
    return "honest score" if hostile.expected is None else str(hostile.expected)


def test_the_table_names_every_program_and_what_is_expected_of_it(table: list[list[str]]) -> None:
    assert [row[:2] for row in table[1:]] == [[h.name, expectation(h)] for h in CORPUS], REMEDY


def test_the_table_has_a_column_for_every_variant(table: list[list[str]]) -> None:
    variants = table[0][2:]
    assert [title.partition(" (")[0] for title in variants] == list(VARIANTS), REMEDY
    assert all(len(row) == len(table[0]) for row in table)
    untried = [" (" in title for title in variants]
    for row in table[1:]:
        assert [cell == "not tried" for cell in row[2:]] == untried, row
    assert not all(untried)


def test_every_outcome_in_the_table_is_the_expected_one(table: list[list[str]]) -> None:
    for hostile, row in zip(CORPUS, table[1:], strict=True):
        for variant, cell in zip(VARIANTS, row[2:], strict=True):
            if cell == "not tried":
                continue
            if cell == "watchdog only":
                assert hostile.needs_listener, (row, REMEDY)
                assert variant == "no listener", (row, REMEDY)
            elif hostile.expected is None:
                assert cell == "no effect" or cell.startswith("denied: "), (row, REMEDY)
            else:
                assert cell == hostile.expected, (row, REMEDY)


def test_every_call_that_kills_and_every_limit_is_named(document: str) -> None:
    words = set(re.findall(r"`([a-z0-9_]+)`", document))
    assert words >= seccomp.KILLED
    assert words >= set(Limits.model_fields)


def test_every_kind_of_failure_is_explained(document: str) -> None:
    words = set(
        re.findall(r"`([a-z0-9_]+)`", document.partition("## How ends map to failures")[2].partition("\n## ")[0])
    )
    assert words >= {str(kind) for kind in FailureKind}
