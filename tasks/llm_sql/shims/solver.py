"""Stand-in for the public module of this name: the base class that public programs derive `Evolved` from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


class Algorithm:
    """Has what public programs call on themselves; `reorder` is theirs."""

    def __init__(self, df: pd.DataFrame | None = None) -> None:
        self.df = df

    def reorder(self, df: pd.DataFrame, **options: Any) -> Any:
        """The table with its rows and, per row, its columns in another order. To be defined by the program."""
        raise NotImplementedError("define reorder(df, early_stop, row_stop, col_stop, col_merge, ...)")

    @staticmethod
    def calculate_length(value: Any) -> int:
        """Characters of a cell's text, squared: what a repeated cell is worth to greedy group recursion."""
        return 0 if pd.isna(value) else len(str(value)) ** 2

    @staticmethod
    def drop_col(df: pd.DataFrame, col: str) -> pd.DataFrame:
        """The table without a column."""
        return df.drop(columns=[col])

    @staticmethod
    def merging_columns(
        df: pd.DataFrame, col_names: Sequence[str], delimiter: str = "_", prepended: bool = False
    ) -> pd.DataFrame:
        """The table with columns joined, cell by cell, into one that is named after them and stands last or first."""
        texts = df[list(col_names)].astype(object).where(df[list(col_names)].notna(), "").astype(str)
        rest = df.drop(columns=list(col_names))
        rest.insert(0 if prepended else rest.shape[1], delimiter.join(col_names), texts.agg("".join, axis=1))
        return rest

    @staticmethod
    def get_groups_values(df: pd.DataFrame) -> dict[Any, int]:
        """How often each value occurs in the table, in whatever column."""
        counts: dict[Any, int] = df.stack().value_counts().to_dict()
        return counts

    @staticmethod
    def calculate_col_stats(df: pd.DataFrame) -> list[tuple[str, int, float, float]]:
        """(name, distinct values, mean length, score) per column, the best score first.

        The score is mean length x (rows / distinct values): long values that repeat.
        """
        stats = []
        for name in df.columns:
            texts = df[name].astype(object).where(df[name].notna(), "").astype(str)
            distinct, mean = max(1, int(texts.nunique())), float(texts.str.len().mean())
            stats.append((str(name), distinct, mean, mean * len(df) / distinct))
        return sorted(stats, key=lambda stat: stat[3], reverse=True)
