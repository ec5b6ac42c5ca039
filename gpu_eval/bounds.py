"""What no placement can beat: upper bounds of balance, so that a score is shown beside what is possible.

Below, a layer has loads w_e; a region (all GPUs, or one node under group locality) has G GPUs of S slots, and its E
experts must each have a slot there, with R = G S - E slots to spare. Loads may be split among copies in any way, also
unevenly. The largest GPU load M of a region is at least each of:

Volume. sum w / G: the largest is no less than the mean.

Copies. An expert on k GPUs puts at least w_e / k on one of them, so it needs n_e(M) = max(1, ceil(w_e / M)) GPUs and as
many slots. Hence w_e / G <= M for every e, and sum_e (n_e(M) - 1) <= R. As ceil(x) - 1 counts the k >= 1 with k < x,
that sum counts the pairs (e, k >= 1) with w_e / k > M; at most R of them: M is at least the (R + 1)-th largest of all
w_e / k. For S = 1 this bound is reached with even shares: give each expert n_e slots, each a GPU of its own, and the
rest to anything. Over slots instead of GPUs, w_e / G drops out and the bound is always reached; it is what greedy
replication (one copy after another to the largest w_e / c_e) attains, since its R picks are the R largest w_e / k.

Pigeons, for R = 0: every expert has one slot. For any 0 <= k < S, some GPU holds k + 1 of the k G + 1 heaviest experts;
it carries at least the k + 1 lightest of those and, in its other slots, the S - k - 1 lightest of all.

Group locality. A map of groups to nodes with equally many on each makes every node a region; the layer's bound is the
largest of its nodes' bounds, and the smallest of those over all maps. Nodes are alike, so the maps are the partitions
of the groups into equal sets: 105 for 8 groups on 4 nodes, 35 on 2, 1 on 8, all enumerated.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from .shapes import Shape

Loads = NDArray[np.float64]

PARTITION_LIMIT = 20_000
"""Partitions of groups beyond which they are not enumerated."""


def gpu_bound(weight: NDArray[np.generic], shape: Shape, grouped: bool) -> float:
    """Upper bound of `balance.gpu_balance` of `weight` [L, E] over every valid placement and split.

    With `grouped`, over placements without group violations. Where groups cannot stay on nodes (`shape.local_groups` is
    False), or their partitions are more than PARTITION_LIMIT, `grouped` changes nothing: the bound is the global one.
    """
    loads = np.asarray(weight, np.float64)
    return _ratio(loads.sum() / shape.gpus, gpu_load_bounds(loads, shape, grouped))


def slot_bound(weight: NDArray[np.generic], shape: Shape, grouped: bool) -> float:
    """The largest `balance.slot_balance` (the paper's balancedness) that a valid placement reaches.

    `grouped` as in `gpu_bound`; where it changes nothing although groups can stay on nodes, a bound only.
    """
    loads = np.asarray(weight, np.float64)
    return _ratio(loads.sum() / shape.slots, slot_load_bounds(loads, shape, grouped))


def gpu_load_bounds(weight: NDArray[np.generic], shape: Shape, grouped: bool) -> Loads:
    """What the fullest GPU of each layer carries at least, float64 [L]."""
    return _over_regions(weight, shape, grouped, _least_gpu_load)


def slot_load_bounds(weight: NDArray[np.generic], shape: Shape, grouped: bool) -> Loads:
    """What the fullest slot of each layer carries at least, float64 [L]."""
    return _over_regions(weight, shape, grouped, lambda loads, gpus, slots: _copies(loads, slots))


def _over_regions(
    weight: NDArray[np.generic], shape: Shape, grouped: bool, least: Callable[[Loads, int, int], Loads]
) -> Loads:
    """`least`(loads [rows, experts], gpus, slots) -> [rows], applied to all GPUs or to the best split of groups."""
    loads = np.asarray(weight, np.float64)
    per_node = shape.groups // shape.nodes
    if not (grouped and shape.local_groups and _partition_count(shape.groups, per_node) <= PARTITION_LIMIT):
        return least(loads, shape.gpus, shape.slots)
    sets, partitions = _partitions(shape.groups, per_node)
    layers = len(loads)
    by_set = loads.reshape(layers, shape.groups, -1)[:, sets].reshape(layers * len(sets), -1)
    node = least(by_set, shape.gpus_per_node, shape.slots // shape.nodes).reshape(layers, -1)
    return np.asarray(node[:, partitions].max(axis=2).min(axis=1), np.float64)


def _least_gpu_load(loads: Loads, gpus: int, slots: int) -> Loads:
    bounds = [loads.mean(axis=1) * loads.shape[1] / gpus, loads.max(axis=1) / gpus, _copies(loads, slots)]
    if slots == loads.shape[1]:
        bounds.append(_pigeons(loads, gpus))
    return np.asarray(np.max(bounds, axis=0), np.float64)


def _copies(loads: Loads, slots: int) -> Loads:
    """The (R + 1)-th largest w_e / k. Only the R + 1 heaviest experts and k <= R + 1 can be among those."""
    spare = slots - loads.shape[1]
    if spare == 0:
        return np.asarray(loads.max(axis=1), np.float64)
    kept = min(loads.shape[1], spare + 1)
    heaviest = -np.partition(-loads, kept - 1, axis=1)[:, :kept]
    shares = (heaviest[:, :, None] / np.arange(1, spare + 2)).reshape(len(loads), -1)
    return np.asarray(-np.partition(-shares, spare, axis=1)[:, spare], np.float64)


def _pigeons(loads: Loads, gpus: int) -> Loads:
    ordered = -np.sort(-loads, axis=1)
    experts = loads.shape[1]
    per_gpu = experts // gpus
    above = np.concatenate([np.zeros((len(loads), 1)), np.cumsum(ordered, axis=1)], axis=1)
    together = np.arange(per_gpu)
    last = together * gpus + 1
    heavy = above[:, last] - above[:, last - together - 1]
    light = above[:, [experts]] - above[:, experts - (per_gpu - together - 1)]
    return np.asarray((heavy + light).max(axis=1), np.float64)


def _partition_count(groups: int, per_node: int) -> int:
    nodes = groups // per_node
    same = factorial(per_node) ** nodes * factorial(nodes)
    return int(factorial(groups) // same)


@lru_cache(maxsize=16)
def _partitions(groups: int, per_node: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Sets of groups [sets, per_node], and the partitions of all groups into nodes as rows of set indices."""
    sets = list(combinations(range(groups), per_node))
    index = {chosen: number for number, chosen in enumerate(sets)}
    partitions: list[tuple[int, ...]] = []

    def extend(rest: tuple[int, ...], chosen: tuple[int, ...]) -> None:
        if not rest:
            partitions.append(chosen)
            return
        for others in combinations(rest[1:], per_node - 1):
            node = (rest[0], *others)
            extend(tuple(group for group in rest if group not in node), (*chosen, index[node]))

    extend(tuple(range(groups)), ())
    return np.array(sets, np.int64), np.array(partitions, np.int64)


def _ratio(means: float, least: Loads) -> float:
    """Sum of means over sum of least maxima; 1 where no layer has load, as in `balance`."""
    fullest = float(least.sum())
    return min(1.0, float(means) / fullest) if fullest > 0 else 1.0
