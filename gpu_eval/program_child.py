"""The process in which an untrusted program runs: `python -m gpu_eval.program_child`, its socket as standard input.

It answers requests (`gpu_eval.frames`) one after the other: `start`, then `prepare` and `null` while it is pristine,
`load`, and then `call` and `inspect`. Once the program is loaded, nothing that comes from here is trusted: the parent
bounds and checks every byte and reads its own clock.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_eval.call_watch import CallWatch
from gpu_eval.child_loop import Reply, Request, load_program, serve, take_connection
from gpu_eval.findings import Findings
from gpu_eval.frames import Channel, parse_array
from gpu_eval.tensors import check_tensors
from gpu_eval.timing import fresh, gpu_name

CLOCK = time.perf_counter_ns
MOST_INPUT = 1 << 30
INSPECTED = 6
REST_S = 0.005


class Child:
    """What the requests work on. Each method is one request and returns its answer and the arrays that follow it."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._device = torch.device("cpu")
        self._program: Callable[..., Any] | None = None
        self._null: list[list[Tensor]] = []

    def start(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        torch.set_num_threads(int(request["threads"]))
        self._device = torch.device(request["device"])
        # The context of a device is made here, off every clock.
        torch.zeros(1, device=self._device)
        self._synchronize()
        return {"gpu": gpu_name(self._device) if self._device.type == "cuda" else ""}, []

    def prepare(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Make the outputs of coming null rounds, written once, so that their memory is there."""
        layout = [(np.dtype(name), tuple(extents)) for name, extents in request["outputs"]]
        self._null = [
            [torch.from_numpy(np.ones(extents, dtype)).to(self._device) for dtype, extents in layout]
            for _ in range(int(request["count"]))
        ]
        return {}, []

    def null(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        self._inputs(len(self._null))
        self._synchronize()
        return {"seconds": [0.0] * len(self._null)}, self._null

    def load(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        module = load_program(request["path"])
        self._program = module.rebalance_experts
        return {}, []

    def call(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        program, arguments = self._loaded(), tuple(request["arguments"])
        weights = self._inputs(int(request["count"]))
        seconds, answers = [], []
        self._synchronize()
        gc.disable()
        try:
            for weight in weights:
                begin = CLOCK()
                answer = program(weight, *arguments)
                self._synchronize()
                seconds.append((CLOCK() - begin) / 1e9)
                answers.append(answer)
        finally:
            gc.enable()
        return {"seconds": seconds}, answers

    def inspect(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[Any]]:
        """Call it on fresh values and look at what it does besides its answer."""
        program, arguments = self._loaded(), tuple(request["arguments"])
        base = self._inputs(1)[0]
        findings = Findings()
        watch = CallWatch(
            findings,
            lambda: time.sleep(REST_S),
            verify=lambda outputs, weight: check_tensors(outputs, weight, self._device),
        )
        for number in range(INSPECTED):
            weight = fresh(base, self._device, (int(request["seed"]), number))
            watch.before(weight)
            outputs = program(weight, *arguments)
            self._synchronize()
            watch.after(outputs)
            watch.settle()
        return {"findings": list(findings.sentences())}, []

    def _loaded(self) -> Callable[..., Any]:
        if self._program is None:
            raise ValueError("no program is loaded")
        return self._program

    def _inputs(self, count: int) -> list[Tensor]:
        """`count` arrays from the parent as tensors on the device, each in its own fresh memory."""
        arrays = [parse_array(self._channel.receive_bytes(MOST_INPUT)) for _ in range(count)]
        return [torch.from_numpy(array).to(self._device) for array in arrays]

    def _synchronize(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def as_sent(answer: Any) -> list[NDArray[Any]]:
    """The arrays of one answer; raises ValueError, one line, where it is no list of three tensors of numbers."""
    if not isinstance(answer, tuple | list) or len(answer) != 3:
        raise ValueError("its answer is no tuple of three tensors")
    if not all(isinstance(part, torch.Tensor) for part in answer):
        raise ValueError(f"its answer holds {', '.join(type(part).__name__ for part in answer)}, expected tensors")
    return [part.detach().cpu().numpy() for part in answer]


def main() -> None:
    connection = take_connection()
    child = Child(connection)

    def sending(request: Request) -> Request:
        def answered(given: dict[str, Any]) -> Reply:
            answer, outputs = request(given)
            return answer, [array for output in outputs for array in as_sent(output)]

        return answered

    names = ("start", "prepare", "null", "load", "call", "inspect")
    serve(connection, {name: sending(getattr(child, name)) for name in names})


if __name__ == "__main__":
    main()
