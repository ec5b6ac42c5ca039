"""Baseline: replicate and pack anew after every window, any expert on any GPU (TensorRT-LLM's rule)."""

import numpy as np


def init(config):
    return config


def step(config, load_window, placement):
    return config, place(load_window.sum(axis=0).astype(float), config["slots"], config["gpus"])


def place(load, slots, gpus):
    """Experts [L, slots], GPU by GPU: copies to the largest load per copy, the heaviest to the emptiest GPU."""
    layers, experts = load.shape
    row = np.arange(layers)
    copies = np.ones_like(load)
    per_copy = load.copy()
    held = np.tile(np.arange(slots) % experts, (layers, 1))
    for slot in range(experts, slots):
        hottest = per_copy.argmax(axis=1)
        held[:, slot] = hottest
        copies[row, hottest] += 1
        per_copy[row, hottest] = load[row, hottest] / copies[row, hottest]
    return np.take_along_axis(held, pack(np.take_along_axis(per_copy, held, axis=1), gpus), axis=1)


def pack(load, packs):
    """Items [L, N] in packs of equal size: their numbers, pack by pack."""
    layers, items = load.shape
    row, size = np.arange(layers), items // packs
    order = np.argsort(-load, axis=1, kind="stable")
    filled = np.zeros((layers, packs))
    count = np.zeros((layers, packs), int)
    placed = np.empty((layers, items), int)
    for turn in range(items):
        item = order[:, turn]
        pack = filled.argmin(axis=1)
        place = count[row, pack]
        placed[row, pack * size + place] = item
        count[row, pack] = place + 1
        filled[row, pack] = np.where(place + 1 == size, np.inf, filled[row, pack] + load[row, item])
    return placed
