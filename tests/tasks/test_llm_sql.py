"""The task llm_sql in this process: recorded hit counts, what the judge refuses, splits, both scorings, conversion."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import random
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    Split,
    Task,
    UsageError,
    data_file,
    load_task,
)

from . import literal_llm_sql as literal

TASK = load_task("llm_sql")
PAPER = load_task("llm_sql", scoring="paper")
ADAPTER = import_private(TASK.folder, "adapter")
RECORDED = import_private(TASK.folder, "recorded")
PREFIXES = import_private(TASK.folder, "prefixes")
TABLE = import_private(TASK.folder, "table")
CONVERT = import_private(TASK.folder, "convert").convert

NEEDS_DATA = "needs the recorded tables: set ADRS_DATA_DIR or run `adrs data pull llm_sql`"

HITS = {
    "beer": (1_232_479, 156_556, 892_114, 701_130),
    "movies": (471_955, 105_239, 3_655, 358_650),
    "PDMX": (69_304, 875, 10_213, 15_405),
    "products": (107_116, 346, 156, 34_555),
}
"""Of the public evaluator, in order: characters; hits in file order, with columns reversed, by distinct values."""

GENERATED = {
    "train-orders": "488c142b",
    "train-catalogue": "915a9419",
    "validation-orders": "d98223d5",
    "validation-catalogue": "54084bfc",
}
"""Digests of the tables that every machine generates."""

SHUFFLES = """
import random

def solve(df, col_merge):
    rows = [list(row) for row in df.astype(object).where(df.notna(), "").to_numpy()]
    random.shuffle(rows)
    for row in rows:
        random.shuffle(row)
    return rows
"""


def returning(expression: str) -> str:
    """A program that returns an expression of df."""
    return f"import pandas as pd\n\ndef solve(df, col_merge):\n    n = len(df)\n    return {expression}\n"


def run(source: str, case: Case) -> Any:
    program = ModuleType("candidate")
    exec(compile(source, "<candidate>", "exec"), program.__dict__)
    return ADAPTER.run(program, case.public)


def judged(task: Task, source: str, cases: list[Case]) -> Combined:
    return task.judge.combine([CaseResult(c.id, task.judge.score(c, run(source, c)), 0.25, 0.5) for c in cases])


@pytest.fixture(scope="module")
def cases() -> dict[Split, list[Case]]:
    return {split: list(TASK.judge.cases(split)) for split in SPLITS}


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def skip_without_data(task: Task = TASK) -> None:
    if any(data_file(file) is None for file in task.spec.data):
        pytest.skip(NEEDS_DATA)


@pytest.mark.parametrize("recorded", [RECORDED.BEER, RECORDED.MOVIES, RECORDED.PDMX, RECORDED.PRODUCTS])
def test_hits_are_those_of_the_public_evaluator(recorded: Any) -> None:
    read = RECORDED.read(recorded)
    if read is None:
        pytest.skip(NEEDS_DATA)
    df = read[0]
    by_distinct_values = sorted(df.columns, key=lambda name: df[name].nunique())
    chars, *expected = HITS[recorded.public]
    found = []
    for columns in (list(df.columns), list(df.columns[::-1]), by_distinct_values):
        texts = TABLE.join_columns(TABLE.cell_texts(df[columns]))
        assert sum(map(len, texts)) == chars
        found.append(PREFIXES.prefix_hits(texts))
    assert found == expected


def test_seeds_and_baselines_stand_in_order(cases: dict[Split, list[Case]]) -> None:
    names = ["original_order", "weak", "medium", "strong", "trie_descent"]
    assert (TASK.spec.trivial, TASK.spec.best_human) == (names[0], names[-1])
    for split in ("train", "validation"):
        found = {
            n: judged(TASK, TASK.programs()[n].read_text(), cases[split]) for n in [*names, "ggr", "paper_continuity"]
        }
        scores = {name: combined.score for name, combined in found.items()}
        assert scores["original_order"] == 0.0
        assert all(scores[a] < scores[b] for a, b in pairwise(names)), scores
        assert scores["strong"] < 0.97 * scores["trie_descent"]
        assert max(scores.values()) == scores["trie_descent"] < found["weak"].metrics["score_bound"]


def test_the_seed_is_the_medium_one() -> None:
    assert TASK.seed_source == TASK.seeds()["medium"].read_text()
    assert all(TASK.seeds()[level].read_text().count("EVOLVE-BLOCK-") == 2 for level in ("weak", "medium", "strong"))


def test_metrics_are_those_of_task_yaml(cases: dict[Split, list[Case]]) -> None:
    combined = judged(TASK, returning("df"), cases["train"])
    assert set(combined.metrics) | {"cpu_growth"} == set(TASK.spec.metrics)
    assert combined.score == combined.metrics["saved"] == 0.0
    assert combined.metrics["hit_rate"] == combined.metrics["base_hit_rate"]
    assert (combined.metrics["reorder_s"], combined.metrics["reorder_wall_s"]) == (0.25, 0.5)
    assert combined.metrics["leaderboard_formula"] == pytest.approx(5 * 9.5 / 10)
    assert all(case.id in combined.artifacts["cases"] for case in cases["train"])


@pytest.mark.parametrize("split", SPLITS)
def test_no_simple_baseline_beats_the_bound_on_any_table(split: Split, cases: dict[Split, list[Case]]) -> None:
    for name in ("by_cardinality", "reversed_columns", *(["ggr"] if split != "stress" else [])):
        for case in cases[split]:
            metrics = TASK.judge.score(case, run(TASK.baselines()[name].read_text(), case))
            assert 0.0 <= metrics["hit_rate"] <= metrics["bound_hit_rate"] < 1.0, (name, case.id)
            assert metrics["bounded_cache_hit_rate"] <= metrics["hit_rate"]


def test_hits_of_an_answer_are_those_of_a_trie_of_its_own_texts(cases: dict[Split, list[Case]]) -> None:
    for case in [*cases["train"], *(case for case in cases["stress"] if case.hidden.chars < 30_000)]:
        random.seed(case.seed)
        rows = texts_of(run(SHUFFLES, as_paper(case)))
        random.seed(case.seed)
        metrics = TASK.judge.score(case, run(SHUFFLES, case))
        assert round(metrics["hit_rate"] * case.hidden.chars) == literal.prefix_hits(rows)
        block, capacity = PREFIXES.BLOCK_CHARS, PREFIXES.CACHE_BLOCKS
        assert round(metrics["bounded_cache_hit_rate"] * case.hidden.chars) == literal.cache_hits(rows, capacity, block)


def as_paper(case: Case) -> Case:
    return Case(case.id, case.seed, {**case.public, "answer": "texts"})


def texts_of(raw: Any) -> list[str]:
    whole = raw["text"].astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    return [whole[a:b] for a, b in pairwise([0, *np.cumsum(raw["lengths"]).tolist()])]


@pytest.mark.parametrize(
    "expression",
    [
        "df.sample(frac=1.0)[sorted(df.columns)]",
        "(df, [list(df.columns)] * n)",
        "df.astype(object).where(df.notna(), '')",
        "[list(row)[::-1] for row in df.astype(object).to_numpy()]",
        "df.set_axis(['same name'] * df.shape[1], axis=1).set_axis(['same index'] * n)",
        "pd.concat([df.drop(columns=col_merge[0]), "
        "df[col_merge[0][::-1]].astype(str).agg(''.join, axis=1).rename('merged')], axis=1)",
    ],
)
def test_answers_that_are_accepted(expression: str, cases: dict[Split, list[Case]]) -> None:
    for case in cases["train"]:
        assert TASK.judge.score(case, run(returning(expression), case))["hit_rate"] > 0.0


BROKEN = {
    "constant column": ("pd.DataFrame({'a': ['x' * 80] * n})", "the answer has 1 columns, expected 9, or 8 with"),
    "constant cells": ("pd.DataFrame([['x' * 9] * 9] * n)", "row 0 of the answer: no cell of the table is 'xxxxxxxxx'"),
    "dropped cells": ("df.assign(**{df.columns[0]: ''})", "row 0 of the answer: no cell of the table is ''"),
    "dropped column": ("df.iloc[:, 2:]", "the answer has 7 columns, expected 9"),
    "numbers as floats": (
        "df.assign(**{df.columns[1]: df.iloc[:, 1].astype(float)})",
        r"no cell of the table is '\d+\.0'",
    ),
    "lower case": ("df.apply(lambda c: c.str.lower() if c.dtype == object else c)", "row 0 of the answer: no cell"),
    "one row many times": ("pd.concat([df.iloc[:1]] * n)", "row 1 of the answer: the table has fewer rows with these"),
    "fewer rows": ("df.iloc[1:]", r"the answer has 319 rows, the table 320"),
    "no rows": ("df.iloc[:0]", "the answer has 0 rows, the table 320"),
    "cells of other rows": (
        "df.assign(**{df.columns[0]: sorted(df.iloc[:, 0])})",
        "row 0 of the answer: no row of the table has these cells",
    ),
    "characters moved": (
        "df.assign(**{df.columns[6]: df.iloc[:, 6] + df.iloc[:, 7].str[:1], df.columns[7]: df.iloc[:, 7].str[1:]})",
        "row 0 of the answer: no cell of the table is",
    ),
    "everything in one cell": (
        "[[''.join(map(str, row)), *[''] * 8] for row in df.to_numpy()]",
        "row 0 of the answer: no cell of the table is",
    ),
    "a merged cell twice": (
        "df.assign(**{df.columns[6]: df.iloc[:, 8].astype(str) + df.iloc[:, 6]})",
        "row 0 of the answer: no cell of the table is",
    ),
}
"""Answers to a beer table (9 columns) that break a rule, and what the judge says."""


@pytest.mark.parametrize("name", BROKEN)
def test_answers_that_are_no_rearrangement_are_invalid(name: str, cases: dict[Split, list[Case]]) -> None:
    expression, message = BROKEN[name]
    case = cases["train"][0]
    with pytest.raises(InvalidOutput, match=message):
        TASK.judge.score(case, run(returning(expression), case))


def test_missing_cells_are_empty_texts_and_nothing_else(cases: dict[Split, list[Case]]) -> None:
    case = cases["train"][2]
    for filled in ("df.fillna('nan')", "df.astype(str)", "df.fillna({'discount': 0.0})"):
        with pytest.raises(InvalidOutput, match=r"no cell of the table is|no row of the table has"):
            TASK.judge.score(case, run(returning(filled), case))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("None", "the answer is a NoneType, expected a DataFrame or a list of rows"),
        ("3", "the answer is a int"),
        ("df.to_numpy()", "the answer is a ndarray"),
        ("['row'] * n", "row 0 of the answer is a str, expected a list of cells"),
        ("[[1, 2], [1]]", "row 1 of the answer has 1 cells, row 0 has 2"),
    ],
)
def test_answers_of_another_shape_are_malformed(expression: str, message: str, cases: dict[Split, list[Case]]) -> None:
    case = cases["train"][0]
    with pytest.raises(MalformedOutput, match=message):
        TASK.judge.score(case, run(returning(expression), case))


def test_placements_that_no_adapter_makes_are_refused(cases: dict[Split, list[Case]]) -> None:
    case = cases["train"][0]
    honest = run(returning("df"), case)
    rows, orders = honest["rows"], honest["orders"]
    shapeless: list[Any] = [None, [], {}, {"rows": rows}, {**honest, "rows": rows * 1.0}]
    for raw in (*shapeless, {**honest, "orders": orders[:, :-1]}):
        with pytest.raises(MalformedOutput, match="expected a placement"):
            TASK.judge.score(case, raw)
    for raw in ({**honest, "rows": rows * 0}, {**honest, "orders": orders * 0}, {**honest, "rows": rows - 1}):
        with pytest.raises(InvalidOutput, match="missing or there twice"):
            TASK.judge.score(case, raw)


def test_a_program_without_entry_says_so(cases: dict[Split, list[Case]]) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match=r"neither solve\(df, col_merge\) nor a class Evolved"):
        run("solve = 3", cases["train"][0])


def test_columns_travel_as_read_csv_types_them() -> None:
    text = "i,m,f,b,t,e\n1,1,0.5,True,x,\n2,,2,False,,\n"
    df = pd.read_csv(io.StringIO(text))
    there = TABLE.from_public(TABLE.to_public(df))
    pd.testing.assert_frame_equal(there, df)
    assert TABLE.cell_texts(there) == [["1", "2"], ["1.0", ""], ["0.5", "2.0"], ["True", "False"], ["x", ""], ["", ""]]
    with pytest.raises(TypeError, match="column 'd' has type datetime64"):
        TABLE.to_public(pd.DataFrame({"d": pd.to_datetime(["2020-01-01"])}))


def test_splits_are_the_same_every_time_and_share_no_row_of_texts(cases: dict[Split, list[Case]]) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        again = TASK.judge.cases(split) if split in ("train", "validation") else cases[split]
        for case, same in zip(cases[split], again, strict=True):
            assert (case.id, case.seed) == (same.id, same.seed)
            assert (case.hidden.cells == same.hidden.cells).all()
            for row in map(str, case.hidden.cells.tolist()):
                assert seen.setdefault(row, split) == split, f"a row of {split} is in {seen[row]} too"
    every = [case for split in SPLITS for case in cases[split]]
    assert len({case.id for case in every}) == len({case.seed for case in every}) == len(every)


def test_generated_tables_have_not_changed(cases: dict[Split, list[Case]]) -> None:
    """Scores of different machines and releases are comparable only on equal tables."""
    found = {
        case.id: hashlib.sha256(json.dumps(case.hidden.cells.tolist()).encode()).hexdigest()[:8]
        for split in ("train", "validation")
        for case in cases[split]
        if case.id in GENERATED
    }
    assert found == GENERATED


def test_without_recorded_tables_others_take_their_place_and_the_order_holds(without_data: None) -> None:
    assert "llm_sql/beer_15000.csv.gz is not here" in (TASK.split_note("train") or "")
    assert "movies_small.csv.gz, llm_sql/pdmx_100.csv.gz" in (TASK.split_note("test") or "")
    assert TASK.split_note("stress") is None
    assert [case.id for case in TASK.judge.cases("test")] == ["test-movies", "test-pdmx", "test-products"]
    for split in ("train", "validation"):
        cases = list(TASK.judge.cases(split))
        names = ("original_order", "weak", "medium", "strong", "ggr")
        scores = [judged(TASK, TASK.programs()[name].read_text(), cases).score for name in names]
        assert all(a < b for a, b in pairwise(scores)), scores
    with pytest.raises(UsageError, match="needs the recorded tables: set ADRS_DATA_DIR"):
        PAPER.judge.cases("test")


def test_public_scoring_counts_whatever_comes_back() -> None:
    skip_without_data()
    cases = list(PAPER.judge.cases("test"))
    kept = {case.id: PAPER.judge.score(case, run(returning("df"), case)) for case in cases}
    assert {id: (m["chars"], m["hits"]) for id, m in kept.items()} == {f"paper-{k}": v[:2] for k, v in HITS.items()}
    constant = judged(PAPER, returning("pd.DataFrame({'a': ['x' * 80] * n})"), cases)
    assert constant.metrics["hit_rate"] > 0.99
    assert constant.score == pytest.approx(0.95 * constant.metrics["hit_rate"] + 0.05 * 11.5 / 12)
    assert "4 of 5 public tables" in (PAPER.split_note("test") or "")
    (case,) = (case for case in cases if case.id == "paper-beer")
    hits = PAPER.judge.score(case, run(returning("pd.DataFrame({'a': ['x' * 80] * n})"), case))
    assert hits["hit_rate"] == pytest.approx(1 - 1 / 15_000)
    with pytest.raises(MalformedOutput, match="no characters"):
        PAPER.judge.score(case, run(returning("df.iloc[:0]"), case))
    with pytest.raises(UsageError, match="scoring paper has the split test only, not train"):
        PAPER.judge.cases("train")


def test_lengths_whose_sum_overflows_do_not_multiply_the_text() -> None:
    """Each pair of such rows was the whole text once more: 16 MB of answer made terabytes of rows."""
    case = Case("x", 1, {}, 0.5)
    text = np.full(1_000, ord("a"), np.uint32)
    for lengths in (np.array([2**63 - 1, 2**63 - 1, 2, 1_000]), np.array([2**64 - 1, 1, 1_000], np.uint64)):
        assert int(lengths.sum()) == 1_000
        with pytest.raises(MalformedOutput, match="lengths disagree"):
            PAPER.judge.score(case, {"text": text, "lengths": lengths})


def test_a_recorded_table_is_made_of_its_source() -> None:
    skip_without_data()
    for file in TASK.spec.data:
        path = data_file(file)
        assert path is not None
        packed, text = path.read_bytes(), gzip.decompress(path.read_bytes()).decode()
        if "100" in file.file:
            header, *rows = csv.reader(io.StringIO(text, newline=""))
            cells = [[f"{name}: {cell}" for name, cell in zip(header, row, strict=True)] for row in rows]
            text = written([["label", *header[::-1]], *(["yes", *row[::-1]] for row in cells)])
        elif "beer" in file.file:
            text += text.splitlines(keepends=True)[1]
        made = CONVERT(file.file, text.encode())
        assert gzip.decompress(made) == gzip.decompress(packed)
        assert made[:10] == packed[:10]


def written(rows: list[list[str]]) -> str:
    stream = io.StringIO(newline="")
    csv.writer(stream).writerows(rows)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("file", "raw", "message"),
    [
        ("llm_sql/beer_15000.csv.gz", b"a,b\n1,2\n", "beer.csv has 1 rows, expected 15000 or more"),
        ("llm_sql/products_100.csv.gz", b"text,rating\n1,2\n", "has no column description, parent_asin"),
        ("llm_sql/movies_small.csv.gz", b"\xff\xff", "is no CSV"),
        ("other.csv", b"a\n", "no file of this task"),
    ],
)
def test_a_wrong_source_is_refused(file: str, raw: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CONVERT(file, raw)
