"""The referee's game of one case: rounds against the clock, every answer verified, quality taken where nobody knows.

The windows that a program is judged on lie among inputs that only cost time, at places drawn anew for each game. Speed
decides how many calls there are: a program that takes long is called for the judged windows alone.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from time import perf_counter_ns
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import InvalidOutput, MalformedOutput, shown
from gpu_eval.balance import gpu_balance, group_violations
from gpu_eval.invariants import PlacementError, check_placement

from . import yardstick
from .problems import Loads, Problem, fresh
from .transport import Rehearsal

Placement = NDArray[np.int64]
Observation = dict[str, Any]
Game = Generator[Observation, Any, dict[str, Any]]

SLOW_S = 0.05
"""A program whose call takes longer gets no inputs that only cost time."""
ROUND_S = 0.004
"""What the calls of a round shall take together, as far as MOST_CALLS allows: a time slice of a busy machine."""
ROUNDS = 9
MOST_CALLS = 8
_REHEARSED = ((8, 64, 72, 8), (58, 256, 288, 32))
"""Layers, experts, slots and GPUs of rehearsals; with few and many calls, narrow and wide maps."""
_REHEARSALS = 6


@dataclass(frozen=True, slots=True)
class Round:
    """Calls against the clock. `told_s` is what the program's side says of their sum."""

    calls: int
    megabytes: float
    seconds: float
    told_s: float


@dataclass(slots=True)
class Played:
    """What came of a game; everything was verified."""

    placements: dict[int, Placement] = field(default_factory=dict)
    """Of the judged windows, by transition."""
    rounds: list[Round] = field(default_factory=list)
    yardstick_s: list[float] = field(default_factory=list)
    """Seconds per call of the yardstick beside each round."""
    judged_ratio: list[float] = field(default_factory=list)
    """Balance of the judged windows over that of the yardstick's placements of them."""
    fresh_ratio: list[float] = field(default_factory=list)
    """The same of inputs that only cost time."""
    rehearsals: list[Rehearsal] = field(default_factory=list)
    odd: dict[str, float] = field(default_factory=dict)
    """Of odd inputs, by name: what each is worth."""

    def plain(self) -> dict[str, Any]:
        """As plain values, which is how a referee gives its result."""
        return asdict(self)


def read_played(raw: Mapping[str, Any]) -> Played:
    """What `Played.plain` gave."""
    rounds = [Round(**each) for each in raw["rounds"]]
    rehearsals = [Rehearsal(**each) for each in raw["rehearsals"]]
    return Played(**{**raw, "rounds": rounds, "rehearsals": rehearsals})


def play(problem: Problem, device: str, rehearse: bool, rng: np.random.Generator) -> Game:
    """The game of one problem on `device` (cpu or cuda).

    Raises InvalidOutput and MalformedOutput for the program's answers, UsageError where the yardstick cannot run.
    """
    played = Played()
    yardstick.ready([problem.shape])
    if rehearse:
        played.rehearsals = yield from _rehearsals(device)
    yield {"op": "load"}
    call_s = yield from _warm_up(problem, device, rng)
    for inputs, judged in _plan(problem, call_s, rng):
        yardstick_first = len(played.rounds) % 2 == 1
        beside = yardstick.placed(inputs, problem.shape) if yardstick_first else None
        placements, timed = yield from _round(problem, inputs, device)
        best, seconds = beside or yardstick.placed(inputs, problem.shape)
        played.rounds.append(timed)
        played.yardstick_s.append(sum(seconds) / len(seconds))
        for index, (window, placement, other) in enumerate(zip(inputs, placements, best, strict=True)):
            ratio = gpu_balance(placement, window, problem.shape.gpus) / gpu_balance(other, window, problem.shape.gpus)
            (played.judged_ratio if index in judged else played.fresh_ratio).append(ratio)
            if index in judged:
                played.placements[judged[index]] = placement
    return played.plain()


def _warm_up(problem: Problem, device: str, rng: np.random.Generator) -> Generator[Observation, Any, float]:
    """Seconds of a call once everything is compiled: the second, where the first was slow."""
    seconds = math.inf
    for _ in range(2):
        _, timed = yield from _round(problem, fresh(problem, 1, rng), device)
        seconds = min(seconds, timed.seconds)
        if seconds < SLOW_S:
            break
    return seconds


def _plan(problem: Problem, call_s: float, rng: np.random.Generator) -> Iterator[tuple[Loads, Mapping[int, int]]]:
    """The inputs of each round, and which of them are judged windows: index in the round -> transition."""
    count = len(problem.transitions)
    if call_s >= SLOW_S:
        for index in rng.permutation(count):
            yield problem.transitions[index].now[None], {0: int(index)}
        return
    calls = min(MOST_CALLS, max(1, math.ceil(ROUND_S / call_s), math.ceil(count / ROUNDS)))
    places = rng.permutation(ROUNDS * calls)[:count]
    for number in range(ROUNDS):
        inputs = fresh(problem, calls, rng)
        judged = {int(place % calls): index for index, place in enumerate(places) if place // calls == number}
        for place, index in judged.items():
            inputs[place] = problem.transitions[index].now
        yield inputs, judged


def _round(problem: Problem, inputs: Loads, device: str) -> Generator[Observation, Any, tuple[list[Placement], Round]]:
    """One round of calls: the placements, all verified, and what it cost."""
    reply, timed = yield from _timed({"op": "rebalance", **_call(inputs, problem.sizes, device)}, len(inputs))
    placements = [verified(answer, problem, f"call {number}") for number, answer in enumerate(reply["answers"])]
    findings = yield {"op": "inspect"}
    if not isinstance(findings, list | tuple):
        raise MalformedOutput(f"{problem.name}: inspect gave {shown(findings)}, expected a list of findings")
    if findings:
        raise InvalidOutput(f"{problem.name}: {_words(findings[0])}")
    return placements, timed


def _timed(observation: Observation, calls: int) -> Generator[Observation, Any, tuple[Mapping[str, Any], Round]]:
    """A round of the protocol and its cost by our clock, arrays there and back included."""
    started = perf_counter_ns()
    reply = yield observation
    seconds = (perf_counter_ns() - started) * 1e-9
    answers = reply.get("answers") if isinstance(reply, Mapping) else None
    told = reply.get("seconds") if isinstance(reply, Mapping) else None
    if not isinstance(answers, list | tuple) or len(answers) != calls:
        raise MalformedOutput(f"expected the maps of {calls} calls, got {shown(answers)}")
    if not isinstance(told, np.ndarray) or told.dtype != np.float64 or told.shape != (calls,):
        raise MalformedOutput(f"expected the seconds of {calls} calls, got {shown(told)}")
    if not (np.isfinite(told).all() and told.min() >= 0):
        raise MalformedOutput("the seconds of calls are not finite and >= 0")
    moved = observation["weights"].nbytes + sum(_nbytes(answer) for answer in answers)
    return reply, Round(calls, moved / 1e6, seconds, float(told.sum()))


def _nbytes(answer: Any) -> int:
    return sum(part.nbytes for part in answer if isinstance(part, np.ndarray)) if isinstance(answer, list) else 0


def _call(windows: Loads, sizes: Sequence[int], device: str) -> Observation:
    compact = windows.astype(np.int32) if windows.max(initial=0) < 2**31 else windows
    return {"weights": compact, "sizes": list(sizes), "device": device}


def verified(answer: Any, problem: Problem, where: str) -> Placement:
    """The expert of each slot, of maps that are exact. Raises InvalidOutput or MalformedOutput, one line."""
    where = f"{problem.name}: {where}"
    if isinstance(answer, str):
        raise MalformedOutput(f"{where}: {_words(answer)}")
    if not isinstance(answer, list | tuple) or len(answer) != 3:
        raise MalformedOutput(f"{where}: expected three maps, got {shown(answer)}")
    phy2log, log2phy, counts = answer
    try:
        check_placement(phy2log, log2phy, counts, problem.shape)
    except PlacementError as error:
        kind = MalformedOutput if error.malformed else InvalidOutput
        raise kind(f"{where}: {error}") from None
    placed: Placement = phy2log.astype(np.int64)
    if problem.grouped and (away := group_violations(placed, problem.shape)).any():
        layer = int(np.argmax(away > 0))
        rule = f"groups must stay on one node each, {problem.shape.groups // problem.shape.nodes} per node"
        raise InvalidOutput(f"{where}: layer {layer}: {away[layer]} slots are off the node of their group; {rule}")
    return placed


def _words(text: Any) -> str:
    return " ".join(str(text)[:300].split()) if isinstance(text, str) else shown(text)


def _rehearsals(device: str) -> Generator[Observation, Any, list[Rehearsal]]:
    """What rounds cost before any of the program's code has run, the first two of each form left out."""
    found = []
    for layers, experts, slots, gpus in _REHEARSED:
        for calls, width in ((1, 2), (MOST_CALLS, 2), (1, 12), (MOST_CALLS, 12)):
            windows = np.ones((calls, layers, experts), np.int64)
            observation = {"op": "rehearse", "width": width, **_call(windows, (slots, 1, 1, gpus), device)}
            for number in range(_REHEARSALS):
                _, timed = yield from _timed(observation, calls)
                if number >= 2:
                    found.append(Rehearsal(calls, timed.megabytes, max(0.0, timed.seconds - timed.told_s)))
    return found
