"""Slow and literal versions of the judge's kernels for llm_sql: a trie of characters, a cache as a list, all orders."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any


def prefix_hits(texts: Sequence[str]) -> int:
    """Characters of each row that are in a trie of the rows before it."""
    root: dict[str, Any] = {}
    hits = 0
    for text in texts:
        node, fresh = root, False
        for char in text:
            fresh = fresh or char not in node
            hits += not fresh
            node = node.setdefault(char, {})
    return hits


def cache_hits(texts: Sequence[str], capacity: int, block_chars: int) -> int:
    """Characters found in a cache of prefixes that end with a block, the least recently used first in a list."""
    cache: list[str] = []
    hits = 0
    for text in texts:
        prefixes = [text[:end] for end in range(block_chars, len(text) + 1, block_chars)]
        for prefix in prefixes:
            if prefix not in cache:
                break
            hits += block_chars
        for prefix in reversed(prefixes):
            if prefix in cache:
                cache.remove(prefix)
            cache.append(prefix)
            del cache[: max(0, len(cache) - capacity)]
    return hits


def most_hits(rows: Sequence[Sequence[str]]) -> int:
    """The most hits that any orders of the cells of each row give."""

    def best(arranged: list[str]) -> int:
        if len(arranged) == len(rows):
            return prefix_hits(arranged)
        return max(best([*arranged, text]) for text in {"".join(order) for order in permutations(rows[len(arranged)])})

    return best([])
