"""Baseline: `incremental`, and tokens split among copies by water-filling (in the manner of LPLB, once a window)."""

import numpy as np

STEPS = 16
LEAST_GAIN = 0.002  # of the mean GPU load: below that a layer is left alone
SPLIT_STEPS = 100


def init(config):
    return config


def step(config, load_window, placement):
    load = load_window.sum(axis=0).astype(float)
    improved = improve(load, placement.copy(), config["gpus"])
    return config, improved, split(load, improved, config["gpus"])


def split(load, placed, gpus):
    """Shares [L, P]: time and again, the fullest GPU hands tokens on to the emptiest one with a copy of an expert."""
    layers, slots = placed.shape
    row, gpu = np.arange(layers), np.arange(slots) // (slots // gpus)
    each, copies = slot_loads(load, placed)
    shares = 1.0 / copies
    full = each.reshape(layers, gpus, -1).sum(axis=2)
    cells = (placed + row[:, None] * load.shape[1]).ravel()
    order = np.argsort(cells, kind="stable")
    first = np.searchsorted(cells[order], np.arange(load.size))
    for _ in range(SPLIT_STEPS):
        top = full.argmax(axis=1)
        there = full[:, gpu]
        lowest = np.minimum.reduceat(there.ravel()[order], first)[cells].reshape(there.shape)
        room = full[row, top][:, None] - lowest
        able = (gpu == top[:, None]) & (copies > 1) & (shares > 0)
        room[~able] = 0.0
        here = room.argmax(axis=1)
        expert = placed[row, here]
        target = np.where(placed == expert[:, None], there, np.inf).argmin(axis=1)
        total = np.maximum(load[row, expert], 1e-300)
        moved = np.minimum(shares[row, here], room[row, here] / 2 / total)
        moved[room[row, here] <= 0] = 0.0
        if not moved.any():
            break
        shares[row, here] -= moved
        shares[row, target] += moved
        full[row, top] -= moved * load[row, expert]
        full[row, gpu[target]] += moved * load[row, expert]
    return shares


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
