"""Moving the weights of experts from one placement to the next by batched point-to-point messages.

What arrives waits in buffers of its own, so steps may go on with the old placement meanwhile; `commit` then puts it
into the slots. The buffers need as much memory as the slots that change.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .communication import Ints, MovePlan
from .expert_weights import tensors_of
from .grouped_gemm import ExpertWeights
from .ranks import Rank


class WeightMove:
    """One process's part in a move; every process of the group makes one from the same plan and placements."""

    def __init__(
        self,
        plan: MovePlan,
        old: Ints,
        new: Ints,
        weights: Sequence[ExpertWeights],
        rank: Rank,
        group: dist.ProcessGroup,
    ) -> None:
        """`old`, `new` [layers, slots of all]: `weights` hold this process's slots of `old`, a layer each.

        The GPUs of `plan` are processes.
        """
        self._weights = weights
        per_process = old.shape[1] // rank.world
        own = slice(rank.index * per_process, (rank.index + 1) * per_process)
        self._new = new[:, own]
        self._changed = [(int(layer), int(slot)) for layer, slot in zip(*(old != new)[:, own].nonzero(), strict=True)]
        self._held = {
            (layer, int(expert)): slot for layer, row in enumerate(old[:, own]) for slot, expert in enumerate(row)
        }
        self._buffers: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
        for layer, slot in self._changed:
            key = (layer, int(self._new[layer, slot]))
            if key not in self._buffers:
                up, down = tensors_of(weights[layer], slot)
                self._buffers[key] = torch.empty_like(up), torch.empty_like(down)
        self._messages = self._plan_messages(plan, rank, group)

    def _plan_messages(self, plan: MovePlan, rank: Rank, group: dist.ProcessGroup) -> list[list[dist.P2POp]]:
        """Messages of each layer, in the order of the plan, in which both ends of each take them."""
        messages: defaultdict[int, list[dist.P2POp]] = defaultdict(list)
        entries = (plan.layer.tolist(), plan.expert.tolist(), plan.source.tolist(), plan.target.tolist())
        for layer, expert, source, target in zip(*entries, strict=True):
            if source == rank.index:
                for tensor in tensors_of(self._weights[layer], self._held[layer, expert]):
                    messages[layer].append(dist.P2POp(dist.isend, tensor, target, group))
            if target == rank.index:
                for tensor in self._buffers[layer, expert]:
                    messages[layer].append(dist.P2POp(dist.irecv, tensor, source, group))
        return [messages[layer] for layer in sorted(messages)]

    def transfer(self) -> None:
        """Fetch everything into the buffers. On CUDA the current stream waits for it, the host does not."""
        under_way: list[Any] = []
        for messages in self._messages:
            under_way += dist.batch_isend_irecv(messages)
        for (layer, expert), buffers in self._buffers.items():
            if (slot := self._held.get((layer, expert))) is not None:
                for buffer, held in zip(buffers, tensors_of(self._weights[layer], slot), strict=True):
                    buffer.copy_(held)
        for work in under_way:
            work.wait()

    def commit(self) -> None:
        """Put what was transferred into the slots; no step may run meanwhile, and the move is over."""
        for layer, slot in self._changed:
            arrived = self._buffers[layer, int(self._new[layer, slot])]
            for tensor, buffer in zip(tensors_of(self._weights[layer], slot), arrived, strict=True):
                tensor.copy_(buffer)
