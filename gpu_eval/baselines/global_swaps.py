"""Longest processing time first over all GPUs as in `global_lpt.py`, then a few swaps in each layer, compiled by numba.

Each swap is the best exchange between the fullest GPU and any other (bounded swaps as in vllm#37656). Slots lie sorted
on their GPU, so two pointers find the pair whose loads differ by closest to half of what their GPUs differ by, and no
swap makes a duplicate. Our own writing.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit

SWAPS = 8
"""Per layer."""


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
    "int64(int64[::1], int64[::1], float64[::1], int64, int64, int64, int64, int64, int64[::1], float64[::1])",
    error_model="numpy",
)
def pack(order, copies, share, low, high, first, bins, capacity, slot, total):
    """Seats `order[low:high]` into the slots of bins first..first+bins-1, the copies of each onto different bins.

    They go to the least loaded bins with room, which are kept in a line. Gives 1 if a bin had to take two copies.
    """
    line = np.empty(bins, np.int64)
    filled = np.empty(bins, np.int64)
    for b in range(bins):
        line[b] = first + b
        filled[b] = 0
        total[first + b] = 0.0
    size, repeated = bins, 0
    for rank in range(low, high):
        seat = order[rank]
        left = copies[seat]
        while left:
            take = min(left, size)
            left -= take
            repeated |= left > 0
            for at in range(take - 1, -1, -1):
                gpu = line[at]
                slot[gpu * capacity + filled[gpu - first]] = seat
                filled[gpu - first] += 1
                total[gpu] += share[seat]
                if filled[gpu - first] == capacity:
                    size -= 1
                    for k in range(at, size):
                        line[k] = line[k + 1]
                else:
                    while at + 1 < size and total[line[at + 1]] < total[gpu]:
                        line[at] = line[at + 1]
                        at += 1
                    line[at] = gpu
    return repeated


@njit("int64(int64[::1], int64, int64, int64)", error_model="numpy")
def held(slot, low, high, seat):
    """Whether one of slots low..high-1 holds `seat`."""
    for s in range(low, high):
        if slot[s] == seat:
            return 1
    return 0


@njit("void(int64[::1], float64[::1], int64, int64, int64)", error_model="numpy")
def put(slot, share, seat, at, capacity):
    """`seat` in the place of slot `at`; the slots of its bin stay sorted by falling share."""
    low = at - at % capacity
    while at > low and share[slot[at - 1]] < share[seat]:
        slot[at] = slot[at - 1]
        at -= 1
    while at + 1 < low + capacity and share[slot[at + 1]] > share[seat]:
        slot[at] = slot[at + 1]
        at += 1
    slot[at] = seat


@njit("void(int64[::1], float64[::1], float64[::1], int64, int64, int64)", error_model="numpy")
def exchange(slot, share, total, a, b, capacity):
    """The seats of slots `a` and `b`, on two bins, change places."""
    here, there = slot[a], slot[b]
    total[a // capacity] += share[there] - share[here]
    total[b // capacity] += share[here] - share[there]
    put(slot, share, there, a, capacity)
    put(slot, share, here, b, capacity)


@njit("void(int64[::1], float64[::1], float64[::1], int64, int64)", error_model="numpy")
def part(slot, share, total, bins, capacity):
    """A seat that its bin holds twice changes places with the most similar one of another bin of its node."""
    s = 0
    while s < slot.size:
        gpu, best, least = s // capacity, -1, 0.0
        if held(slot, gpu * capacity, s, slot[s]):
            first = (gpu - gpu % bins) * capacity
            for t in range(first, first + bins * capacity):
                gap, other = abs(share[slot[s]] - share[slot[t]]), t - t % capacity
                if (
                    (best < 0 or gap < least)
                    and not held(slot, other, other + capacity, slot[s])
                    and not held(slot, gpu * capacity, (gpu + 1) * capacity, slot[t])
                ):
                    best, least = t, gap
        if best < 0:
            s += 1
        else:
            exchange(slot, share, total, s, best, capacity)
            s = gpu * capacity


@njit("void(int64[::1], float64[::1], float64[::1], int64, int64, int64)", error_model="numpy")
def swap(slot, share, total, bins, capacity, swaps):
    """At most `swaps` times the best exchange between the fullest bin and another of its node."""
    for _ in range(swaps):
        full = 0
        for gpu in range(1, total.size):
            if total[gpu] > total[full]:
                full = gpu
        best, a, b = total[full], -1, -1
        for other in range(full - full % bins, full - full % bins + bins):
            half = (total[full] - total[other]) / 2
            middle = total[full] - half
            if not middle < best:
                continue
            x, y = full * capacity, other * capacity
            while x < (full + 1) * capacity and y < (other + 1) * capacity:
                gain = share[slot[x]] - share[slot[y]]
                after = middle + abs(gain - half)
                if (
                    after < best
                    and not held(slot, other * capacity, (other + 1) * capacity, slot[x])
                    and not held(slot, full * capacity, (full + 1) * capacity, slot[y])
                ):
                    best, a, b = after, x, y
                if gain > half:
                    x += 1
                else:
                    y += 1
        if a < 0:
            return
        exchange(slot, share, total, a, b, capacity)


@njit(
    "int64(float64[:, ::1], int64[:, ::1], int64, int64, int64, int64[:, ::1], int64[:, ::1])",
    error_model="numpy",
)
def place(load, keys, mask, gpus, swaps, phy2log, counts):
    """Experts into the slots of each layer, and their copies; gives the most copies.

    `keys` holds each layer's experts by rising load, see `by_load`.
    """
    layers, experts = load.shape
    slots, width = phy2log.shape[1], 0
    capacity = slots // gpus
    most = max(gpus, -(-slots // experts))
    seated, order, copies = np.empty(experts, np.int64), np.empty(experts, np.int64), np.empty(experts, np.int64)
    share, slot, total = np.empty(experts), np.empty(slots, np.int64), np.empty(gpus)
    for layer in range(layers):
        for i in range(experts):
            seated[i] = mask - (keys[layer, experts - 1 - i] & mask)
        replicate(load, layer, seated, 0, experts, slots, most, order, copies, share)
        if pack(order, copies, share, 0, experts, 0, gpus, capacity, slot, total):
            part(slot, share, total, gpus, capacity)
        swap(slot, share, total, gpus, capacity, swaps)
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
    layers, experts = load.shape
    phy2log = np.empty((layers, num_replicas), np.int64)
    counts = np.empty((layers, experts), np.int64)
    width = place(load, *by_load(load), num_gpus, SWAPS, phy2log, counts)
    log2phy = np.empty((layers, experts, width), np.int64)
    invert(phy2log, log2phy)
    return tuple(torch.from_numpy(part).to(weight.device) for part in (phy2log, log2phy, counts))
