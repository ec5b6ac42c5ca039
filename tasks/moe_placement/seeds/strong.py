"""Exchanges a few experts per layer after each window, always one of the fullest GPU with one of the emptiest."""

import numpy as np

# EVOLVE-BLOCK-START


def init(config):
    return {"gpus": config["gpus"]}


EXCHANGES = 4  # per layer and window, at the most
LEAST_GAIN = 0.02  # of the fullest GPU's load, for an exchange


def shares(load, placed):
    """Load of each slot [L, P] when the copies of an expert have equal shares."""
    layers, experts = load.shape
    cells = placed + np.arange(layers)[:, None] * experts
    copies = np.bincount(cells.ravel(), minlength=load.size)
    return (load.ravel() / np.maximum(copies, 1))[cells]


def exchange(load, placed, gpus):
    """The placement after one exchange in every layer where that is worth it."""
    layers, slots = placed.shape
    row, size = np.arange(layers), slots // gpus
    share = shares(load, placed)
    full = share.reshape(layers, gpus, size).sum(axis=2)
    top, low = full.argmax(axis=1), full.argmin(axis=1)
    mine = top[:, None] * size + np.arange(size)
    theirs = low[:, None] * size + np.arange(size)
    shift = share[row[:, None], mine][:, :, None] - share[row[:, None], theirs][:, None, :]
    after = np.maximum(full[row, top][:, None, None] - shift, full[row, low][:, None, None] + shift)
    best = after.reshape(layers, -1).argmin(axis=1)
    here, there = mine[row, best // size], theirs[row, best % size]
    worth = after.reshape(layers, -1)[row, best] < (1 - LEAST_GAIN) * full[row, top]
    changed = placed.copy()
    changed[row[worth], here[worth]] = placed[row, there][worth]
    changed[row[worth], there[worth]] = placed[row, here][worth]
    return changed


def step(state, load_window, placement):
    """The new placement [L, P] after a window with loads [S, L, E], or None to go on as before."""
    load = load_window.sum(axis=0).astype(float)
    for _ in range(EXCHANGES):
        placement = exchange(load, placement, state["gpus"])
    return state, placement


# EVOLVE-BLOCK-END
