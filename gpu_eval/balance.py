"""How evenly a placement spreads given loads: over GPUs, over slots, in the worst layer, and what it wastes.

A layer ends when its fullest GPU does, so layers are summed after their maxima are taken:

    gpu balance  = sum over layers of the mean GPU load / sum over layers of the largest GPU load
    slot balance = the same over slots, the figure that the paper (arXiv 2510.06189) and its evaluator call balancedness

Slot balance depends on the numbers of copies alone, not on where they lie: it cannot see packing. Score by GPU balance.

Everywhere `phy2log` int [L, P] names the expert in each slot, `weight` [L, E] is the load per expert (any unit), and
`split` float [L, P] is the share of its expert's load that each slot takes; None: equal shares. A placement must have
been checked before: an expert without a slot would lose its load here. Balance is in (0, 1]. A layer without load adds
nothing to either sum; where no layer has any, balance is 1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .shapes import Shape

Loads = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Balance:
    """All figures of one placement under one load."""

    gpu: float
    slot: float
    worst_layer: float
    """GPU balance of the worst layer."""
    worst_layer_index: int
    duplicates: int
    """Slots that repeat an expert of their own GPU, all layers."""
    group_violations: int
    """Slots off their group's node, all layers."""


def measure(phy2log: Ints, weight: NDArray[np.generic], shape: Shape, split: Loads | None = None) -> Balance:
    """Every figure of `phy2log` under `weight`."""
    slots = slot_loads(phy2log, weight, split)
    ranks = _sum_by_gpu(slots, shape.gpus)
    index, worst = _worst(ranks)
    return Balance(
        gpu=_mean_over_max(ranks),
        slot=_mean_over_max(slots),
        worst_layer=worst,
        worst_layer_index=index,
        duplicates=int(duplicates(phy2log, shape.gpus).sum()),
        group_violations=int(group_violations(phy2log, shape).sum()),
    )


def slot_loads(phy2log: Ints, weight: NDArray[np.generic], split: Loads | None = None) -> Loads:
    """Load of each slot, float64 [L, P]."""
    layers, experts = weight.shape
    cells = phy2log + np.arange(layers)[:, None] * experts
    loads = np.asarray(weight, np.float64).ravel()
    if split is not None:
        return np.asarray(loads[cells] * split, np.float64)
    copies = np.bincount(cells.ravel(), minlength=layers * experts)
    return np.asarray((loads / np.maximum(copies, 1))[cells], np.float64)


def gpu_loads(phy2log: Ints, weight: NDArray[np.generic], gpus: int, split: Loads | None = None) -> Loads:
    """Load of each GPU, float64 [L, gpus]."""
    return _sum_by_gpu(slot_loads(phy2log, weight, split), gpus)


def gpu_balance(phy2log: Ints, weight: NDArray[np.generic], gpus: int, split: Loads | None = None) -> float:
    """Sum over layers of mean GPU loads / sum over layers of largest GPU loads."""
    return _mean_over_max(gpu_loads(phy2log, weight, gpus, split))


def slot_balance(phy2log: Ints, weight: NDArray[np.generic]) -> float:
    """The paper's balancedness: `gpu_balance` with every slot a GPU of its own and equal shares."""
    return _mean_over_max(slot_loads(phy2log, weight))


def worst_layer(phy2log: Ints, weight: NDArray[np.generic], gpus: int) -> tuple[int, float]:
    """Index and GPU balance of the least balanced layer; the first of equals."""
    return _worst(gpu_loads(phy2log, weight, gpus))


def duplicates(phy2log: Ints, gpus: int) -> Ints:
    """Slots that repeat an expert of their own GPU, int64 [L]. They take memory and spread no load."""
    layers, slots = phy2log.shape
    local = np.sort(phy2log.reshape(layers, gpus, slots // gpus), axis=2)
    return np.asarray((local[:, :, 1:] == local[:, :, :-1]).sum(axis=(1, 2)), np.int64)


def group_violations(phy2log: Ints, shape: Shape) -> Ints:
    """Slots that lie off the node of their expert's group, int64 [L].

    Every node is home to equally many groups, the rule of DeepSeek's hierarchical balancer. No map of groups to nodes
    is given, so homes are read from the placement, per layer: of the pairs (group, node) the one with most slots comes
    first, as long as its node has room. 0 if and only if the rule holds. Where groups cannot stay on nodes
    (`shape.local_groups` is False) nothing is asked and nothing is violated.
    """
    layers, slots = phy2log.shape
    if not shape.local_groups or shape.nodes == 1:
        return np.zeros(layers, np.int64)
    groups, nodes = shape.groups, shape.nodes
    rows = np.arange(layers)
    node_of_slot = np.arange(slots) // (slots // nodes)
    cells = (rows[:, None] * groups + phy2log // shape.experts_per_group) * nodes + node_of_slot
    held = np.bincount(cells.ravel(), minlength=layers * groups * nodes).reshape(layers, groups, nodes)
    room = np.full((layers, nodes), groups // nodes)
    at_home = np.zeros(layers, np.int64)
    for _ in range(groups):
        group, node = np.divmod(held.reshape(layers, -1).argmax(axis=1), nodes)
        at_home += held[rows, group, node]
        room[rows, node] -= 1
        held[rows, group] = -1
        full = room[rows, node] == 0
        held[rows[full], :, node[full]] = -1
    return np.asarray(slots - at_home, np.int64)


def _sum_by_gpu(slots: Loads, gpus: int) -> Loads:
    return np.asarray(slots.reshape(slots.shape[0], gpus, -1).sum(axis=2), np.float64)


def _mean_over_max(loads: Loads) -> float:
    fullest = loads.max(axis=1).sum()
    return min(1.0, float(loads.mean(axis=1).sum() / fullest)) if fullest > 0 else 1.0


def _worst(loads: Loads) -> tuple[int, float]:
    fullest = loads.max(axis=1)
    balances = np.divide(loads.mean(axis=1), fullest, out=np.ones_like(fullest), where=fullest > 0)
    index = int(balances.argmin())
    return index, min(1.0, float(balances[index]))
