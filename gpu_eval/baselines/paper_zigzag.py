"""Hierarchical replication and a zigzag over GPUs in tensor operations, after the prose of the ADRS paper.

"Barbarians at the Gate" (arXiv 2510.06189, EPLB case) tells of an evolved balancer that replaces the loop of the greedy
packing by reshaping and transposing a tensor of sorted experts, so that heavy and light ones interleave in a zigzag.
The idea stood in SGLang's tree before (`deepseek_vec`, sglang#8491: sort, reshape to [slots, gpus], flip odd rows).
Written from that prose; the rule of copies and nodes is that of `deepseek.py`, its packing of groups a zigzag, too.
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


def zigzag(load, bins):
    """Items [rows, bins, items / bins] of each bin: by falling load from the first bin to the last, back, and so on."""
    rows, items = load.shape
    turns = load.argsort(dim=1, descending=True, stable=True).view(rows, items // bins, bins)
    turns[:, 1::2] = turns[:, 1::2].flip(2)
    return turns.transpose(1, 2)


def replicate(load, slots):
    """Slots one by one to the item with the largest load per copy, in all rows at once: items of slots, and copies."""
    rows, items = load.shape
    item_of = torch.arange(items).repeat(rows, 1)
    copies = torch.ones(rows, items, dtype=torch.float64)
    one = torch.ones(rows, 1, dtype=torch.float64)
    picked = [item_of]
    for _ in range(slots - items):
        hottest = (load / copies).argmax(dim=1, keepdim=True)
        copies.scatter_add_(1, hottest, one)
        picked.append(hottest)
    return torch.cat(picked, dim=1), copies


def inverse(physical_to_logical, experts):
    """The slots of each expert [L, E, X], ascending, padded with -1, and the copies of each [L, E]."""
    layers, slots = physical_to_logical.shape
    counts = torch.zeros(layers, experts, dtype=torch.int64)
    counts.scatter_add_(1, physical_to_logical, torch.ones_like(physical_to_logical))
    order = physical_to_logical.argsort(dim=1, stable=True)
    held = physical_to_logical.gather(1, order)
    rank = torch.arange(slots) - (counts.cumsum(dim=1) - counts).gather(1, held)
    width = int(counts.max())
    logical_to_physical = torch.full((layers, experts * width), -1)
    logical_to_physical.scatter_(1, held * width + rank, order)
    return logical_to_physical.view(layers, experts, width), counts


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
    groups = zigzag(load.view(layers, num_groups, size).sum(dim=2), num_nodes).reshape(layers, num_groups, 1)
    seated = (groups * size + torch.arange(size)).view(layers, experts)
    on_node = load.gather(1, seated).view(layers * num_nodes, -1)
    seated = seated.view(layers * num_nodes, -1)
    item_of, copies = replicate(on_node, num_replicas // num_nodes)
    packed = zigzag((on_node / copies).gather(1, item_of), num_gpus // num_nodes).flatten(1)
    physical_to_logical = seated.gather(1, item_of.gather(1, packed)).view(layers, num_replicas)
    maps = physical_to_logical, *inverse(physical_to_logical, experts)
    return tuple(part.to(weight.device) for part in maps)
