"""The rule of `heap_lpt.py` in C, compiled once per source and machine into a folder and called through ctypes.

TensorRT-LLM's balancer (moeLoadBalancer.cpp) is native code of the same class. `build(folder)` compiles, so that no
timed call does; without it the first call builds in the user's cache folder. Needs a C compiler. Our own writing.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-shared", "-fPIC", "-std=c99")
SOURCE = r"""#include <stdint.h>
typedef int64_t i64;

/* Copies of the experts seated[low..high), which stand by falling load, and their seats by falling load per copy. */
static void replicate(const double *load, const i64 *seated, i64 low, i64 high, i64 slots,
                      i64 *order, i64 *prefix, i64 *copies, double *share) {
    i64 several = low, ahead = 0;
    for (i64 i = low; i < high; i++) { share[i] = load[seated[i]]; copies[i] = 1; }
    for (i64 k = slots - (high - low); k > 0; k--) {
        i64 best = low, end = several < high ? several + 1 : high;
        for (i64 i = low + 1; i < end; i++)
            if (share[i] > share[best] || (share[i] == share[best] && copies[i] < copies[best])) best = i;
        if (best == several) several++;
        copies[best]++;
        share[best] = load[seated[best]] / (double)copies[best];
    }
    for (i64 i = low; i < several; i++) {
        i64 at = i - low;
        for (; at && share[prefix[at - 1]] < share[i]; at--) prefix[at] = prefix[at - 1];
        prefix[at] = i;
    }
    for (i64 at = low, behind = several; at < high; at++)
        if (behind == high || (ahead < several - low && share[prefix[ahead]] >= share[behind]))
            order[at] = prefix[ahead++];
        else
            order[at] = behind++;
}

/* The copies of order[low..high) into the slots of bins first.., each to the least loaded one with room. */
static void pack(const i64 *order, const i64 *copies, const double *share, i64 low, i64 high, i64 first, i64 bins,
                 i64 capacity, i64 *slot, i64 *heap, i64 *filled, double *total) {
    i64 size = bins;
    for (i64 b = 0; b < bins; b++) { heap[b] = b; total[b] = 0; filled[b] = 0; }
    for (i64 rank = low; rank < high; rank++)
        for (i64 seat = order[rank], k = copies[seat]; k > 0; k--) {
            i64 least = heap[0], at = 0, child = 1;
            slot[(first + least) * capacity + filled[least]++] = seat;
            total[least] += share[seat];
            if (filled[least] == capacity) least = heap[--size];
            for (double sum = total[least]; child < size; child = 2 * at + 1) {
                if (child + 1 < size) {
                    i64 left = heap[child], right = heap[child + 1];
                    child += total[right] < total[left] || (total[right] == total[left] && right < left);
                }
                i64 below = heap[child];
                if (sum < total[below] || (sum == total[below] && least < below)) break;
                heap[at] = below;
                at = child;
            }
            heap[at] = least;
        }
}

/* ints: 5 * experts + 2 * groups + nodes + slots + 2 * max(gpus, nodes); doubles: experts + max(gpus, nodes). */
i64 place(const double *load, const i64 *keys, i64 mask, const double *group_load, const i64 *group_keys,
          i64 group_mask, i64 layers, i64 experts, i64 groups, i64 slots, i64 nodes, i64 gpus,
          i64 *ints, double *share, i64 *phy2log, i64 *counts) {
    i64 on_node = experts / nodes, on_gpu = slots / gpus, node_gpus = gpus / nodes, most = 0, size = experts / groups;
    i64 *seated = ints, *order = seated + experts, *prefix = order + experts, *copies = prefix + experts;
    i64 *node_of_expert = copies + experts, *group_slot = node_of_expert + experts, *node_of = group_slot + groups;
    i64 *next = node_of + groups, *slot = next + nodes, *heap = slot + slots, *filled = heap + gpus;
    double *total = share + experts;
    for (i64 layer = 0; layer < layers; layer++) {
        for (i64 i = 0; i < groups; i++) {
            order[i] = group_mask - (group_keys[groups - 1 - i] & group_mask);
            copies[i] = 1;
            share[i] = group_load[i];
        }
        pack(order, copies, share, 0, groups, 0, nodes, groups / nodes, group_slot, heap, filled, total);
        for (i64 i = 0; i < groups; i++) node_of[group_slot[i]] = i / (groups / nodes);
        for (i64 e = 0; e < experts; e++) node_of_expert[e] = node_of[e / size];
        for (i64 node = 0; node < nodes; node++) next[node] = node * on_node;
        for (i64 i = experts - 1; i >= 0; i--) {
            i64 expert = mask - (keys[i] & mask);
            seated[next[node_of_expert[expert]]++] = expert;
        }
        for (i64 node = 0; node < nodes; node++) {
            i64 low = node * on_node, high = low + on_node;
            replicate(load, seated, low, high, slots / nodes, order, prefix, copies, share);
            pack(order, copies, share, low, high, node * node_gpus, node_gpus, on_gpu, slot, heap, filled, total);
        }
        for (i64 s = 0; s < slots; s++) phy2log[s] = seated[slot[s]];
        for (i64 i = 0; i < experts; i++) {
            counts[seated[i]] = copies[i];
            if (copies[i] > most) most = copies[i];
        }
        load += experts; keys += experts; group_load += groups; group_keys += groups;
        phy2log += slots; counts += experts;
    }
    return most;
}

/* The slots of each expert, ascending, then -1; seen holds one number per expert. */
void invert(const i64 *phy2log, i64 layers, i64 slots, i64 experts, i64 width, i64 *seen, i64 *log2phy) {
    for (i64 layer = 0; layer < layers; layer++, phy2log += slots, log2phy += experts * width) {
        for (i64 k = 0; k < experts * width; k++) log2phy[k] = -1;
        for (i64 e = 0; e < experts; e++) seen[e] = 0;
        for (i64 s = 0; s < slots; s++) log2phy[phy2log[s] * width + seen[phy2log[s]]++] = s;
    }
}
"""
built = {}
"""The library by function name, once there is one."""


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


def build(folder):
    """Compiles into `folder` unless that is done, and loads the library for this process; gives its path.

    Raises RuntimeError, one line, without a compiler or when it fails.
    """
    digest = hashlib.sha256(" ".join((SOURCE, *FLAGS, platform.machine())).encode()).hexdigest()[:16]
    library = Path(folder) / f"heap_lpt-{digest}.so"
    if not library.exists():
        compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
        if compiler is None:
            raise RuntimeError(f"heap_lpt_c needs a C compiler, none of {', '.join(COMPILERS)} was found")
        library.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=library.parent) as scratch:
            result = Path(scratch) / "result.so"
            command = [compiler, *FLAGS, "-x", "c", "-", "-o", str(result)]
            done = subprocess.run(command, input=SOURCE, text=True, capture_output=True)
            if done.returncode:
                raise RuntimeError(f"{compiler} failed: {(done.stderr.strip() or 'no message').splitlines()[0]}")
            os.replace(result, library)
    functions = ctypes.CDLL(str(library))
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    functions.place.restype = number
    functions.place.argtypes = [pointer, pointer, number, pointer, pointer, *[number] * 7, *[pointer] * 4]
    functions.invert.restype = None
    functions.invert.argtypes = [pointer, number, number, number, number, pointer, pointer]
    built.update(place=functions.place, invert=functions.invert)
    return library


def cache_folder():
    """Where the library lies: in the folder of a build step that was, else in the user's cache."""
    if built_before := os.environ.get("ADRS_BUILD_DIR"):
        return Path(built_before)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adrs-ray"


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
    Raises ValueError as `loads` says, RuntimeError as `build` does.
    """
    load = loads(weight, num_replicas, num_groups, num_nodes, num_gpus)
    if not built:
        build(cache_folder())
    if num_groups % num_nodes:
        num_groups, num_nodes = 1, 1
    layers, experts = load.shape
    with np.errstate(over="ignore"):
        group_load = load.reshape(layers, num_groups, -1).sum(axis=2)
    (keys, mask), (group_keys, group_mask) = by_load(load), by_load(group_load)
    ints = np.empty(5 * experts + 2 * num_groups + num_nodes + num_replicas + 2 * num_gpus, np.int64)
    shares = np.empty(experts + num_gpus)
    phy2log = np.empty((layers, num_replicas), np.int64)
    counts = np.empty((layers, experts), np.int64)
    sizes = (layers, experts, num_groups, num_replicas, num_nodes, num_gpus)
    inputs = (load.ctypes.data, keys.ctypes.data, mask, group_load.ctypes.data, group_keys.ctypes.data, group_mask)
    scratch = (ints.ctypes.data, shares.ctypes.data)
    width = built["place"](*inputs, *sizes, *scratch, phy2log.ctypes.data, counts.ctypes.data)
    log2phy = np.empty((layers, experts, width), np.int64)
    arrays = (ints.ctypes.data, log2phy.ctypes.data)
    built["invert"](phy2log.ctypes.data, layers, num_replicas, experts, width, *arrays)
    return tuple(torch.from_numpy(part).to(weight.device) for part in (phy2log, log2phy, counts))
