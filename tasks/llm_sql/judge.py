"""The trusted side: tables, hits of the placements that candidates give, and the score of a split.

A case is a table. Its rows are sent to a language model one after the other; characters that continue a prefix of an
earlier row are hits and cost nothing, the others have to be computed. `saved` is the share of what the table costs as
it comes that an answer saves: (h - b) / (1 - b) with h the hit rate of the answer and b that of the original order.
The score of a split is the mean over its tables: each counts the same, whatever its size and how much can be saved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, InvalidOutput, MalformedOutput, Split, quality

from . import splits
from .bound import hits_bound
from .families import Table
from .prefixes import cache_hits, prefix_hits, row_texts
from .table import cell_texts, to_public

_FIRST_SEED: dict[Split, int] = {"train": 1_000, "validation": 2_000, "test": 3_000, "stress": 4_000}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a table: the texts of its cells, and what an answer is held against, in characters."""

    cells: np.ndarray[Any, Any]
    """Objects (str), rows x columns."""
    chars: int
    base_hits: int
    """Hits in the original order."""
    bound: int
    """No answer has more hits."""


def cases(split: Split) -> list[Case]:
    """The tables of a split. Raises UsageError when a recorded file is there with another content."""
    tables = splits.tables(split).items()
    return [_case(name, _FIRST_SEED[split] + i, table) for i, (name, table) in enumerate(tables)]


def split_note(split: Split) -> str | None:
    """Says which recorded tables are not on this machine, so that generated ones take their place."""
    files = splits.missing(split)
    if not files:
        return None
    are = "is" if len(files) == 1 else "are"
    return (
        f"generated in part: {', '.join(files)} {are} not here (`adrs data pull llm_sql` fetches the recorded tables)"
    )


def score(case: Case, raw: Any) -> dict[str, float]:
    """Hits of one answer, which is a placement: rows and, per row, columns of the judge's own table.

    Raises MalformedOutput for what is no table or placement, InvalidOutput for what is no rearrangement of the table.
    """
    reference: Reference = case.hidden
    if isinstance(raw, Mapping) and isinstance(raw.get("malformed"), str):
        raise MalformedOutput(raw["malformed"][:300])
    if isinstance(raw, Mapping) and isinstance(raw.get("refused"), str):
        raise InvalidOutput(raw["refused"][:300])
    rows, orders = _placement(raw, reference.cells.shape)
    texts = row_texts(reference.cells, rows, orders)
    hit, base = prefix_hits(texts) / reference.chars, reference.base_hits / reference.chars
    bound = reference.bound / reference.chars
    return {
        "saved": (hit - base) / (1.0 - base),
        "hit_rate": hit,
        "base_hit_rate": base,
        "bound_hit_rate": bound,
        "bound_saved": (bound - base) / (1.0 - base),
        "bounded_cache_hit_rate": cache_hits(texts) / reference.chars,
        "rows": float(reference.cells.shape[0]),
        "cells": float(reference.cells.size),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the tables. `reorder_s` and `reorder_wall_s` are what a table took the candidate's process."""
    mean = {name: fmean(result.metrics[name] for result in results) for name in results[0].metrics}
    wall_s = fmean(result.wall_s for result in results)
    metrics = {
        **{
            name: mean[name]
            for name in ("hit_rate", "base_hit_rate", "bound_hit_rate", "bounded_cache_hit_rate", "saved")
        },
        "reorder_s": fmean(result.cpu_s for result in results),
        "reorder_wall_s": wall_s,
        "score_bound": mean["bound_saved"],
        "leaderboard_formula": leaderboard_formula(mean["hit_rate"], mean["base_hit_rate"], wall_s),
        "leaderboard_coverage": 0.0,
        **quality(results, value="saved", direction="max", size="cells"),
    }
    lines = [
        f"{'table':<22} {'rows':>6} {'original':>9} {'hit rate':>9} {'bound':>7} {'bounded cache':>14} {'saved':>7}"
    ]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<22} {m['rows']:>6.0f} {m['base_hit_rate']:>9.4f} {m['hit_rate']:>9.4f}"
            f" {m['bound_hit_rate']:>7.4f} {m['bounded_cache_hit_rate']:>14.4f} {m['saved']:>7.4f}"
        )
    return Combined(score=metrics["saved"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def leaderboard_formula(hit: float, base: float, seconds: float) -> float:
    """The ADRS leaderboard's score, 0..100, of mean hit rates and the mean wall time of a table."""
    saved = min(1.0, max(0.0, (hit - base) / (1.0 - base)))
    return 95.0 * saved + 5.0 * (10.0 - min(10.0, seconds)) / 10.0


def _case(name: str, seed: int, table: Table) -> Case:
    df, groups = table
    columns = cell_texts(df)
    cells = np.empty((len(df), len(columns)), dtype=object)
    for j, column in enumerate(columns):
        cells[:, j] = column
    chars = sum(len(text) for column in columns for text in column)
    reference = Reference(cells, chars, prefix_hits(list(map("".join, cells.tolist()))), hits_bound(columns))
    public = {"columns": to_public(df), "col_merge": [list(group) for group in groups], "answer": "placement"}
    return Case(id=name, seed=seed, public=public, hidden=reference)


def _placement(raw: Any, shape: tuple[int, ...]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rows, orders = _integers(raw, "rows", shape[:1]), _integers(raw, "orders", shape)
    if not np.array_equal(np.sort(rows), np.arange(shape[0])):
        raise InvalidOutput("a row of the table is missing or there twice")
    wrong = np.flatnonzero((np.sort(orders, axis=1) != np.arange(shape[1])).any(axis=1))
    if len(wrong):
        raise InvalidOutput(f"row {wrong[0]} of the answer: a cell is missing or there twice")
    return rows, orders


def _integers(raw: Any, name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    array = raw.get(name) if isinstance(raw, Mapping) else None
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or array.shape != shape:
        raise MalformedOutput(f"expected a placement whose {name} are integers of shape {shape}")
    return array
