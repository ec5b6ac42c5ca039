"""Baseline: DeepSeek's rule after every window (github.com/deepseek-ai/EPLB), groups on nodes in prefill only.

Groups go to nodes, copies to the largest load per copy within a node, the heaviest copy to the emptiest GPU of it.
"""

import numpy as np


def init(config):
    return config


def step(config, load_window, placement):
    load = load_window.sum(axis=0).astype(float)
    groups, nodes = config["groups"], config["nodes"]
    room = config["slots"] // nodes >= config["experts"] // nodes
    if config["phase"] == "decode" or groups % nodes or not room:
        return config, place(load, config["slots"], config["gpus"])
    layers, experts = load.shape
    per_group = experts // groups
    at_node = pack(load.reshape(layers, groups, per_group).sum(axis=2), nodes)
    members = (at_node[:, :, None] * per_group + np.arange(per_group)).reshape(layers * nodes, -1)
    inside = np.take_along_axis(np.repeat(load, nodes, axis=0), members, axis=1)
    chosen = place(inside, config["slots"] // nodes, config["gpus"] // nodes)
    return config, np.take_along_axis(members, chosen, axis=1).reshape(layers, -1)


def place(load, slots, gpus):
    """Experts [L, slots], GPU by GPU, for loads [L, E]."""
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
