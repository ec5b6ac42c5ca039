"""A program that places experts over time, in a fresh process, its decisions timed by this one's clock."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.child_process import LOAD_S, ChildProcess, ProgramError
from gpu_eval.frames import parse_array
from gpu_eval.moe_policies import Ask, Ints
from gpu_eval.results import Kind
from gpu_eval.serving_rules import Decision, ServingConfig, check_decision
from gpu_eval.statistics import median

LAUNCHER = (sys.executable, "-m", "gpu_eval.placement_child")
NULL_ROUNDS = 9
STEP_S = 60.0
CLOCK = time.perf_counter


class PlacementProcess(ChildProcess):
    """A process for the program in `source`, a file that defines `init` and `step`. A context manager.

    Every method raises ProgramError.
    """

    def __init__(self, source: Path, *, launcher: Sequence[str] = LAUNCHER) -> None:
        super().__init__(source.stem, launcher, {})
        self._source = source.resolve()

    def null(self, load_window: Ints, placement: Ints) -> float:
        """Seconds of a step that nothing is done in, before the program's source is executed."""
        return self._round("null", load_window, placement)[1]

    def load(self, config: dict[str, Any]) -> None:
        """Execute the program's source and its `init`."""
        self._ask(LOAD_S, {"do": "load", "path": str(self._source), "config": config})

    def step(self, load_window: Ints, placement: Ints) -> tuple[dict[str, NDArray[Any]], float]:
        """What it decided, unchecked, by name; and the seconds between question and answer."""
        return self._round("step", load_window, placement)

    def _round(self, do: str, load_window: Ints, placement: Ints) -> tuple[dict[str, NDArray[Any]], float]:
        with self._guarded(STEP_S) as channel:
            began = CLOCK()
            channel.send({"do": do})
            channel.send_array(load_window)
            channel.send_array(placement)
            answer = channel.receive()
            names = [name for name in ("placement", "split") if answer.get(name) is True]
            frames = [channel.receive_bytes(8 * placement.size) for _ in names]
            seconds = CLOCK() - began
            arrays = {name: parse_array(frame) for name, frame in zip(names, frames, strict=True)}
        self._refuse(answer)
        return arrays, seconds


@dataclass(frozen=True, slots=True)
class ProgramPolicy:
    """A program file as a policy of the bench (`moe_policies.Policy`)."""

    path: Path
    launcher: Sequence[str] = LAUNCHER
    kind: Kind = "program"

    @property
    def name(self) -> str:
        return self.path.stem

    @contextmanager
    def deciding(self, config: ServingConfig, brief: dict[str, Any]) -> Iterator[Ask]:
        shape = config.shape
        try:
            with PlacementProcess(self.path, launcher=self.launcher) as process:
                loads = np.ones((brief["samples"], shape.layers, shape.experts), np.int64)
                placed = np.zeros((shape.layers, shape.slots), np.int64)
                way_s = median([process.null(loads, placed) for _ in range(NULL_ROUNDS)])
                process.load(brief)

                def ask(load_window: Ints, placement: Ints) -> Decision:
                    given, seconds = process.step(load_window, placement)
                    return check_decision(
                        given.get("placement"), given.get("split"), placement, shape, max(0.0, seconds - way_s)
                    )

                yield ask
        except ProgramError as error:
            raise ValueError(str(error)) from None
