"""Copies of experts to GPUs: the greedy rule on plain lists, one layer and node after the other."""

import heapq

import numpy as np
import torch


# EVOLVE-BLOCK-START
def spread_groups(load, nodes):
    """The groups of each node, equally many: heaviest first, each to the lightest node with room."""
    total = [0.0] * nodes
    groups = [[] for _ in range(nodes)]
    for group in sorted(range(len(load)), key=lambda g: -load[g]):
        node = min((n for n in range(nodes) if len(groups[n]) < len(load) // nodes), key=total.__getitem__)
        groups[node].append(group)
        total[node] += load[group]
    return groups


def replicate(load, slots):
    """Copies of every item: each further slot to the item with the largest load per copy."""
    copies = [1] * len(load)
    heap = [(-value, item) for item, value in enumerate(load)]
    heapq.heapify(heap)
    for _ in range(slots - len(load)):
        _, item = heap[0]
        copies[item] += 1
        heapq.heapreplace(heap, (-load[item] / copies[item], item))
    return copies


def pack(load, copies, gpus, capacity):
    """The items of each GPU: copies by falling load, each to the lightest GPU with a free slot."""
    heap = [(0.0, gpu) for gpu in range(gpus)]
    held = [[] for _ in range(gpus)]
    for item in sorted(range(len(load)), key=lambda i: -load[i] / copies[i]):
        for _ in range(copies[item]):
            total, gpu = heap[0]
            held[gpu].append(item)
            if len(held[gpu]) < capacity:
                heapq.heapreplace(heap, (total + load[item] / copies[item], gpu))
            else:
                heapq.heappop(heap)
    return held


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    layers, num_experts = weight.shape
    assert num_replicas % num_gpus == 0
    assert num_gpus % num_nodes == 0
    assert num_experts % num_groups == 0
    assert num_replicas >= num_experts
    load = weight.double().cpu().numpy()
    if not (np.isfinite(load).all() and load.min() >= 0):
        raise ValueError("loads must be finite and at least 0")
    if num_groups % num_nodes != 0:  # groups do not divide over nodes: experts go anywhere
        num_groups, num_nodes = 1, 1
    size = num_experts // num_groups
    capacity = num_replicas // num_gpus
    physical_to_logical = np.empty((layers, num_replicas), np.int64)
    for layer in range(layers):
        row = []
        group_load = load[layer].reshape(num_groups, size).sum(axis=1).tolist()
        for groups in spread_groups(group_load, num_nodes):
            experts = [g * size + i for g in groups for i in range(size)]
            local = load[layer, experts].tolist()
            copies = replicate(local, num_replicas // num_nodes)
            for items in pack(local, copies, num_gpus // num_nodes, capacity):
                row += [experts[item] for item in items]
        physical_to_logical[layer] = row

    rows = np.arange(layers)[:, None]
    expert_count = np.zeros((layers, num_experts), np.int64)
    np.add.at(expert_count, (np.broadcast_to(rows, physical_to_logical.shape), physical_to_logical), 1)
    order = physical_to_logical.argsort(axis=1, kind="stable")
    expert = np.take_along_axis(physical_to_logical, order, axis=1)
    first = np.cumsum(expert_count, axis=1) - expert_count
    rank = np.arange(num_replicas) - np.take_along_axis(first, expert, axis=1)
    logical_to_physical = np.full((layers, num_experts, expert_count.max()), -1)
    logical_to_physical[rows, expert, rank] = order
    answers = (physical_to_logical, logical_to_physical, expert_count)
    return tuple(torch.from_numpy(answer).to(weight.device) for answer in answers)


# EVOLVE-BLOCK-END
