"""Cheapest Steiner arborescences: trees of links from one region to several, over any others.

The recursion of Dreyfus and Wagner ("The Steiner problem in graphs", 1971), directed: the cheapest tree from v to a
set S of ends is a shortest path from v to some fork u, and there two trees to the parts of a split of S.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .network import Floats, Ints

MOST_ENDS = 9
"""The recursion takes 3 ** ends steps; beyond this many it is not worth its time."""


def distances(price: Floats) -> tuple[Floats, Ints]:
    """Shortest distances (Floyd-Warshall), and the first region on the way from row to column.

    `price` is (regions, regions), not negative, infinite where there is no link.
    """
    count = len(price)
    distance = price.copy()
    np.fill_diagonal(distance, 0.0)
    first = np.tile(np.arange(count), (count, 1))
    for k in range(count):
        through = distance[:, k, None] + distance[None, k, :]
        better = through < distance
        distance = np.where(better, through, distance)
        first = np.where(better, first[:, k, None], first)
    return distance, first


def cheapest_tree(price: Floats, source: int, ends: Sequence[int]) -> tuple[float, set[tuple[int, int]]]:
    """The least price of links that join the source to all ends, and links that do so.

    Where shortest paths of the tree meet, its links may cost less than the value; never more than rounding above it.
    Raises ValueError for more than MOST_ENDS ends.
    """
    if not 0 < len(ends) <= MOST_ENDS:
        raise ValueError(f"{len(ends)} ends, expected 1 to {MOST_ENDS}")
    distance, first = distances(price)
    everything = (1 << len(ends)) - 1
    best: dict[int, Floats] = {}
    fork: dict[int, Ints] = {}
    part: dict[int, Ints] = {}
    for subset in range(1, everything + 1):
        if subset & (subset - 1) == 0:
            best[subset] = distance[:, ends[subset.bit_length() - 1]]
            continue
        joined, part[subset] = _joined(best, subset)
        total = distance + joined[None, :]
        fork[subset] = total.argmin(axis=1)
        best[subset] = total.min(axis=1)
    links: set[tuple[int, int]] = set()
    waiting = [(source, everything)]
    while waiting:
        region, subset = waiting.pop()
        if subset & (subset - 1) == 0:
            links.update(_way(first, region, ends[subset.bit_length() - 1]))
            continue
        there = int(fork[subset][region])
        links.update(_way(first, region, there))
        half = int(part[subset][there])
        waiting += [(there, half), (there, subset ^ half)]
    return float(best[everything][source]), links


def _joined(best: dict[int, Floats], subset: int) -> tuple[Floats, Ints]:
    """For every region the least price of two trees from it that share out `subset`, and one of the two parts."""
    count = len(next(iter(best.values())))
    joined, parts = np.full(count, np.inf), np.zeros(count, dtype=np.int64)
    lowest = subset & -subset
    half = (subset - 1) & subset
    while half:
        if half & lowest:
            value = best[half] + best[subset ^ half]
            better = value < joined
            joined = np.where(better, value, joined)
            parts = np.where(better, half, parts)
        half = (half - 1) & subset
    return joined, parts


def _way(first: Ints, start: int, end: int) -> list[tuple[int, int]]:
    links = []
    while start != end:
        links.append((start, int(first[start, end])))
        start = int(first[start, end])
    return links
