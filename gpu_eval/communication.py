"""What tokens and expert weights cost on the network: dispatch and combine of a layer, and moves of experts.

Model of a step (after DeepEP's normal kernels, github.com/deepseek-ai/DeepEP): every GPU is the source of an equal
share of the tokens. A token crosses once to every other node that holds an expert of its, by InfiniBand, to the GPU of
its source's index there, and from that GPU once by NVLink to every other GPU of the node that needs it, however many
of its experts lie there. Dispatch carries fp8 values with scales, combine goes the same ways back in bf16. The two
networks work at the same time, each full duplex; a GPU's time on each is max(bytes in, bytes out) / bandwidth, and the
slower one counts, plus a fixed time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .precision import token_bytes
from .shapes import ExpertSize, Shape

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
_TABLE = 1 << 20
"""Entries of a dense table of (layer, owner, expert): small enough for caches, however many layers are stacked."""


@dataclass(frozen=True, slots=True)
class Network:
    """Usable bandwidth of one GPU, one way, in 1e9 bytes a second, and the fixed time of one collective exchange."""

    name: str
    nvlink_gb_s: float
    ib_gb_s: float
    fixed_us: float
    origin: str
    """Where each number comes from."""


_IB = "InfiniBand 400 Gb/s: 45 of 50 GB/s (DeepEP V1 README: 43 to 47 on ConnectX-7)"
_FIXED = "fixed time: assumed, launches and one barrier of a dispatch or a combine; nothing here was measured by us"
NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            "h100", 350.0, 45.0, 10.0, f"NVLink 4, H100 and H200: 350 of 450 GB/s one way, assumed; {_IB}; {_FIXED}"
        ),
        Network(
            "h800", 150.0, 45.0, 10.0, f"NVLink of H800: DeepEP V1 README, 153 to 158 GB/s, rounded; {_IB}; {_FIXED}"
        ),
    )
}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Tokens that must be present at each GPU [L, G] and at each node [L, N], every token once, wherever it starts."""

    gpu_tokens: Floats
    node_tokens: Floats

    def scaled(self, factor: float) -> Traffic:
        """The same mix with `factor` times the tokens, for traffic taken from a sample of a step's tokens."""
        return Traffic(self.gpu_tokens * factor, self.node_tokens * factor)


def expected_traffic(phy2log: Ints, slot_tokens: Floats | Ints, shape: Shape, top_k: int) -> Traffic:
    """Traffic when only the tokens of each slot [L, P] are known, experts of a token drawn independently of each other.

    A layer has T = sum / `top_k` tokens; one of them needs GPU g with probability 1 - prod_e (1 - n[g, e] / T) over the
    experts on g. Copies of one expert exclude each other, so that two of them on a GPU count as one with both shares.
    Blind to which experts are chosen together: `exact_traffic` sees that.
    """
    tokens = np.asarray(slot_tokens, dtype=np.float64)
    total = tokens.sum(axis=1) / top_k
    share = np.minimum(tokens / np.where(total > 0, total, 1.0)[:, None], 1.0)
    gpu_of_slot = np.arange(phy2log.shape[1]) // shape.slots_per_gpu
    at_gpu = _reached(phy2log, share, gpu_of_slot, shape.gpus, shape.experts)
    at_node = _reached(phy2log, share, gpu_of_slot // shape.gpus_per_node, shape.nodes, shape.experts)
    return Traffic(at_gpu * total[:, None], at_node * total[:, None])


def _reached(phy2log: Ints, share: Floats, owner_of_slot: Ints, owners: int, experts: int) -> Floats:
    """Chance [L, owners] that a token needs at least one expert of an owner."""
    reached = np.empty((len(phy2log), owners))
    block = max(1, _TABLE // (owners * experts))
    for start in range(0, len(phy2log), block):
        part = phy2log[start : start + block]
        cells = (np.arange(len(part))[:, None] * owners + owner_of_slot) * experts + part
        table = np.bincount(cells.ravel(), weights=share[start : start + block].ravel())
        used = np.flatnonzero(table > 0)
        with np.errstate(divide="ignore"):
            kept_away = np.log1p(-np.minimum(table[used], 1.0))
        missed = np.bincount(used // experts, weights=kept_away, minlength=len(part) * owners)
        reached[start : start + block] = -np.expm1(missed).reshape(-1, owners)
    return reached


def exact_traffic(
    choices: npt.NDArray[np.integer], phy2log: Ints, shape: Shape, split: Floats | None = None
) -> Traffic:
    """Traffic of given tokens: `choices` [L, T, top_k], the experts of each token, under the placement [L, P].

    The tokens of an expert are dealt to its copies in their order, evenly spread, by `split` [L, P] (shares of each
    expert's tokens, 1 in sum over its copies; None: equal shares).
    """
    gpus = np.empty((len(phy2log), shape.gpus))
    nodes = np.empty((len(phy2log), shape.nodes))
    for layer, chosen in enumerate(choices):
        slots = _deal(chosen.astype(np.int64), phy2log[layer], None if split is None else split[layer], shape.experts)
        needed = np.zeros((len(chosen), shape.gpus), dtype=np.bool_)
        np.put_along_axis(needed, slots // shape.slots_per_gpu, True, axis=1)
        gpus[layer] = needed.sum(axis=0)
        nodes[layer] = needed.reshape(len(chosen), shape.nodes, -1).any(axis=2).sum(axis=0)
    return Traffic(gpus, nodes)


def _deal(chosen: Ints, phy2log: Ints, split: Floats | None, experts: int) -> Ints:
    """The slot of every choice [T, top_k]; successive tokens of an expert follow the golden-ratio sequence."""
    copies = np.bincount(phy2log, minlength=experts)
    share = 1.0 / copies[phy2log] if split is None else split
    by_expert = np.argsort(phy2log, kind="stable")
    ends = np.cumsum(copies)
    running = np.cumsum(share[by_expert])
    before = np.concatenate(([0.0], running))[(ends - copies)[phy2log[by_expert]]]
    marks = phy2log[by_expert] + running - before
    flat = chosen.ravel()
    turn = equal_before(flat, experts)
    golden = (5**0.5 - 1) / 2
    found = np.searchsorted(marks, flat + (turn + 0.5) * golden % 1.0, side="right")
    slot: Ints = by_expert[np.clip(found, (ends - copies)[flat], ends[flat] - 1)]
    return slot.reshape(chosen.shape)


def equal_before(values: Ints, kinds: int) -> Ints:
    """How many of the values before each one [N] are equal to it; values are 0 to `kinds` - 1."""
    order = np.argsort(values, kind="stable")
    counts = np.bincount(values, minlength=kinds)
    before = np.empty(len(values), dtype=np.int64)
    before[order] = np.arange(len(values)) - (np.cumsum(counts) - counts)[values[order]]
    return before


def exchange_seconds(traffic: Traffic, shape: Shape, size: ExpertSize, network: Network) -> Floats:
    """Seconds [L, G] that dispatch and combine of a layer take at each GPU, by the model of this module."""
    nodes, local = shape.nodes, shape.gpus_per_node
    gpu = traffic.gpu_tokens.reshape(-1, nodes, local)
    node = traffic.node_tokens
    nvlink_in = gpu * (1 - 1 / local)
    nvlink_out = (gpu.sum(axis=2, keepdims=True) - gpu) / local
    ib_in = node / local * (1 - 1 / nodes)
    ib_out = (node.sum(axis=1, keepdims=True) - node) / shape.gpus
    bytes_both = token_bytes(size.hidden, "fp8") + token_bytes(size.hidden, "bf16")
    nvlink = np.maximum(nvlink_in, nvlink_out) / (network.nvlink_gb_s * 1e9)
    ib = np.maximum(ib_in, ib_out)[:, :, None] / (network.ib_gb_s * 1e9)
    fixed = 2 * network.fixed_us * 1e-6 if shape.gpus > 1 else 0.0
    seconds: Floats = np.maximum(nvlink, ib) * bytes_both + fixed
    return seconds.reshape(-1, shape.gpus)


@dataclass(frozen=True, slots=True)
class MovePlan:
    """Copies of experts from GPU to GPU, one entry each: `layer`, `expert`, `source` and `target` (GPUs), all [M].

    `changed_slots` counts slots that hold another expert than before, those included that copy it from a slot of their
    own GPU or share one fetched copy, which costs no network.
    """

    layer: Ints
    expert: Ints
    source: Ints
    target: Ints
    changed_slots: int

    @property
    def fetches(self) -> int:
        return len(self.layer)


def plan_moves(old: Ints, new: Ints, shape: Shape, layer_by_layer: bool = False) -> MovePlan:
    """How GPUs come to hold placement `new` [L, P] when they hold `old` [L, P].

    A GPU fetches each expert that it lacked once. Sources are GPUs that held it in `old`: of its own node where one
    did, among equals the one that has sent least so far over that network (greedy, fetches without choice first, then
    by layer, expert and GPU). All layers are copied at once, or `layer_by_layer`: then what was sent for another layer
    does not count. ValueError when the two differ in shape or an expert of `new` lies nowhere in `old`.
    """
    if old.shape != new.shape:
        raise ValueError(f"placements differ in shape: {list(old.shape)} before, {list(new.shape)} after")
    held, wanted = _holders(old, shape), _holders(new, shape)
    layer_expert, target = np.divmod(np.flatnonzero(wanted & ~held), shape.gpus)
    owners, holder = np.divmod(np.flatnonzero(held), shape.gpus)
    first = np.searchsorted(owners, layer_expert)
    copies = np.searchsorted(owners, layer_expert, side="right") - first
    if (copies == 0).any():
        layer, expert = divmod(int(layer_expert[copies == 0][0]), shape.experts)
        raise ValueError(f"expert {expert} of layer {layer} lies on no GPU in the old placement, expected at least one")
    together = layer_expert // shape.experts if layer_by_layer else np.zeros_like(layer_expert)
    source = _sources(holder, first, copies, target, together, shape)
    changed = int((old != new).sum())
    return MovePlan(layer_expert // shape.experts, layer_expert % shape.experts, source, target, changed)


def _holders(placement: Ints, shape: Shape) -> npt.NDArray[np.bool_]:
    """Whether a GPU holds an expert, flat, by (layer, expert, GPU)."""
    layer, gpu = np.arange(len(placement))[:, None], np.arange(shape.slots) // shape.slots_per_gpu
    held = np.zeros(len(placement) * shape.experts * shape.gpus, dtype=np.bool_)
    held[(layer * shape.experts + placement) * shape.gpus + gpu] = True
    return held


def _sources(holder: Ints, first: Ints, copies: Ints, target: Ints, together: Ints, shape: Shape) -> Ints:
    """The GPU that sends each fetch; `holder[first : first + copies]` are those that can, and what `together` numbers
    alike is sent at once."""
    local = shape.gpus_per_node
    source: Ints = holder[first]
    forced = copies == 1
    near = source // local == target // local
    rounds = int(together[-1]) + 1 if len(together) else 0
    ends = together * shape.gpus + source
    sent_near, sent_far = (
        np.bincount(ends[forced & flag], minlength=rounds * shape.gpus).reshape(rounds, shape.gpus).tolist()
        for flag in (near, ~near)
    )
    holders = holder.tolist()
    choices = np.flatnonzero(~forced)
    able_from, able_to = first[choices].tolist(), (first + copies)[choices].tolist()
    nodes, turns = (target[choices] // local).tolist(), together[choices].tolist()
    for index, start, end, node, turn in zip(choices.tolist(), able_from, able_to, nodes, turns, strict=True):
        able = holders[start:end]
        mates = [gpu for gpu in able if gpu // local == node]
        load = (sent_near if mates else sent_far)[turn]
        best = min(mates or able, key=load.__getitem__)
        load[best] += 1
        source[index] = best
    return source


def plan_seconds(plan: MovePlan, shape: Shape, bytes_per_expert: int, network: Network) -> float:
    """Seconds of a plan's copies at once: its busiest end, in or out, NVLink and InfiniBand apart; 0 without any."""
    if not plan.fetches:
        return 0.0
    near = plan.source // shape.gpus_per_node == plan.target // shape.gpus_per_node
    busiest = [
        max(np.bincount(end[link], minlength=1).max() for end in (plan.source, plan.target)) for link in (near, ~near)
    ]
    seconds = max(busiest[0] / network.nvlink_gb_s, busiest[1] / network.ib_gb_s) * bytes_per_expert * 1e-9
    return float(seconds) + network.fixed_us * 1e-6


def move_seconds(old: Ints, new: Ints, shape: Shape, bytes_per_expert: int, network: Network) -> float:
    """Seconds to move from placement `old` to `new` [L, P]: `plan_moves`, then `plan_seconds`."""
    return plan_seconds(plan_moves(old, new, shape), shape, bytes_per_expert, network)
