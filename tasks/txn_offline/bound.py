"""Makespans that no order of a workload beats. Trusted side only: candidates work them out themselves if they want.

Write s_i for the tick at which transaction i starts. If i is placed before j and they conflict, then
s_j >= s_i + gap(i, j), where gap(i, j) is the maximum of p - q + 1 over operations p of i and q of j (positions) on one
key of which at least one writes. So in a set of transactions that conflict pairwise, the ones of an order follow each
other with at least these gaps: it ends no earlier than the shortest path through all of them, the length of the last
one added. Leaving out that the path must be one path gives an assignment problem (a travelling-salesman relaxation,
e.g. Balas and Toth 1985): its optimum is a lower bound, and so is the longest transaction.

Which pairwise conflicting set is taken does not matter for the proof; tried are the writers of each of the most written
keys, those enlarged greedily, and one grown from the transaction with most conflicts.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .kernel import WRITE
from .workload import Workload

Ints: TypeAlias = npt.NDArray[np.int64]

FREE = -(2**40)
"""The gap of two transactions without a conflict."""

_TRIED_KEYS = 8
_NEVER = 2**40


def lower_bound(workload: Workload) -> int:
    """A makespan in ticks that no order of all transactions beats."""
    if workload.num_txns < 2:
        return workload.longest_txn
    gap, writers = pair_gaps(workload)
    conflicts = (gap > FREE).sum(axis=1)
    busiest = np.argsort(-conflicts, kind="stable").astype(np.int64)
    best = workload.longest_txn
    starts = [busiest[:1]]
    written = writers.sum(axis=0)
    for key in np.argsort(-written, kind="stable")[:_TRIED_KEYS]:
        together = np.flatnonzero(writers[:, key])
        if together.size > 1:
            best = max(best, path_bound(gap, workload.arrays[4], together))
            starts.append(together)
    for start in starts:
        enlarged = np.empty(workload.num_txns, np.int64)
        enlarged[: start.size] = start
        enlarged = enlarged[: _enlarge(gap, enlarged, start.size, busiest)]
        if enlarged.size > start.size:
            best = max(best, path_bound(gap, workload.arrays[4], enlarged))
    return best


def path_bound(gap: Ints, length: Ints, members: Ints) -> int:
    """The assignment bound of transactions `members` (ids) that conflict pairwise.

    `gap[i, j]` is for i placed before j. Node 0 of the assignment stands before the first and after the last one.
    """
    cost = np.zeros((members.size + 1, members.size + 1), np.int64)
    cost[1:, 1:] = gap[np.ix_(members, members)]
    cost[1:, 0] = length[members]
    np.fill_diagonal(cost, _NEVER)
    return int(least_assignment(cost))


def pair_gaps(workload: Workload) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """gap[i, j] in ticks, FREE where i and j do not conflict, and writers[i, key]."""
    first, key, write, position, length, keys = workload.arrays
    gap = np.full((length.size, length.size), FREE, np.int64)
    if keys == 0:
        return gap, np.zeros((length.size, 1), np.bool_)
    last = np.full((length.size, keys, 2), FREE, np.int64)
    earliest = np.full((length.size, keys, 2), -FREE, np.int64)
    _extremes(first, key, write, position, last, earliest)
    _gaps(last, earliest, gap)
    gap[gap < FREE // 2] = FREE
    return gap, last[:, :, WRITE] > FREE


@compiled("void(int64[::1], int64[::1], int64[::1], int64[::1], int64[:, :, ::1], int64[:, :, ::1])")
def _extremes(first, key, write, position, last, earliest):  # type: ignore[no-untyped-def]
    """Latest and earliest position per transaction and key: of any access at [..., 0], of a write at [..., 1]."""
    for txn in range(first.size - 1):
        for op in range(first[txn], first[txn + 1]):
            for kind in range(write[op] + 1):
                last[txn, key[op], kind] = max(last[txn, key[op], kind], position[op])
                earliest[txn, key[op], kind] = min(earliest[txn, key[op], kind], position[op])


@compiled("void(int64[:, :, ::1], int64[:, :, ::1], int64[:, ::1])")
def _gaps(last, earliest, gap):  # type: ignore[no-untyped-def]
    txns, keys = last.shape[0], last.shape[1]
    users = np.empty(txns, np.int64)
    for key in range(keys):
        count = 0
        for i in range(txns):
            if last[i, key, 0] > FREE:
                users[count] = i
                count += 1
        for i in users[:count]:
            for j in users[:count]:
                if i != j:
                    write_first = last[i, key, 1] - earliest[j, key, 0] + 1
                    write_second = last[i, key, 0] - earliest[j, key, 1] + 1
                    gap[i, j] = max(gap[i, j], write_first, write_second)


@compiled("int64(int64[:, ::1], int64[::1], int64, int64[::1])")
def _enlarge(gap, taken, size, candidates):  # type: ignore[no-untyped-def]
    """Add to `taken[:size]`, in their order, those `candidates` that conflict with all taken before; the new size."""
    for candidate in candidates:
        fits = True
        for member in taken[:size]:
            if member == candidate or gap[member, candidate] <= FREE:
                fits = False
                break
        if fits:
            taken[size] = candidate
            size += 1
    return size


@compiled("int64(int64[:, ::1])")
def least_assignment(cost):  # type: ignore[no-untyped-def]
    """The least sum of one entry per row and column, by shortest augmenting paths (Kuhn 1955; Jonker, Volgenant 1987).

    In integers, so exact. Index n of the columns is the virtual one from which every path starts.
    """
    n = cost.shape[0]
    row_price, column_price = np.zeros(n, np.int64), np.zeros(n + 1, np.int64)
    row_of = np.full(n + 1, -1, np.int64)
    for row in range(n):
        row_of[n] = row
        column = n
        slack = np.full(n, 2**62, np.int64)
        came_from = np.full(n, n, np.int64)
        done = np.zeros(n + 1, np.bool_)
        while row_of[column] >= 0:
            done[column] = True
            reached, delta, following = row_of[column], 2**62, n
            for j in range(n):
                if not done[j]:
                    reduced = cost[reached, j] - row_price[reached] - column_price[j]
                    if reduced < slack[j]:
                        slack[j], came_from[j] = reduced, column
                    if slack[j] < delta:
                        delta, following = slack[j], j
            for j in range(n + 1):
                if done[j]:
                    row_price[row_of[j]] += delta
                    column_price[j] -= delta
                elif j < n:
                    slack[j] -= delta
            column = following
        while column != n:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    total = 0
    for j in range(n):
        total += cost[row_of[j], j]
    return total
