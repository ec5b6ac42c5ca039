"""One program in the forms in which vLLM and SGLang call theirs, and their policies in the form of ours.

Ours is DeepSeek's: `(weight [layers, experts], num_replicas, num_groups, num_nodes, num_gpus)` to
`(physical_to_logical [layers, slots], logical_to_physical [layers, experts, width], expert_count [layers, experts])`.

vLLM (0.32, `vllm/distributed/eplb/policy/abstract.py`): the same arguments and the old map, `physical_to_logical` alone
comes back. Around it stands a state with a window of loads per physical expert, which is scattered to logical ones,
summed over the window and handed to the policy on the host. SGLang (0.5, `sglang/srt/eplb/eplb_algorithms`): loads with
a leading axis of recorded steps, slots per GPU in place of GPUs, all three maps back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from gpu_eval.invariants import IntArray
from gpu_eval.maps import maps

Maps = tuple[Tensor, Tensor, Tensor]
Program = Callable[[Tensor, int, int, int, int], Maps]


class VllmPolicy(Protocol):
    """vLLM's `rebalance_experts`: `weight` [layers, experts] on the host, the new map [layers, num_replicas] back."""

    def __call__(
        self,
        weight: Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Tensor | None = None,
    ) -> Tensor: ...


class SglangPolicy(Protocol):
    """SGLang's `rebalance_experts`, its choice of algorithm left out: the policy is the algorithm."""

    def __call__(
        self,
        tokens_per_expert: Tensor,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: int | None,
        num_nodes: int,
    ) -> Maps: ...


def as_vllm(program: Program) -> VllmPolicy:
    """`program` as a policy of vLLM: int64 on the host; given the old map, what stays on a GPU keeps its slot."""

    def rebalance_experts(
        weight: Tensor,
        num_replicas: int,
        num_groups: int,
        num_nodes: int,
        num_ranks: int,
        old_global_expert_indices: Tensor | None = None,
    ) -> Tensor:
        phy2log = program(weight, num_replicas, num_groups, num_nodes, num_ranks)[0].to("cpu", torch.int64)
        # After a change of size the old slots mean other GPUs.
        if old_global_expert_indices is None or old_global_expert_indices.shape != phy2log.shape:
            return phy2log
        return keep_slots(phy2log, old_global_expert_indices, num_ranks)

    return rebalance_experts


def from_vllm(policy: VllmPolicy) -> Program:
    """A policy of vLLM as a program: both other maps are made from its map; it is told no old one."""

    def rebalance_experts(weight: Tensor, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Maps:
        phy2log = policy(weight, num_replicas, num_groups, num_nodes, num_gpus)
        return (phy2log, *inverse_maps(phy2log, weight.shape[1]))

    return rebalance_experts


class VllmState:
    """vLLM's state round a policy: it remembers the map, and each window of loads gives the next.

    `phy2log` [layers, replicas] int64 on the host is the map in force. It begins as vLLM's does: expert `s` in slot
    `s`, and again from 0 in the redundant slots.
    """

    def __init__(
        self, policy: VllmPolicy, layers: int, experts: int, replicas: int, groups: int, nodes: int, ranks: int
    ) -> None:
        self._policy = policy
        self._experts = experts
        self._sizes = (replicas, groups, nodes, ranks)
        self.phy2log: Tensor = (torch.arange(replicas) % experts).expand(layers, replicas).contiguous()

    def rebalance(self, load_window: Tensor) -> Tensor:
        """`load_window` [window, layers, experts], tokens per step and logical expert: the new map."""
        weight = load_window.sum(dim=0).cpu()
        self.phy2log = self._policy(weight, *self._sizes, self.phy2log)
        return self.phy2log

    def rebalance_physical(self, load_window: Tensor) -> Tensor:
        """`load_window` [window, layers, replicas], tokens per step and slot under the map in force: the new map."""
        return self.rebalance(logical_window(load_window, self.phy2log, self._experts))


def logical_window(load_window: Tensor, phy2log: Tensor, experts: int) -> Tensor:
    """Loads per slot [window, layers, slots] to loads per expert [window, layers, experts], of the same type."""
    place = phy2log.to(load_window.device, torch.int64).expand_as(load_window)
    logical = load_window.new_zeros((*load_window.shape[:2], experts))
    return logical.scatter_add_(-1, place, load_window)


def as_sglang(program: Program) -> SglangPolicy:
    """`program` as an algorithm of SGLang, for loads [steps, layers, experts] or [layers, experts].

    Steps are summed, as SGLang does for its list version. `logical_to_physical` is padded with -1 to
    `slots - experts + 1` columns, the most copies that an expert can have, whatever the loads. No groups: one.
    """

    def rebalance_experts(
        tokens_per_expert: Tensor,
        num_physical_experts: int,
        num_local_physical_experts: int,
        num_groups: int | None,
        num_nodes: int,
    ) -> Maps:
        weight = tokens_per_expert.sum(dim=0) if tokens_per_expert.ndim == 3 else tokens_per_expert
        gpus = num_physical_experts // num_local_physical_experts
        phy2log, log2phy, counts = program(weight, num_physical_experts, num_groups or 1, num_nodes, gpus)
        missing = num_physical_experts - weight.shape[1] + 1 - log2phy.shape[2]
        # Less than zero cuts columns, which a valid map has only where they are all -1.
        return phy2log, torch.nn.functional.pad(log2phy, (0, missing), value=-1), counts

    return rebalance_experts


def from_sglang(policy: SglangPolicy) -> Program:
    """An algorithm of SGLang as a program: it is told one step."""

    def rebalance_experts(weight: Tensor, num_replicas: int, num_groups: int, num_nodes: int, num_gpus: int) -> Maps:
        return policy(weight.unsqueeze(0), num_replicas, num_replicas // num_gpus, num_groups, num_nodes)

    return rebalance_experts


def inverse_maps(phy2log: Tensor, experts: int) -> tuple[Tensor, Tensor]:
    """`logical_to_physical` (slots ascending, -1 after, as wide as the largest count) and `expert_count` of a map.

    Both int64 on the map's device. The map's values must be 0 to experts - 1.
    """
    log2phy, counts = maps(phy2log.to("cpu", torch.int64).numpy(), experts)
    return torch.from_numpy(log2phy).to(phy2log.device), torch.from_numpy(counts).to(phy2log.device)


def keep_slots(phy2log: Tensor, old: Tensor, gpus: int) -> Tensor:
    """The same experts on the same GPUs as `phy2log`, each in its slot in `old` where it was on that GPU before.

    Both [layers, slots]; int64 on the host comes back. Weights that stay on a GPU then need no copy.
    """
    new_rows, old_rows = (_by_gpu(tensor, gpus) for tensor in (phy2log, old))
    # The k-th copy of an expert on a GPU is matched with its k-th copy there before.
    same = _nth(old_rows)[:, :, None] == _nth(new_rows)[:, None, :]
    kept, taken = same.any(axis=2), same.any(axis=1)
    rows = old_rows.copy()
    rows[~kept] = new_rows[~taken]
    return torch.from_numpy(rows.reshape(phy2log.shape))


def _by_gpu(phy2log: Tensor, gpus: int) -> IntArray:
    rows: IntArray = phy2log.to("cpu", torch.int64).numpy()
    return rows.reshape(rows.shape[0] * gpus, -1)


def _nth(rows: IntArray) -> IntArray:
    """A number per slot that is equal for the k-th copies of one expert in rows of two maps."""
    size = rows.shape[1]
    earlier = (rows[:, :, None] == rows[:, None, :]) & np.tri(size, k=-1, dtype=bool)
    return np.asarray(rows * size + earlier.sum(axis=2))
