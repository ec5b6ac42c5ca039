"""Loads that were recorded: eight snapshots of DeepSeek load tests, 58 layers x 256 experts, with SGLang.

Snapshots are no series of windows: that one follows another is the order of the file, chosen by nobody. So what
programs make of them is told beside the score, in columns of its own, and never counts.
"""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from pathlib import Path

from adrs_ray.task import data_file, read_spec
from gpu_eval.recorded import load_recorded
from gpu_eval.shapes import SHAPES

from .problems import Loads, Problem, transition

SHAPE = SHAPES[0]
"""288 slots on 32 GPUs and 4 nodes, 8 groups, as in the public evaluator."""

SPEC = Path(__file__).with_name("task.yaml")


def recorded_file() -> Path | None:
    """The file, where it is here. Raises UsageError when one of its name is there with another content."""
    return data_file(read_spec(SPEC).data[0])


def recorded_problem() -> Problem | None:
    """The seven transitions in the order of the file; None where the file is not here.

    Raises UsageError when a file of that name is there with another content.
    """
    path = recorded_file()
    if path is None:
        return None
    transitions = tuple(transition(now, following, SHAPE) for now, following in pairwise(windows(path)))
    return Problem("recorded loads", SHAPE, transitions, "recorded")


@cache
def windows(path: Path) -> tuple[Loads, ...]:
    """The snapshots of the file, [L, E] each, in its order."""
    return tuple(window for trace in load_recorded(path) for window in trace.counts)


def note() -> str | None:
    """A line where the file is not here."""
    if recorded_file() is not None:
        return None
    spec = read_spec(SPEC)
    return f"judged without recorded loads: {spec.data[0].file} is not here (`adrs data pull {spec.name}` fetches it)"
