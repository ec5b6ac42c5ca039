"""Stand-in for the public module of this name: the trie, and putting tables together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd


class Trie:
    """Texts by their characters."""

    def __init__(self) -> None:
        self.root: dict[str, Any] = {}

    def insert(self, word: str) -> None:
        """Add a text."""
        node = self.root
        for char in word:
            node = node.setdefault(char, {})

    def longest_common_prefix(self, word: str) -> int:
        """Characters that a text shares with one of those added."""
        node = self.root
        for length, char in enumerate(word):
            if char not in node:
                return length
            node = node[char]
        return len(word)


def calculate_length(value: Any) -> int:
    """Characters of a cell's text, 0 where it is missing."""
    return 0 if pd.isna(value) else len(str(value))


def concat_df_horizontally(dfs: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Tables side by side, row by row, whatever their indices are."""
    return pd.concat([df.reset_index(drop=True) for df in dfs], axis=1)


def evaluate_df_prefix_hit_cnt(df: pd.DataFrame) -> tuple[int, float]:
    """Characters that rows share with earlier rows, and their share of all characters in percent."""
    trie, hits, chars = Trie(), 0, 0
    texts = df.astype(object).where(df.notna(), "").astype(str)
    for row in texts.agg("".join, axis=1):
        hits += trie.longest_common_prefix(row)
        chars += len(row)
        trie.insert(row)
    return hits, 100.0 * hits / max(1, chars)
