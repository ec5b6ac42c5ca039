"""torch.cuda as far as captured graphs use it: the order of calls is written down, and what CUDA forbids fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

Calls = list[tuple[Any, ...]]


class Stream:
    def __init__(self, name: str, calls: Calls) -> None:
        self.name, self._calls, self.used = name, calls, name == "current"

    def wait_stream(self, other: Stream) -> None:
        self._calls.append(("wait", self.name, other.name))


class RecordedGpu:
    """Events read 1, 2, 3 ... ms. A capture needs a stream that has worked before, and allows no wait and no mark."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: Calls = []
        self.current = Stream("current", self.calls)
        self._capturing = False
        self._ms = iter(range(1, 1000))
        gpu = self

        class Graph:
            def __init__(self) -> None:
                self.number = sum(call[0] == "new" for call in gpu.calls)
                gpu.note("new", self.number)

            def replay(self) -> None:
                gpu.outside("replay", self.number)

            def pool(self) -> tuple[int, int]:
                return self.number, 0

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing

            def record(self) -> None:
                gpu.outside("record")

            def elapsed_time(self, _end: Event) -> int:
                return next(gpu._ms)

        fake: dict[str, Any] = {
            "CUDAGraph": Graph,
            "Event": Event,
            "Stream": lambda _device: Stream("side", self.calls),
            "graph": self._capture,
            "stream": self._use,
            "current_stream": lambda _device=None: self.current,
            "device": lambda _device: contextlib.nullcontext(),
            "synchronize": lambda: self.outside("synchronize"),
        }
        for name, value in fake.items():
            monkeypatch.setattr(torch.cuda, name, value)

    def note(self, *call: Any) -> None:
        self.calls.append(call)

    def outside(self, *call: Any) -> None:
        assert not self._capturing, f"{call[0]} inside a capture"
        self.note(*call)

    @contextlib.contextmanager
    def _use(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        stream.used = True
        try:
            yield
        finally:
            self.current = before

    @contextlib.contextmanager
    def _capture(self, graph: Any, pool: Any = None, *, stream: Stream, capture_error_mode: str) -> Iterator[None]:
        """As torch's own, it leaves its stream in place when what it captures fails."""
        assert capture_error_mode == "thread_local", "other threads use the device, too"
        assert stream.used, f"nothing has run on {stream.name} before the capture"
        self.outside("capture", graph.number, pool, stream.name)
        before, self.current, self._capturing = self.current, stream, True
        try:
            yield
        finally:
            self._capturing = False
        self.note("captured")
        self.current = before
