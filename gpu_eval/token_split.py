"""How the tokens of an expert are best split among its copies, once the placement stands.

An even split is what DeepSeek's and vLLM's dispatch does; LPLB (github.com/deepseek-ai/LPLB) and SGLang's `lp` dispatch
(sglang#24515) split by a linear program per batch instead. Two ways to the least load of the fullest GPU in each layer:
`lp_split` is exact, `water_filling` comes near it in a fraction of the time.

A split is float64 [L, P]: the share of its expert's tokens that each slot takes, at least 0, summing to 1 per expert.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .maps import maps

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SWEEPS = 16
SETTLED = 1e-9
"""A sweep that changes no GPU by more than this part of the fullest one is the last."""


def even_split(phy2log: NDArray[Any], experts: int) -> Floats:
    """Equal shares for all copies; the placement must have been checked before."""
    cells = phy2log + np.arange(len(phy2log))[:, None] * experts
    copies = np.bincount(cells.ravel(), minlength=len(phy2log) * experts)
    return np.asarray(1.0 / copies[cells], np.float64)


def water_filling(phy2log: NDArray[Any], weight: NDArray[Any], gpus: int, sweeps: int = SWEEPS) -> Floats:
    """A split near that of `lp_split`: expert after expert, heaviest first, pours its load where its GPUs are lowest.

    A pour never raises the fullest of its GPUs, so no layer is worse off than under an even split. It minimises the sum
    of squared GPU loads over one expert's shares, so sweeps approach the minimum over all shares; and there the fullest
    GPU is lowest, too: what splits can make of GPU loads are the bases of a polymatroid, and one base minimises every
    symmetric convex sum (Fujishige, Mathematics of Operations Research 5, 1980). Of an expert's copies on one GPU the
    first takes all. Raises ValueError, one line, for a placement or loads that do not fit together.
    """
    load = _checked(phy2log, weight, gpus)
    split = even_split(phy2log, load.shape[1])
    table, counts = maps(phy2log, load.shape[1])
    row = np.arange(len(load))[:, None]
    # Layers are filled side by side; experts with one copy pad the list of those that have fewer with several.
    several = int((counts > 1).sum(axis=1).max())
    experts = np.argsort(np.where(counts > 1, -load, np.inf), axis=1, kind="stable")[:, :several]
    amount, slot = load[row, experts], table[row, experts]
    gpu = np.where(slot < 0, -1, slot // (phy2log.shape[1] // gpus))
    usable = (slot >= 0) & (np.diff(gpu, axis=2, prepend=-1) != 0)
    poured = np.where(slot < 0, 0.0, (amount / counts[row, experts])[:, :, None])
    total = _gpu_loads(phy2log, load, split, gpus)
    for _ in range(sweeps):
        before = total.copy()
        for k in range(several):
            np.subtract.at(total, (row, gpu[:, k]), poured[:, k])
            poured[:, k] = _pour(np.where(usable[:, k], total[row, gpu[:, k]], np.inf), amount[:, k])
            np.add.at(total, (row, gpu[:, k]), poured[:, k])
        if np.abs(total - before).max() <= SETTLED * total.max():
            break
    rows, ks, copies = np.nonzero((slot >= 0) & (amount > 0)[:, :, None])
    split[rows, slot[rows, ks, copies]] = poured[rows, ks, copies] / poured.sum(axis=2)[rows, ks]
    return split


def lp_split(phy2log: NDArray[Any], weight: NDArray[Any], gpus: int) -> Floats:
    """The split with the least load of the fullest GPU in each layer, one linear program each (scipy, HiGHS).

    Raises ValueError, one line, as `water_filling` does, and without scipy.
    """
    try:
        from scipy.optimize import linprog
    except ImportError:
        raise ValueError("lp_split needs scipy") from None
    load = _checked(phy2log, weight, gpus)
    layers, slots = phy2log.shape
    split = even_split(phy2log, load.shape[1])
    fixed = np.where(split < 1, 0.0, split)
    slot_gpu = np.arange(slots) // (slots // gpus)
    for layer in range(layers):
        free = np.nonzero(split[layer] < 1)[0]
        mean = load[layer].sum() / gpus
        if not free.size or not mean > 0:
            continue
        held, column = np.unique(phy2log[layer, free], return_inverse=True)
        shares = np.zeros((len(held), free.size + 1))
        shares[column, np.arange(free.size)] = 1
        tokens = np.zeros((gpus, free.size + 1))
        tokens[slot_gpu[free], np.arange(free.size)] = load[layer, phy2log[layer, free]] / mean
        tokens[:, -1] = -1
        base = _gpu_loads(phy2log[[layer]], load[[layer]], fixed[[layer]], gpus)[0] / mean
        goal = np.zeros(free.size + 1)
        goal[-1] = 1
        done = linprog(goal, A_ub=tokens, b_ub=-base, A_eq=shares, b_eq=np.ones(len(held)), method="highs")
        if done.x is not None:
            found = np.maximum(done.x[:-1], 0.0)
            split[layer, free] = found / np.bincount(column, found)[column]
    return split


def _pour(base: Floats, amount: Floats) -> Floats:
    """`amount` [rows] into vessels filled to `base` [rows, vessels], lowest first; those at infinity get none."""
    filled = np.cumsum(np.sort(base, axis=1), axis=1) + amount[:, None]
    # The level over the j lowest vessels is least where j is the number of vessels that get any.
    level = (filled / np.arange(1, base.shape[1] + 1)).min(axis=1, keepdims=True)
    return np.asarray(np.maximum(level - base, 0.0), np.float64)


def _gpu_loads(phy2log: NDArray[Any], load: Floats, split: Floats, gpus: int) -> Floats:
    slots = np.take_along_axis(load, phy2log, axis=1) * split
    return np.asarray(slots.reshape(len(load), gpus, -1).sum(axis=2), np.float64)


def _checked(phy2log: NDArray[Any], weight: NDArray[Any], gpus: int) -> Floats:
    """The loads as float64; ValueError where they and the placement do not fit together."""
    if phy2log.ndim != 2 or weight.ndim != 2 or 0 in phy2log.shape or len(phy2log) != len(weight):
        shapes = f"phy2log is {list(phy2log.shape)}, weight {list(weight.shape)}"
        raise ValueError(f"{shapes}, expected [layers, slots] and [layers, experts]")
    if gpus < 1 or phy2log.shape[1] % gpus:
        raise ValueError(f"slots ({phy2log.shape[1]}) is no multiple of gpus ({gpus})")
    load = np.asarray(weight, np.float64)
    bad = ~((load >= 0) & (load < np.inf))
    if bad.any():
        layer, expert = np.argwhere(bad)[0]
        raise ValueError(f"load of layer {layer}, expert {expert} is {load[layer, expert]}, expected finite and >= 0")
    missing = maps(phy2log, load.shape[1])[1] == 0
    if missing.any():
        layer, expert = np.argwhere(missing)[0]
        raise ValueError(f"expert {expert} of layer {layer} has no slot")
    return load
