"""One MoE layer over several processes: dispatch by all-to-all with real split sizes, experts, combine.

A process may play several ranks of the placement (virtual ranks): one exchange serves them all, their experts run one
rank after the other, each timed. Indices come ready-made from `exchange_plan`: routing is not part of a step here.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from .exchange_plan import ExchangePlan
from .expert_weights import some_slots
from .grouped_gemm import ExpertWeights, Groups, Kernel, run_experts


class Clock:
    """Marks in the work of a device: CUDA events in the current stream, the host's clock on CPUs."""

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"

    def mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, start: Any, end: Any) -> float:
        """Between two marks; on CUDA the device must have reached both."""
        return float(start.elapsed_time(end)) / 1000 if self._cuda else float(end - start)


@dataclass(frozen=True, slots=True)
class _Part:
    """The (token, slot) pairs of one virtual rank."""

    rows: Tensor
    gates: Tensor
    """[N, 1]."""
    groups: Groups
    first_slot: int
    end_slot: int


@dataclass(frozen=True, slots=True)
class LayerRoute:
    """An `ExchangePlan` on its device."""

    send_rows: Tensor
    send_splits: list[int]
    receive_splits: list[int]
    parts: tuple[_Part, ...]


def put_route(plan: ExchangePlan, virtual_ranks: int, device: torch.device, dtype: torch.dtype) -> LayerRoute:
    """`plan` as tensors; its slots are those of `virtual_ranks` ranks, as many each."""
    per_rank = len(plan.slot_tokens) // virtual_ranks
    rows = torch.from_numpy(plan.pair_rows).to(device)
    gates = torch.from_numpy(plan.pair_gates).to(device, dtype)[:, None]
    parts, start = [], 0
    for first in range(0, len(plan.slot_tokens), per_rank):
        groups = Groups.of(plan.slot_tokens[first : first + per_rank].tolist(), device)
        end = start + groups.rows
        parts.append(_Part(rows[start:end], gates[start:end], groups, first, first + per_rank))
        start = end
    send_rows = torch.from_numpy(plan.send_rows).to(device)
    return LayerRoute(send_rows, list(plan.send_splits), list(plan.receive_splits), tuple(parts))


def run_layer(
    hidden: Tensor, route: LayerRoute, weights: ExpertWeights, kernel: Kernel, clock: Clock
) -> tuple[Tensor, list[tuple[Any, Any]]]:
    """The layer's output for own tokens [tokens, hidden], and marks before and after each virtual rank's experts."""
    sent = hidden.index_select(0, route.send_rows)
    received = hidden.new_empty(sum(route.receive_splits), hidden.shape[1])
    dist.all_to_all_single(received, sent, route.receive_splits, route.send_splits)
    sums = torch.zeros_like(received)
    marks = []
    for part in route.parts:
        start = clock.mark()
        if part.groups.rows:
            mine = some_slots(weights, part.first_slot, part.end_slot)
            outputs = run_experts(received.index_select(0, part.rows), mine, part.groups, kernel)
            sums.index_add_(0, part.rows, outputs * part.gates)
        marks.append((start, clock.mark()))
    returned = torch.empty_like(sent)
    dist.all_to_all_single(returned, sums, route.send_splits, route.receive_splits)
    return torch.zeros_like(hidden).index_add_(0, route.send_rows, returned), marks


def reference_layer(
    hidden: Tensor, gates: Tensor, choices: Sequence[Sequence[int]], experts: dict[int, ExpertWeights]
) -> Tensor:
    """The same output for a few tokens, float32, one token and expert after the other, to hold `run_layer` against.

    `gates` [tokens, k] and `choices` [tokens, k]; `experts` holds one slot for each expert that is chosen.
    """
    output = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    for token, chosen in enumerate(choices):
        row = hidden[token].float()
        for choice, expert in enumerate(chosen):
            weights = experts[expert]
            gate, up = (weights.up.values[0].float() @ row).chunk(2)
            output[token] += gates[token, choice].float() * (
                weights.down.values[0].float() @ (torch.nn.functional.silu(gate) * up)
            )
    return output
