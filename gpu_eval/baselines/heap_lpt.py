"""DeepSeek's hierarchical rule compiled by numba: one sort, no search for the next copy, a heap of GPUs.

Same rule and balance as `deepseek.py`: groups to nodes, copies within nodes, longest processing time first with a slot
cap; a heap for it as in TensorRT-LLM (moeLoadBalancer.cpp). The loads are sorted once. Experts with several copies are
then a prefix of their node's list, so the next copy goes to one of that prefix or to the first expert behind it, and
the list of copies by size is a merge of the prefix, sorted anew, with the rest. Where no load tells experts apart,
those with fewer copies get the next one, where the reference goes by number. Our own writing.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit


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


@njit(
    "void(float64[:, ::1], int64, int64[::1], int64, int64, int64, int64, int64[::1], int64[::1], float64[::1])",
    error_model="numpy",
)
def replicate(load, layer, seated, low, high, slots, most, order, copies, share):
    """Copies of the experts `seated[low:high]`, which stand by falling load, and their seats by falling load per copy.

    Each free one of `slots` goes to the largest load per copy, among equals to the one with fewer copies, as long as
    it has less than `most`.
    """
    several = low
    for i in range(low, high):
        share[i] = load[layer, seated[i]]
        copies[i] = 1
    for _ in range(slots - (high - low)):
        best = -1
        for i in range(low, min(several + 1, high)):
            if copies[i] < most and (
                best < 0 or share[i] > share[best] or (share[i] == share[best] and copies[i] < copies[best])
            ):
                best = i
        if best == several:
            several += 1
        copies[best] += 1
        share[best] = load[layer, seated[best]] / copies[best]
    prefix = np.empty(several - low, np.int64)
    for i in range(low, several):
        at = i - low
        while at and share[prefix[at - 1]] < share[i]:
            prefix[at] = prefix[at - 1]
            at -= 1
        prefix[at] = i
    ahead, behind = 0, several
    for at in range(low, high):
        if behind == high or (ahead < several - low and share[prefix[ahead]] >= share[behind]):
            order[at] = prefix[ahead]
            ahead += 1
        else:
            order[at] = behind
            behind += 1


@njit(
    "void(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, int64[::1])",
    error_model="numpy",
)
def pack(order, copies, share, low, high, first, bins, capacity, slot):
    """The copies of seats `order[low:high]` into the slots of bins first..first+bins-1, each to the least loaded one.

    Bins with a free slot are a heap by load, then by number.
    """
    heap, total, filled = np.empty(bins, np.int64), np.empty(bins), np.empty(bins, np.int64)
    for b in range(bins):
        heap[b] = b
        total[b] = 0.0
        filled[b] = 0
    size = bins
    for rank in range(low, high):
        seat = order[rank]
        for _ in range(copies[seat]):
            least = heap[0]
            slot[(first + least) * capacity + filled[least]] = seat
            filled[least] += 1
            total[least] += share[seat]
            if filled[least] == capacity:
                size -= 1
                least = heap[size]
            at, child, load = 0, 1, total[least]
            while child < size:
                if child + 1 < size:
                    left, right = heap[child], heap[child + 1]
                    child += total[right] < total[left] or (total[right] == total[left] and right < left)
                below = heap[child]
                if load < total[below] or (load == total[below] and least < below):
                    break
                heap[at] = below
                at, child = child, 2 * child + 1
            heap[at] = least


@njit(
    "int64(float64[:, ::1], int64[:, ::1], int64, float64[:, ::1], int64[:, ::1], int64, int64, int64,"
    " int64[:, ::1], int64[:, ::1])",
    error_model="numpy",
)
def place(load, keys, mask, group_load, group_keys, group_mask, nodes, gpus, phy2log, counts):
    """Experts into the slots of each layer, and their copies; gives the most copies.

    `keys` and `group_keys` hold each layer's experts and groups by rising load, see `by_load`.
    """
    layers, experts = load.shape
    slots, groups = phy2log.shape[1], group_load.shape[1]
    on_node, capacity, width = experts // nodes, slots // gpus, 0
    group_slot, node_of, next_seat = np.empty(groups, np.int64), np.empty(groups, np.int64), np.empty(nodes, np.int64)
    seated, order, copies = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts, np.int64)
    share, slot = np.empty(experts), np.empty(slots, np.int64)
    for layer in range(layers):
        for i in range(groups):
            order[i] = group_mask - (group_keys[layer, groups - 1 - i] & group_mask)
            copies[i] = 1
            share[i] = group_load[layer, i]
        pack(order, copies, share, 0, groups, 0, nodes, groups // nodes, group_slot)
        for i in range(groups):
            node_of[group_slot[i]] = i // (groups // nodes)
        for node in range(nodes):
            next_seat[node] = node * on_node
        for i in range(experts - 1, -1, -1):
            expert = mask - (keys[layer, i] & mask)
            node = node_of[expert // (experts // groups)]
            seated[next_seat[node]] = expert
            next_seat[node] += 1
        for node in range(nodes):
            low, high = node * on_node, (node + 1) * on_node
            replicate(load, layer, seated, low, high, slots // nodes, slots, order, copies, share)
            first = node * (gpus // nodes)
            pack(order, copies, share, low, high, first, gpus // nodes, capacity, slot)
        for s in range(slots):
            phy2log[layer, s] = seated[slot[s]]
        for i in range(experts):
            counts[layer, seated[i]] = copies[i]
            width = max(width, copies[i])
    return width


@njit("void(int64[:, ::1], int64[:, :, ::1])", error_model="numpy")
def invert(phy2log, log2phy):
    """The slots of each expert, ascending, then -1."""
    layers, experts, width = log2phy.shape
    seen = np.empty(experts, np.int64)
    for layer in range(layers):
        for expert in range(experts):
            seen[expert] = 0
            for rank in range(width):
                log2phy[layer, expert, rank] = -1
        for slot in range(phy2log.shape[1]):
            expert = phy2log[layer, slot]
            log2phy[layer, expert, seen[expert]] = slot
            seen[expert] += 1


def by_load(load):
    """Items of each row by rising load as sorted integers, and the mask of the bits that hold the item.

    Doubles >= 0 order like their bits, so the low bits of each can carry the item (the lowest last, to come first
    among equals) and one plain sort does; loads closer than 2^-42 of themselves count as equal.
    """
    mask = (1 << (load.shape[1] - 1).bit_length()) - 1
    keys = load.view(np.int64) & ~mask
    keys |= mask - np.arange(load.shape[1])
    keys.sort(axis=1)
    return keys, mask


def rebalance_experts(weight, num_replicas, num_groups, num_nodes, num_gpus):
    """Placement of `num_replicas` slots for loads `weight` [L, E], on CPU or another device.

    Gives int64 on that device: the expert of each slot [L, P], the slots of each expert [L, E, X] ascending, padded
    with -1 to X = most copies, and the copies of each expert [L, E]. Slot s lies on GPU `s // (P / num_gpus)`.
    Raises ValueError as `loads` says.
    """
    load = loads(weight, num_replicas, num_groups, num_nodes, num_gpus)
    if num_groups % num_nodes:
        num_groups, num_nodes = 1, 1
    layers, experts = load.shape
    with np.errstate(over="ignore"):
        group_load = load.reshape(layers, num_groups, -1).sum(axis=2)
    phy2log = np.empty((layers, num_replicas), np.int64)
    counts = np.empty((layers, experts), np.int64)
    keys, group_keys = by_load(load), by_load(group_load)
    width = place(load, *keys, group_load, *group_keys, num_nodes, num_gpus, phy2log, counts)
    log2phy = np.empty((layers, experts, width), np.int64)
    invert(phy2log, log2phy)
    return tuple(torch.from_numpy(part).to(weight.device) for part in (phy2log, log2phy, counts))
