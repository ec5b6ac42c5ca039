"""Exact bin packing of integers: does a set of items fit into a number of bins of one capacity?

Depth first, the largest item first, into the fullest bin that takes it. A branch ends when the bins together cannot
hold what is left: room smaller than the smallest item that is still to come is lost. Bins of equal room are tried
once. Whether an answer was reached is a count of nodes, not of seconds, so it is the same everywhere.

Compiled for its one signature when imported and cached on disk.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

FITS, DOES_NOT_FIT, UNKNOWN = 1, 0, -1


@compiled("int64(int64[::1], int64, int64, int64, int64[::1])")
def pack(sizes, bins, capacity, max_nodes, bin_of):  # type: ignore[no-untyped-def]
    """Whether items of `sizes` (int64, descending, each >= 1) fit into `bins` bins of `capacity`.

    Gives FITS, with the bin of each item in `bin_of`; DOES_NOT_FIT, which is a proof; or UNKNOWN after `max_nodes`
    placements tried.
    """
    n = sizes.size
    if n == 0:
        return 1
    smallest = sizes[n - 1]
    left = np.zeros(n + 1, np.int64)  # total size of the items from i on
    for i in range(n - 1, -1, -1):
        left[i] = left[i + 1] + sizes[i]
    if sizes[0] > capacity or left[0] > bins * capacity:
        return 0
    room = np.full(bins, capacity, np.int64)
    choices = np.empty((n, bins), np.int64)  # bins to try for item i, best last
    count = np.zeros(n, np.int64)
    depth = 0
    nodes = 0
    entering = True
    while depth >= 0:
        if entering:
            usable = 0
            for b in range(bins):
                if room[b] >= smallest:
                    usable += room[b]
            k = 0
            if left[depth] <= usable:
                for b in range(bins):
                    if room[b] < sizes[depth]:
                        continue
                    twin = False
                    for c in range(k):
                        if room[choices[depth, c]] == room[b]:
                            twin = True
                            break
                    if twin:
                        continue
                    at = k
                    while at > 0 and room[choices[depth, at - 1]] < room[b]:
                        choices[depth, at] = choices[depth, at - 1]
                        at -= 1
                    choices[depth, at] = b
                    k += 1
            count[depth] = k
            bin_of[depth] = -1
        if bin_of[depth] >= 0:
            room[bin_of[depth]] += sizes[depth]
            bin_of[depth] = -1
        if count[depth] == 0:
            depth -= 1
            entering = False
            continue
        nodes += 1
        if nodes > max_nodes:
            return -1
        count[depth] -= 1
        b = choices[depth, count[depth]]
        room[b] -= sizes[depth]
        bin_of[depth] = b
        if depth == n - 1:
            return 1
        depth += 1
        entering = True
    return 0
