"""Compiled loops: common prefixes of sorted rows, a bounded cache of blocks, and the upper bound on hits.

Texts lie one after the other in `chars` (code points); text i is `chars[start[i]:start[i + 1]]`.
Compiled for one signature when imported and cached on disk, so that a process forked later compiles nothing.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled


@compiled("int64(uint32[::1], int64, int64, int64, int64)")
def common_prefix(chars, a, a_end, b, b_end):  # type: ignore[no-untyped-def]
    """Characters that `chars[a:a_end]` and `chars[b:b_end]` share from their starts."""
    length = 0
    while a + length < a_end and b + length < b_end and chars[a + length] == chars[b + length]:
        length += 1
    return length


@compiled("int64[::1](uint32[::1], int64[::1])")
def adjacent_prefixes(chars, start):  # type: ignore[no-untyped-def]
    """Common prefix of every text with the one before it, 0 for the first."""
    shared = np.zeros(start.size - 1, np.int64)
    for i in range(1, start.size - 1):
        shared[i] = common_prefix(chars, start[i - 1], start[i], start[i], start[i + 1])
    return shared


@compiled("int64(int64[:, ::1], int64[::1], int64, int64)")
def cached_blocks(block, blocks, distinct, capacity):  # type: ignore[no-untyped-def]
    """Blocks found in a cache of `capacity` blocks with least-recently-used eviction, over all rows in order.

    Row i asks for `block[i, :blocks[i]]`, numbers in 0..distinct-1 from its start on; a number stands for a block
    together with all before it. The leading blocks that are cached are hits; then all blocks of the row are used, the
    last first, so that ends are evicted before the beginnings they hang on.
    """
    newer = np.full(distinct + 1, -1, np.int64)  # a ring through `distinct`: its newer is the oldest
    older = np.full(distinct + 1, -1, np.int64)
    newer[distinct] = distinct
    older[distinct] = distinct
    held = 0
    hits = 0
    for i in range(blocks.size):
        k = 0
        while k < blocks[i] and newer[block[i, k]] >= 0:
            k += 1
        hits += k
        for j in range(blocks[i] - 1, -1, -1):
            b = block[i, j]
            if newer[b] >= 0:
                newer[older[b]] = newer[b]
                older[newer[b]] = older[b]
                held -= 1
            if held == capacity:
                oldest = newer[distinct]
                newer[distinct] = newer[oldest]
                older[newer[oldest]] = distinct
                newer[oldest] = -1
                held -= 1
            youngest = older[distinct]
            newer[youngest] = b
            older[b] = youngest
            newer[b] = distinct
            older[distinct] = b
            held += 1
    return hits


@compiled("Tuple((uint8[::1], int64[::1]))(uint32[::1], int64[::1])")
def composable(chars, start):  # type: ignore[no-untyped-def]
    """Which texts might be covered by other texts that are laid end to end, out of step, and how far the rest is.

    The texts are distinct and none is empty. Text u is covered if it is a proper prefix of another text, lies inside
    one beyond its first character, or starts with a text or the end of a text, goes on with whole texts and ends with
    a text or the beginning of one. Every text may be used any number of times, so the answer errs towards yes.
    Gives (covered, reach): reach[u] is the longest beginning of u that can be covered out of step.
    """
    texts = start.size - 1
    covered = np.zeros(texts, np.uint8)
    reach = np.zeros(texts, np.int64)
    for u in range(texts):
        begin, end = start[u], start[u + 1]
        at = np.zeros(end - begin + 1, np.uint8)
        for v in range(texts):
            for o in range(start[v], start[v + 1]):
                if chars[o] != chars[begin] or (u == v and o == begin):
                    continue
                length = common_prefix(chars, begin, end, o, start[v + 1])
                if length == end - begin:
                    covered[u] = 1
                elif o + length == start[v + 1]:
                    at[length] = 1
                elif o > start[v]:
                    reach[u] = max(reach[u], length)
        for p in range(1, end - begin):
            if at[p] == 0 or covered[u] == 1:
                continue
            reach[u] = max(reach[u], p)
            for w in range(texts):
                length = common_prefix(chars, begin + p, end, start[w], start[w + 1])
                reach[u] = max(reach[u], p + length)
                if begin + p + length == end:
                    covered[u] = 1
                elif length == start[w + 1] - start[w]:
                    at[p + length] = 1
    return covered, reach


@compiled("int64(uint32[::1], int64[::1], int64[::1], int64[::1], uint8[::1], int64[::1], uint8[::1], uint8[::1])")
def pair_bound(chars, start, a, b, covered, reach, a_shared, b_shared):  # type: ignore[no-untyped-def]
    """No order of the cells of two rows gives them a longer common prefix (see bound.py).

    `a` and `b` are the rows' cells as numbers of texts, sorted, -1 for an empty cell. `a_shared` and `b_shared` are
    space for as many flags.
    """
    a_shared[:] = 0
    b_shared[:] = 0
    shared = 0
    i = 0
    j = 0
    while i < a.size and j < b.size:
        if a[i] == b[j]:
            a_shared[i] = 1
            b_shared[j] = 1
            if a[i] >= 0:
                shared += start[a[i] + 1] - start[a[i]]
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    in_step = True
    last = 0
    a_last = 0
    b_last = 0
    for i in range(a.size):
        for j in range(b.size):
            u, v = a[i], b[j]
            if u == v or u < 0 or v < 0 or chars[start[u]] != chars[start[v]]:
                continue
            length = common_prefix(chars, start[u], start[u + 1], start[v], start[v + 1])
            if start[u] + length == start[u + 1] or start[v] + length == start[v + 1]:
                in_step = False
            if a_shared[i] == 0 and b_shared[j] == 0:
                last = max(last, length)
            if a_shared[i] == 0 and covered[u] == 0:
                a_last = max(a_last, length)
            if b_shared[j] == 0 and covered[v] == 0:
                b_last = max(b_last, length)
    if in_step:
        return shared + last
    a_rest = 0
    for i in range(a.size):
        if a_shared[i] == 0 and a[i] >= 0:
            if covered[a[i]] == 1:
                a_rest += start[a[i] + 1] - start[a[i]]
            else:
                a_last = max(a_last, reach[a[i]])
    b_rest = 0
    for j in range(b.size):
        if b_shared[j] == 0 and b[j] >= 0:
            if covered[b[j]] == 1:
                b_rest += start[b[j] + 1] - start[b[j]]
            else:
                b_last = max(b_last, reach[b[j]])
    return shared + min(a_rest + a_last, b_rest + b_last)


@compiled("int64(uint32[::1], int64[::1], int64[:, ::1], uint8[::1], int64[::1])")
def spanning_tree(chars, start, cells, covered, reach):  # type: ignore[no-untyped-def]
    """Weight of a maximum spanning tree over the rows `cells`, an edge weighing its `pair_bound` (Prim)."""
    rows = cells.shape[0]
    best = np.zeros(rows, np.int64)
    inside = np.zeros(rows, np.uint8)
    a_shared = np.zeros(cells.shape[1], np.uint8)
    b_shared = np.zeros(cells.shape[1], np.uint8)
    current = 0
    inside[0] = 1
    weight = 0
    for _ in range(rows - 1):
        following = -1
        for r in range(rows):
            if inside[r] == 1:
                continue
            bound = pair_bound(chars, start, cells[current], cells[r], covered, reach, a_shared, b_shared)
            best[r] = max(best[r], bound)
            if following < 0 or best[r] > best[following]:
                following = r
        weight += best[following]
        inside[following] = 1
        current = following
    return weight
