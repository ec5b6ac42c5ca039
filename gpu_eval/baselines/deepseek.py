"""Hierarchical greedy in the style of DeepSeek's reference: plain loops over the elements of tensors, slow on purpose.

The rule (github.com/deepseek-ai/EPLB, README; DeepSeek-V3 report, arXiv 2412.19437, section 3.4): groups of experts go
to nodes, heaviest first, each to the least loaded node with room; within a node every free slot goes to the expert
with the largest load per copy; the copies go to the node's GPUs, largest first, each to the least loaded GPU with a
free slot. Groups that do not divide over the nodes are ignored: one node holds everything. Our own writing.
"""

from __future__ import annotations

import numpy as np
import torch


def loads(weight, num_replicas, num_groups, num_nodes, num_gpus):
    """The loads as float64 [L, E]; raises ValueError, one line, for loads and sizes that have no placement.

    A load that is nan, infinite or negative is refused, never repaired: it is a fault of whoever counted.
    """
    if weight.ndim != 2 or 0 in weight.shape:
        raise ValueError(f"weight is {list(weight.shape)}, expected [layers, experts] with at least one of each")
    experts = weight.shape[1]
    sizes = {"replicas": num_replicas, "groups": num_groups, "nodes": num_nodes, "gpus": num_gpus}
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"num_{name} is {size}, expected at least 1")
    for whole, size, part in (
        ("num_replicas", num_replicas, "gpus"),
        ("num_gpus", num_gpus, "nodes"),
        ("experts", experts, "groups"),
    ):
        if size % sizes[part]:
            raise ValueError(f"{whole} ({size}) is no multiple of num_{part} ({sizes[part]})")
    if num_replicas < experts:
        raise ValueError(f"{num_replicas} replicas cannot hold {experts} experts")
    load = weight.detach().to("cpu", torch.float64).contiguous().numpy()
    if not (load.min() >= 0 and load.max() < np.inf):
        layer, expert = np.argwhere(~((load >= 0) & (load < np.inf)))[0]
        raise ValueError(f"load of layer {layer}, expert {expert} is {load[layer, expert]}, expected finite and >= 0")
    return load


def pack(load, bins):
    """Longest processing time first with equally many items in each bin: bins [rows, items] and places in them."""
    rows, items = load.shape
    capacity = items // bins
    order = load.sort(dim=1, descending=True, stable=True).indices
    bin_of = torch.zeros_like(order)
    place = torch.zeros_like(order)
    for row in range(rows):
        total = [0.0] * bins
        filled = [0] * bins
        for item in order[row]:
            room = [b for b in range(bins) if filled[b] < capacity]
            chosen = min(room, key=total.__getitem__)
            bin_of[row, item] = chosen
            place[row, item] = filled[chosen]
            total[chosen] += load[row, item]
            filled[chosen] += 1
    return bin_of, place


def replicate(load, slots):
    """Slots one by one to the item with the largest load per copy: items [rows, slots] and copies [rows, items]."""
    rows, items = load.shape
    item_of = torch.arange(slots).repeat(rows, 1)
    copies = torch.ones(rows, items, dtype=torch.int64)
    every_row = torch.arange(rows)
    for slot in range(items, slots):
        hottest = (load / copies).max(dim=1).indices
        item_of[:, slot] = hottest
        copies[every_row, hottest] += 1
    return item_of, copies


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    """Placement of `num_replicas` slots for loads `weight` [L, E], on CPU or another device.

    Gives int64 on that device: the expert of each slot [L, P], the slots of each expert [L, E, X] ascending, padded
    with -1 to X = most copies, and the copies of each expert [L, E]. Slot s lies on GPU `s // (P / num_gpus)`.
    Raises ValueError as `loads` says.
    """
    load = torch.from_numpy(loads(weight, num_replicas, num_groups, num_nodes, num_gpus))
    if num_groups % num_nodes:
        num_groups, num_nodes = 1, 1
    layers, experts = load.shape
    size = experts // num_groups
    node_of, place = pack(load.view(layers, num_groups, size).sum(dim=2), num_nodes)
    groups = (node_of * (num_groups // num_nodes) + place).argsort(dim=1)
    seated = (groups.unsqueeze(2) * size + torch.arange(size)).view(layers * num_nodes, -1)
    every_row = torch.arange(layers).repeat_interleave(num_nodes).unsqueeze(1)
    node_load = load[every_row, seated]

    item_of, copies = replicate(node_load, num_replicas // num_nodes)
    gpus = num_gpus // num_nodes
    gpu, place = pack((node_load / copies).gather(1, item_of), gpus)
    slot = gpu * (num_replicas // num_gpus) + place
    on_node = torch.empty_like(item_of).scatter_(1, slot, seated.gather(1, item_of))
    physical_to_logical = on_node.view(layers, num_replicas)

    expert_count = torch.zeros(layers, experts, dtype=torch.int64)
    expert_count[every_row, seated] = copies
    logical_to_physical = torch.full((layers, experts, int(expert_count.max())), -1)
    for layer in range(layers):
        seen = [0] * experts
        for slot, expert in enumerate(physical_to_logical[layer].tolist()):
            logical_to_physical[layer, expert, seen[expert]] = slot
            seen[expert] += 1
    return tuple(part.to(weight.device) for part in (physical_to_logical, logical_to_physical, expert_count))
