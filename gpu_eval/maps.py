"""The inverse maps of a placement: which slots hold an expert, and how many."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


def maps(phy2log: NDArray[Any], experts: int) -> tuple[Ints, Ints]:
    """Slots of each expert [L, E, X] int64, ascending, padded with -1 to X = most copies, and copies [L, E] int64.

    `phy2log` [L, P] holds ids in 0..experts-1; raises ValueError, one line, for anything else.
    """
    if phy2log.ndim != 2 or phy2log.dtype.kind not in "iu":
        raise ValueError(f"phy2log is {phy2log.dtype} {list(phy2log.shape)}, expected integers [layers, slots]")
    layers, slots = phy2log.shape
    foreign = (phy2log < 0) | (phy2log >= experts)
    if foreign.any():
        layer, slot = np.argwhere(foreign)[0]
        raise ValueError(
            f"slot {slot} of layer {layer} holds {phy2log[layer, slot]}, expected an expert in 0..{experts - 1}"
        )
    row = np.arange(layers)[:, None]
    flat = phy2log + row * experts
    counts = np.bincount(flat.ravel(), minlength=layers * experts).astype(np.int64).reshape(layers, experts)
    order = np.argsort(phy2log, axis=1, kind="stable")
    held = np.take_along_axis(phy2log, order, axis=1)
    first = np.cumsum(counts, axis=1) - counts
    rank = np.arange(slots) - np.take_along_axis(first, held, axis=1)
    log2phy = np.full((layers, experts, int(counts.max(initial=0))), -1, np.int64)
    log2phy[row, held, rank] = order
    return log2phy, counts
