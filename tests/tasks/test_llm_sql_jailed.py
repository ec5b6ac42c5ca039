"""The task llm_sql through the evaluator: the figures of this process, hacks, programs as users bring them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator

from .test_llm_sql import BROKEN, PAPER, TASK, judged, returning, skip_without_data

RECURSIVE_STYLE = '''
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import List, Tuple

import networkx as nx
import pandas as pd
from solver import Algorithm
from utils import Trie, concat_df_horizontally


class Evolved(Algorithm):
    """Merges groups, puts columns in order of their statistics, and solves parts of the table side by side."""

    def __init__(self, df: pd.DataFrame = None):
        super().__init__(df)
        self.graph = nx.DiGraph()

    @lru_cache(maxsize=None)
    def length(self, value):
        return self.calculate_length(value)

    def best_value(self, df):
        counts = self.get_groups_values(df)
        return max(counts, key=lambda value: self.length(value) * (counts[value] - 1))

    def part(self, df: pd.DataFrame) -> pd.DataFrame:
        value = self.best_value(df)
        rows = []
        for _, row in df.iterrows():
            cells = list(row)
            rows.append(sorted(cells, key=lambda cell: cell != value))
        return pd.DataFrame(rows)

    def reorder(self, df: pd.DataFrame, early_stop: int = 0, row_stop: int = None, col_stop: int = None,
                col_merge: List[List[str]] = [], one_way_dep: List[Tuple[str, str]] = [],
                distinct_value_threshold: float = 0.8, parallel: bool = True) -> Tuple[pd.DataFrame, List[List[str]]]:
        assert (early_stop, row_stop, col_stop, distinct_value_threshold) == (100000, 4, 2, 0.7)
        before = df.copy()
        for group in col_merge:
            stats = {name: score for name, _, _, score in self.calculate_col_stats(df[group])}
            df = self.merging_columns(df, sorted(group, key=stats.get), prepended=False)
        df = df[[name for name, *_ in self.calculate_col_stats(df)]]
        with ThreadPoolExecutor(max_workers=2) as pool:
            parts = list(pool.map(self.part, [df.iloc[: len(df) // 2], df.iloc[len(df) // 2 :]]))
        answer = pd.concat(parts)
        assert len(answer) == len(before) == len(concat_df_horizontally([answer, before]))
        assert Trie().longest_common_prefix("a") == 0
        return answer, [list(answer.columns)]
'''
FIXED_STYLE = """
import pandas as pd
from solver import Algorithm

class Evolved(Algorithm):
    def reorder(self, df, **kwargs):
        names = [name for name, distinct, length, score in self.calculate_col_stats(df)]
        ordered = df[names].sort_values(by=names, key=lambda column: column.astype(str))
        print("reordered", ordered.shape)
        return ordered, names

if __name__ == "__main__":
    print(Evolved().reorder(pd.read_csv("datasets/beer.csv")))
"""
ROWS_STYLE = """
import collections
import numpy as np

def solve(df, col_merge):
    table = df.astype(object).where(df.notna(), "").to_numpy()
    counts = [collections.Counter(column) for column in table.T]
    worth = lambda row: np.array([-len(str(v)) ** 2 * (counts[c][v] - 1) for c, v in enumerate(row)])
    return sorted(([row[c] for c in np.argsort(worth(row), kind="stable")] for row in table), key=str)
"""
PUBLIC_STYLES = {"recursive": RECURSIVE_STYLE, "fixed": FIXED_STYLE, "rows": ROWS_STYLE}

FORGES_PLACEMENT = """
import sys
import numpy as np

def solve(df, col_merge):
    forged = type("Forged", (), {"rows": np.zeros(len(df), int), "orders": np.zeros(df.shape, int)})
    for module in list(sys.modules.values()):
        if hasattr(module, "place") and hasattr(module, "cell_texts"):
            module.place = lambda table, groups, answer, rows: forged
    return df
"""
FORGES_TEXTS = """
import sys

def solve(df, col_merge):
    for module in list(sys.modules.values()):
        if hasattr(module, "place") and hasattr(module, "cell_texts"):
            module.cell_texts = lambda frame: [["x" * 80] * len(frame)] * frame.shape[1]
    return df
"""
CHANGES_ITS_INPUT = """
def solve(df, col_merge):
    df[:] = df.iloc[0].to_numpy()
    return df
"""
HANDS_BACK_A_COPY_AFTER_CHANGING = """
def solve(df, col_merge):
    answer = df.copy()
    df.iloc[:, 0] = "x"
    col_merge.clear()
    return answer
"""
LOOKS_FOR_THE_JUDGE = f"""
import sys

def solve(df, col_merge):
    found = [name for name in sys.modules if "judge" in name or "splits" in name]
    for name in ("judge.py", "splits.py", "bound.py", "task.yaml", "baselines/ggr.py"):
        try:
            found.append(open({str(TASK.folder)!r} + "/" + name).read())
        except OSError:
            pass
    return df.iloc[:, ::-1] if found else df
"""
FAILING = {
    **{name: (returning(expression), FailureKind.INVALID) for name, (expression, _) in BROKEN.items()},
    "nan for missing cells": (returning("df.fillna('nan')"), FailureKind.INVALID),
    "no table": (returning("None"), FailureKind.OUTPUT),
    "no entry": ("def reorder(df):\n    return df\n", FailureKind.INTERFACE),
    "base class only": ("from solver import Algorithm as Evolved\n", FailureKind.CRASH),
    "forged placement": (FORGES_PLACEMENT, FailureKind.INVALID),
    "forged texts": (FORGES_TEXTS, FailureKind.INVALID),
    "changed input": (CHANGES_ITS_INPUT, FailureKind.INVALID),
    "a process of its own": (returning("__import__('subprocess').run(['true']) and df"), FailureKind.CRASH),
}
WITHOUT_EFFECT = {
    "changed after copying": HANDS_BACK_A_COPY_AFTER_CHANGING,
    "looks for the judge": LOOKS_FOR_THE_JUDGE,
}


def verdicts(sources: Sequence[str]) -> list[Verdict]:
    """Verdicts on train, from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return [await evaluator.evaluate(EvaluationJob(f"c{i}", source)) for i, source in enumerate(sources)]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


@pytest.fixture(scope="module")
def by_name() -> dict[str, Verdict]:
    sources = {
        "seed": TASK.seed_source,
        **PUBLIC_STYLES,
        **WITHOUT_EFFECT,
        **{name: source for name, (source, _) in FAILING.items()},
    }
    return dict(zip(sources, verdicts(list(sources.values())), strict=True))


@pytest.mark.parametrize("name", ["seed", *PUBLIC_STYLES])
def test_programs_run_unchanged_and_score_as_in_this_process(name: str, by_name: dict[str, Verdict]) -> None:
    verdict = by_name[name]
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.trust == "verified"
    assert 0.0 < verdict.score < verdict.metrics["score_bound"]
    if name in ("seed", "rows"):  # the others import stand-ins that are on the path in the jail only
        source = TASK.seed_source if name == "seed" else PUBLIC_STYLES[name]
        assert verdict.score == judged(TASK, source, list(TASK.judge.cases("train"))).score
    assert verdict.metrics["reorder_s"] == pytest.approx(sum(case.cpu_s for case in verdict.cases) / len(verdict.cases))


@pytest.mark.parametrize("name", FAILING)
def test_hacks_fail_with_the_right_kind(name: str, by_name: dict[str, Verdict]) -> None:
    verdict = by_name[name]
    assert isinstance(verdict, Failure), verdict
    assert verdict.kind is FAILING[name][1], verdict


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_tampering_has_no_effect_on_the_score(name: str, by_name: dict[str, Verdict]) -> None:
    verdict = by_name[name]
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_the_constant_column_wins_under_public_scoring() -> None:
    skip_without_data(PAPER)
    source = returning("pd.DataFrame({'a': ['x' * 80] * n})")
    try:
        verdict = evaluate_once(PAPER, source, "test", EvaluatorConfig())
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.metrics["hit_rate"] > 0.99
    assert verdict.score > 0.95
