"""The public evaluator's numbers, faults included: `load_task("llm_sql", scoring="paper")`.

Publicly the hits of whatever table comes back are counted against its own characters, and nothing compares it with the
table that was given: a constant column scores 0.99996. The score is 0.95 x mean hit rate over the files + 0.05 x
(12 - min(12, mean seconds)) / 12. Three things are not reproduced: the public evaluator feeds rows through a thread
pool, so that its count wavers (by up to 6 % of a file's) below the count in order, which is what this one gives; it
divides by five when files are missing, this one by the number that is there; and its seconds are those of `reorder`
alone, these are the wall time of the case, start of the process and reading of the answer included.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, MalformedOutput, Split, UsageError, quality

from .judge import leaderboard_formula
from .prefixes import prefix_hits
from .recorded import BEER, MOVIES, PDMX, PRODUCTS, read
from .table import cell_texts, join_columns, to_public

_FILES = (MOVIES, BEER, PDMX, PRODUCTS)
"""In the public order; BIRD, the fifth table, is not to be had."""


def cases(split: Split) -> list[Case]:
    """The recorded tables that are here, whole. Raises UsageError for another split than test, and for none here."""
    if split != "test":
        raise UsageError(f"llm_sql: scoring paper has the split test only, not {split}")
    made = []
    for i, recorded in enumerate(_FILES):
        table = read(recorded)
        if table is None:
            continue
        df, groups = table
        public = {"columns": to_public(df), "col_merge": [list(group) for group in groups], "answer": "texts"}
        texts = join_columns(cell_texts(df))
        base = prefix_hits(texts) / sum(map(len, texts))
        made.append(Case(id=f"paper-{recorded.public}", seed=3_100 + i, public=public, hidden=base))
    if not made:
        raise UsageError(
            "llm_sql: scoring paper needs the recorded tables: set ADRS_DATA_DIR or run `adrs data pull llm_sql`"
        )
    return made


def split_note(split: Split) -> str | None:
    """Says on how many of the five public tables the figures are."""
    here = [recorded.public for recorded in _FILES if read(recorded) is not None]
    return f"{len(here)} of 5 public tables, none complete ({', '.join(here)}): the mean is over these"


def score(case: Case, raw: Any) -> dict[str, float]:
    """Hits and characters of the texts that came back, whatever they are. Raises MalformedOutput for no texts."""
    if isinstance(raw, Mapping) and isinstance(raw.get("malformed"), str):
        raise MalformedOutput(raw["malformed"][:300])
    texts = _texts(raw)
    chars = sum(map(len, texts))
    if chars == 0:
        raise MalformedOutput("the answer has no characters: its hit rate has no value")
    hits = prefix_hits(texts)
    return {
        "hits": float(hits),
        "chars": float(chars),
        "hit_rate": hits / chars,
        "base_hit_rate": float(case.hidden),
        "rows": float(len(texts)),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """The public score over the tables that are here. No bound: a table may be anything."""
    hit = fmean(result.metrics["hit_rate"] for result in results)
    base = fmean(result.metrics["base_hit_rate"] for result in results)
    wall_s = fmean(result.wall_s for result in results)
    metrics = {
        "hit_rate": hit,
        "base_hit_rate": base,
        "reorder_s": fmean(result.cpu_s for result in results),
        "reorder_wall_s": wall_s,
        "leaderboard_formula": leaderboard_formula(hit, base, wall_s),
        "leaderboard_coverage": 0.0,
        **quality(results, value="hit_rate"),
    }
    lines = [f"{'table':<16} {'rows':>6} {'characters':>11} {'hits':>9} {'hit rate':>9} {'wall s':>8}"]
    for result in results:
        m = result.metrics
        lines.append(
            f"{result.case:<16} {m['rows']:>6.0f} {m['chars']:>11.0f} {m['hits']:>9.0f} {m['hit_rate']:>9.6f}"
            f" {result.wall_s:>8.2f}"
        )
    public_score = 0.95 * hit + 0.05 * (12.0 - min(12.0, wall_s)) / 12.0
    return Combined(score=public_score, metrics=metrics, artifacts={"cases": "\n".join(lines)})


def _texts(raw: Any) -> list[str]:
    text, lengths = (raw.get("text"), raw.get("lengths")) if isinstance(raw, Mapping) else (None, None)
    for array in (text, lengths):
        if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in "iu":
            raise MalformedOutput("expected the texts of the rows")
    assert isinstance(text, np.ndarray)
    assert isinstance(lengths, np.ndarray)
    if (
        ((lengths < 0) | (lengths > len(text))).any()
        or lengths.sum() != len(text)
        or (text > 0x10FFFF).any()
        or (text < 0).any()
    ):
        raise MalformedOutput("the texts of the rows and their lengths disagree")
    whole = text.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")
    ends = np.cumsum(lengths).tolist()
    return [whole[end - length : end] for end, length in zip(ends, lengths.tolist(), strict=True)]
