"""What a table's rows save when they are sent to a language model one after the other.

`prefix_hits` is the public figure: every character that continues a prefix some earlier row began with is a hit.
`cache_hits` is what a server with a small cache sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from . import kernel

CHARS_PER_TOKEN = 4
"""A token is taken for four characters, the usual rule of thumb for English."""
TOKENS_PER_BLOCK = 4
"""Blocks as in vLLM's prefix cache, whose default is 16: a row of ten short cells would make one such block."""
CACHE_BLOCKS = 256
"""1,024 tokens: far less than a table, so that the order of rows counts."""

BLOCK_CHARS = CHARS_PER_TOKEN * TOKENS_PER_BLOCK


def packed(texts: Sequence[str]) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """The texts end to end as code points (uint32), and where each starts, with the end last (int64)."""
    chars = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), np.dtype("<u4")).astype(np.uint32)
    start = np.zeros(len(texts) + 1, np.int64)
    np.cumsum(np.array([len(text) for text in texts], np.int64), out=start[1:])
    return chars, start


def row_texts(cells: np.ndarray[Any, Any], rows: np.ndarray[Any, Any], orders: np.ndarray[Any, Any]) -> list[str]:
    """The rows of an answer, `cells[rows[i], orders[i]]` joined; `cells` is an object array of texts."""
    return list(map("".join, np.take_along_axis(cells[rows], orders.astype(np.intp), axis=1).tolist()))


def prefix_hits(texts: Sequence[str]) -> int:
    """Sum over the rows of the longest common prefix with any earlier row, in characters.

    A row adds to the trie of all rows what it does not find there, so the sum is all characters less the nodes of the
    trie, in whatever order the rows come. Sorted rows share the most with their neighbours.
    """
    return int(kernel.adjacent_prefixes(*packed(sorted(texts))).sum())


def cache_hits(texts: Sequence[str], capacity: int = CACHE_BLOCKS) -> int:
    """Characters found in a cache of `capacity` blocks of BLOCK_CHARS characters, rows in the given order.

    A block is cached together with all before it in its row; an unfinished block at the end of a row is not cached;
    the least recently used block goes first, in a row the last before the first.
    """
    order = sorted(range(len(texts)), key=texts.__getitem__)
    chars, start = packed([texts[i] for i in order])
    blocks = np.diff(start) // BLOCK_CHARS
    known = np.minimum(kernel.adjacent_prefixes(chars, start) // BLOCK_CHARS, blocks)
    block = np.zeros((len(texts), int(blocks.max(initial=0))), np.int64)
    distinct = 0
    for i in range(len(texts)):
        block[i, : known[i]] = block[i - 1, : known[i]]
        block[i, known[i] : blocks[i]] = range(distinct, distinct + blocks[i] - known[i])
        distinct += int(blocks[i] - known[i])
    place = np.empty(len(texts), np.int64)
    place[order] = np.arange(len(texts))
    block = np.ascontiguousarray(block[place])
    return BLOCK_CHARS * int(kernel.cached_blocks(block, np.ascontiguousarray(blocks[place]), distinct, capacity))
