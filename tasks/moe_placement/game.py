"""The referee of a case: shows a window, times the answer, serves the next window under it."""

from __future__ import annotations

import time
from collections.abc import Generator, Mapping
from dataclasses import fields
from statistics import median
from typing import Any

import numpy as np

from adrs_ray.task import InvalidOutput, MalformedOutput, shown
from gpu_eval.invariants import PlacementError
from gpu_eval.serving import Decision, ServingResult, check_decision, serve

from .scenario import Ints, Scenario, initial_placement, told, trace_of

NULL_ROUNDS = 7


def play(scenario: Scenario) -> Generator[Any, Any, dict[str, Any]]:
    """Yields messages to the candidate's process (see adapter.py) and receives its answers; gives a result as plain
    values, for `restored`.

    A decision takes what lies between message and answer by the clock of this process, less the median of NULL_ROUNDS
    such rounds made before the program was executed, when nothing of it could have slowed them. What `init` takes is
    not counted. Raises InvalidOutput for what is no placement or split, MalformedOutput for what is no such array.
    """
    game = serve(trace_of(scenario), scenario.config, scenario.costs, initial_placement(scenario))
    message = _message(next(game))
    null_s = []
    for _ in range(NULL_ROUNDS):
        began = time.perf_counter()
        yield {**message, "null": True}
        null_s.append(time.perf_counter() - began)
    way_s = median(null_s)
    yield {"config": told(scenario)}
    window = 0
    while True:
        began = time.perf_counter()
        answer = yield message
        seconds = max(0.0, time.perf_counter() - began - way_s)
        decision = _decision(answer, message["placement"], scenario, window, seconds)
        try:
            message = _message(game.send(decision))
        except StopIteration as end:
            return _plain(end.value)
        window += 1


def _plain(result: ServingResult) -> dict[str, Any]:
    values = {each.name: getattr(result, each.name) for each in fields(result)}
    return {**values, "splits": list(result.splits)}


def restored(raw: Mapping[str, Any]) -> ServingResult:
    """The result that `play` gave."""
    return ServingResult(**{**raw, "splits": tuple(raw["splits"])})


def _message(observation: tuple[Ints, Ints]) -> dict[str, Any]:
    return {"load_window": observation[0], "placement": observation[1]}


def _decision(answer: Any, current: Ints, scenario: Scenario, window: int, seconds: float) -> Decision:
    if not isinstance(answer, dict) or answer.keys() != {"placement", "split"}:
        said = answer[:200] if isinstance(answer, str) else f"expected a placement, got {shown(answer)}"
        raise MalformedOutput(f"window {window}: {said}")
    placement, split = answer["placement"], answer["split"]
    if isinstance(placement, np.ndarray) and placement.dtype.kind == "u":
        placement = placement.astype(np.int64)
    try:
        return check_decision(placement, split, current, scenario.shape, seconds)
    except PlacementError as error:
        kind = MalformedOutput if error.malformed else InvalidOutput
        said = str(error).replace("physical_to_logical", "the placement")
        raise kind(f"window {window}: {said}") from error
