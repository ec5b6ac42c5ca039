"""What a program does besides its answer, seen from outside and off the clock.

What it finds is named in `gpu_eval.findings`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_eval.findings import Findings
from gpu_eval.invariants import PlacementError
from gpu_eval.tensors import InputGuard, overlap, same_values

TASKS = Path("/proc/self/task")


def thread_ids(tasks: Path = TASKS) -> frozenset[int]:
    """The threads of this process, native ones too, as the kernel numbers them; empty where /proc is not."""
    try:
        return frozenset(int(entry.name) for entry in tasks.iterdir() if entry.name.isdigit())
    except OSError:
        return frozenset()


class CallWatch:
    """Watches a program's calls in the order in which they are made: `before`, the call, `after`, perhaps `settle`.

    `verify(outputs, weight)` raises PlacementError for an invalid answer. `rest` pauses long enough for work that is
    under way to show. `threads` as `thread_ids`.
    """

    def __init__(
        self,
        findings: Findings,
        rest: Callable[[], None],
        threads: Callable[[], frozenset[int]] = thread_ids,
        verify: Callable[[Any, Tensor], None] | None = None,
    ) -> None:
        self._findings = findings
        self._rest = rest
        self._threads = threads
        self._verify = verify
        self._calls = 0
        self._alive: frozenset[int] = frozenset()
        self._last: tuple[list[Tensor], list[Tensor]] = ([], [])
        self._streams: dict[torch.device, Any] = {}

    def before(self, weight: Tensor) -> None:
        self._weight = weight
        self._guard = InputGuard(weight)
        self._alive = self._threads()

    def after(self, outputs: object) -> None:
        """Call it right after the clock has stopped."""
        # First of all: what follows may start torch's own threads.
        started = self._threads() - self._alive
        held = tensors_in(outputs)
        copies = [self._copy(tensor) for tensor in held]
        self._calls += 1
        if started:
            self._findings.add("threads left alive", f"call {self._calls} left {len(started)} of its threads")
        if how := self._guard.altered():
            self._findings.add("altered input", f"call {self._calls}: {how}")
        self._look_for_borrowed(held)
        self._last = held, copies
        if self._verify is not None:
            try:
                self._verify(outputs, self._weight)
            except PlacementError as error:
                self._findings.add("invalid output", f"call {self._calls}: {error}")

    def settle(self) -> None:
        """Pause, and see whether the last answer still changes."""
        self._rest()
        if not _unchanged(*self._last):
            self._findings.add("work in flight", f"the answer to call {self._calls} changed after its return")
            self._last = ([], [])

    def _look_for_borrowed(self, held: Sequence[Tensor]) -> None:
        if not _unchanged(*self._last):
            self._findings.add("borrowed buffers", f"call {self._calls} changed the answer to the call before")
        elif any(overlap(tensor, other) for tensor in held for other in self._last[0]):
            self._findings.add("borrowed buffers", f"call {self._calls} answered in the memory of the answer before")
        elif any(overlap(tensor, self._weight) for tensor in held):
            self._findings.add("borrowed buffers", f"call {self._calls} answered in the memory of its input")

    def _copy(self, tensor: Tensor) -> Tensor:
        """Read on a stream of our own, which waits for none of the program's."""
        if tensor.device.type != "cuda":
            return tensor.clone()
        if tensor.device not in self._streams:
            self._streams[tensor.device] = torch.cuda.Stream(tensor.device)
        stream = self._streams[tensor.device]
        with torch.cuda.stream(stream):
            copy = tensor.clone()
        stream.synchronize()
        return copy


def tensors_in(outputs: object) -> list[Tensor]:
    """The tensors and plain arrays in nested tuples, lists and dicts; anything else is passed over."""
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    if type(outputs) is np.ndarray and outputs.dtype.kind in "biuf":
        return [torch.from_numpy(outputs)]
    if isinstance(outputs, dict):
        outputs = list(outputs.values())
    if isinstance(outputs, tuple | list):
        return [tensor for part in outputs for tensor in tensors_in(part)]
    return []


def _unchanged(tensors: Sequence[Tensor], copies: Sequence[Tensor]) -> bool:
    return all(same_values(tensor, copy) for tensor, copy in zip(tensors, copies, strict=True))
