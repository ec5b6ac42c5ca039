"""Places anew, after each window, the layers for which that promises enough."""

import numpy as np

# EVOLVE-BLOCK-START


def init(config):
    return {"gpus": config["gpus"], "slots": config["slots"]}


LEAST_GAIN = 0.25  # of the fullest GPU's load, before a layer is placed anew


def replicate(load, slots):
    """Experts [L, slots]: one copy of each, then one more of the one with the largest load per copy, and so on."""
    layers, experts = load.shape
    row = np.arange(layers)
    copies = np.ones_like(load)
    held = np.tile(np.arange(slots) % experts, (layers, 1))
    for slot in range(experts, slots):
        hottest = (load / copies).argmax(axis=1)
        held[:, slot] = hottest
        copies[row, hottest] += 1
    return held, np.take_along_axis(load / copies, held, axis=1)


def pack(held, share, gpus):
    """The heaviest copy first, each to the GPU that is least loaded and not full."""
    layers, slots = held.shape
    row, size = np.arange(layers), slots // gpus
    heaviest = np.argsort(-share, axis=1, kind="stable")
    filled = np.zeros((layers, gpus))
    count = np.zeros((layers, gpus), int)
    placed = np.empty_like(held)
    for turn in range(slots):
        copy = heaviest[:, turn]
        gpu = filled.argmin(axis=1)
        place = count[row, gpu]
        placed[row, gpu * size + place] = held[row, copy]
        count[row, gpu] = place + 1
        filled[row, gpu] = np.where(place + 1 == size, np.inf, filled[row, gpu] + share[row, copy])
    return placed


def fullest(load, placed, gpus):
    """Load of the fullest GPU of each layer, [L]."""
    layers, experts = load.shape
    cells = placed + np.arange(layers)[:, None] * experts
    copies = np.bincount(cells.ravel(), minlength=load.size)
    share = (load.ravel() / np.maximum(copies, 1))[cells]
    return share.reshape(layers, gpus, -1).sum(axis=2).max(axis=1)


def step(state, load_window, placement):
    """The new placement [L, P] after a window with loads [S, L, E], or None to go on as before."""
    load = load_window.sum(axis=0).astype(float)
    gpus = state["gpus"]
    held, share = replicate(load, state["slots"])
    anew = pack(held, share, gpus)
    before, after = fullest(load, placement, gpus), fullest(load, anew, gpus)
    worth = after < (1 - LEAST_GAIN) * before
    if not worth.any():
        return state, None
    return state, np.where(worth[:, None], anew, placement)


# EVOLVE-BLOCK-END
