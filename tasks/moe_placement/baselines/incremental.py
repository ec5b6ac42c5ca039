"""Baseline: after every window up to 16 improvements per layer, each from the fullest GPU, nothing else moves.

An improvement exchanges two experts, or gives a slot of an expert with copies to spare to one of the fullest GPU
(in the manner of SwiftBalancer, vllm#37656: bounded swaps).
"""

import numpy as np

STEPS = 16
LEAST_GAIN = 0.002  # of the mean GPU load: below that a layer is left alone


def init(config):
    return config


def step(config, load_window, placement):
    improved = improve(load_window.sum(axis=0).astype(float), placement.copy(), config["gpus"])
    return config, improved


def slot_loads(load, placed):
    layers, experts = load.shape
    cells = placed + np.arange(layers)[:, None] * experts
    copies = np.bincount(cells.ravel(), minlength=load.size)
    return (load.ravel() / np.maximum(copies, 1))[cells], copies[cells]


def improve(load, placed, gpus):
    """The placement [L, P] after up to STEPS improvements in every layer."""
    layers, slots = placed.shape
    size = slots // gpus
    gpu = np.arange(slots) // size
    active = np.arange(layers if gpus > 1 else 0)
    for _ in range(STEPS):
        if not len(active):
            break
        now = placed[active]
        each, copies = slot_loads(load[active], now)
        full = each.reshape(len(active), gpus, size).sum(axis=2)
        options = [exchange(now, each, full, gpu, size), replicate(load[active], now, each, copies, full, gpu, size)]
        worst = np.array([largest(load[active], option, gpus) for option in options])
        best = worst.argmin(axis=0)
        row = np.arange(len(active))
        gain = full.max(axis=1) - worst[best, row]
        better = gain > LEAST_GAIN * full.mean(axis=1)
        placed[active[better]] = np.array(options)[best, row][better]
        active = active[better]
    return placed


def largest(load, placed, gpus):
    """A few GPUs may be equally full: the mean square of the loads breaks the tie."""
    each, _ = slot_loads(load, placed)
    full = each.reshape(len(placed), gpus, -1).sum(axis=2)
    return full.max(axis=1) + 1e-6 * (full**2).mean(axis=1) / np.maximum(full.mean(axis=1), 1e-300)


def exchange(placed, each, full, gpu, size):
    """Exchange a slot of the fullest GPU with the slot elsewhere that leaves the smaller of the two maxima."""
    layers, slots = placed.shape
    row = np.arange(layers)
    top = full.argmax(axis=1)
    mine = top[:, None] * size + np.arange(size)
    shift = each[row[:, None], mine][:, :, None] - each[:, None, :]
    after = np.maximum(full[row, top][:, None, None] - shift, full[:, gpu][:, None, :] + shift)
    after[np.broadcast_to((gpu == top[:, None])[:, None, :], after.shape)] = np.inf
    best = after.reshape(layers, -1).argmin(axis=1)
    here, there = mine[row, best // slots], best % slots
    new = placed.copy()
    new[row, here], new[row, there] = placed[row, there], placed[row, here]
    return new


def replicate(load, placed, each, copies, full, gpu, size):
    """One more copy of the heaviest slot's expert of the fullest GPU, in the place of a copy that can be spared."""
    row = np.arange(len(placed))
    top = full.argmax(axis=1)
    mine = top[:, None] * size + np.arange(size)
    here = mine[row, each[row[:, None], mine].argmax(axis=1)]
    expert = placed[row, here]
    share = load[row, expert] / (copies[row, here] + 1)
    after = full[:, gpu] - each + share[:, None]
    spare = (copies > 1) & (placed != expert[:, None]) & (gpu != top[:, None])
    after[~spare] = np.inf
    there = after.argmin(axis=1)
    new = placed.copy()
    able = spare.any(axis=1)
    new[row[able], there[able]] = expert[able]
    return new
