"""The process of a program that places experts over time: `python -m gpu_eval.placement_child`, as `program_child`.

It answers `start`, `null` while it is pristine, `load` with a config, and then `step` after each window. The program's
state never leaves it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.child_loop import Reply, load_program, serve, take_connection
from gpu_eval.frames import Channel, parse_array

MOST_INPUT = 1 << 28


class Child:
    """What the requests work on; each method is one request."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._step: Any = None
        self._state: Any = None

    def start(self, request: dict[str, Any]) -> Reply:
        return {}, []

    def null(self, request: dict[str, Any]) -> Reply:
        """A step without a program: the placement comes back as it went."""
        _, placement = self._observation()
        return _answer(placement, None)

    def load(self, request: dict[str, Any]) -> Reply:
        module = load_program(request["path"])
        self._step = module.step
        self._state = module.init(request["config"])
        return {}, []

    def step(self, request: dict[str, Any]) -> Reply:
        if self._step is None:
            raise ValueError("no program is loaded")
        given = self._step(self._state, *self._observation())
        if not isinstance(given, tuple) or len(given) not in (2, 3):
            raise ValueError("step gave no (state, placement) or (state, placement, split)")
        self._state = given[0]
        return _answer(given[1], given[2] if len(given) == 3 else None)

    def _observation(self) -> tuple[NDArray[Any], NDArray[Any]]:
        load_window, placement = (parse_array(self._channel.receive_bytes(MOST_INPUT)) for _ in range(2))
        return load_window, placement


def _answer(placement: Any, split: Any) -> Reply:
    parts = {"placement": placement, "split": split}
    for name, part in parts.items():
        if part is not None and type(part) is not np.ndarray:
            raise ValueError(f"step gave a {type(part).__name__} as {name}, expected a numpy array or None")
    told = {name: part is not None for name, part in parts.items()}
    return told, [part for part in parts.values() if part is not None]


def main() -> None:
    channel = take_connection()
    child = Child(channel)
    serve(channel, {name: getattr(child, name) for name in ("start", "null", "load", "step")})


if __name__ == "__main__":
    main()
