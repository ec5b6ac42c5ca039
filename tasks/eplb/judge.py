"""The trusted side: problems, the referee of their games, and what came of them.

Both stages play the same game and differ in where loads and maps lie: `host` on the CPU, one core; `device` on a GPU.
The first case of a split also measures what a round costs before any of the program's code has run: the cases share
one process, and it is loaded in the first of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, Split

from .game import Game, play, read_played
from .odd import Odd, odd_inputs, play_odd
from .problems import Problem, problems
from .recorded import note, recorded_problem
from .scoring import ODD, RECORDED, combined, figures, odd_figures

_FIRST_SEED: dict[Split, int] = {"train": 9_000, "validation": 9_100, "test": 9_200, "stress": 9_300}


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the judge keeps of a case."""

    what: Problem | tuple[Odd, ...]
    first: bool


@dataclass(frozen=True, slots=True)
class Stage:
    """The judge of one stage. `name` is also that of its column of times."""

    name: Literal["host", "device"]
    device: Literal["cpu", "cuda"]
    floor_s: float
    """Seconds per call below which nothing is earned."""

    def cases(self, split: Split) -> list[Case]:
        """Problems of a split, in test also the recorded one where its file is here, in stress odd inputs.

        `public` is a digest that tells cases apart; what a program learns, the referee tells it. Raises UsageError
        when a recorded file is there with another content.
        """
        chosen: list[tuple[str, Problem | tuple[Odd, ...]]] = [
            (f"{split}-{number}", problem) for number, problem in enumerate(problems(split))
        ]
        if split == "test" and (recorded := recorded_problem()) is not None:
            chosen.append((RECORDED, recorded))
        if split == "stress":
            chosen.append((ODD, odd_inputs()))
        return [
            Case(name, _FIRST_SEED[split] + number, _digest(what), Hidden(what, number == 0))
            for number, (name, what) in enumerate(chosen)
        ]

    def referee(self, case: Case) -> Game:
        """Plays a case. Raises InvalidOutput and MalformedOutput for answers that are no placement."""
        hidden: Hidden = case.hidden
        if isinstance(hidden.what, Problem):
            return play(hidden.what, self.device, hidden.first, np.random.default_rng())
        return play_odd(hidden.what, self.device)

    def score(self, case: Case, raw: Mapping[str, Any]) -> dict[str, float]:
        """Figures of one case; `raw` is the referee's own. Raises RewardHacking."""
        hidden: Hidden = case.hidden
        played = read_played(raw)
        return figures(hidden.what, played) if isinstance(hidden.what, Problem) else odd_figures(played)

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """The score of a split. Raises RewardHacking."""
        return combined(results, self.name, self.floor_s)

    def split_note(self, split: Split) -> str | None:
        """Says so when test has no recorded loads because they are not on this machine."""
        return note() if split == "test" else None


STAGES = {
    "host": Stage("host", "cpu", 200e-6),
    "device": Stage("device", "cuda", 50e-6),
}


def for_stage(stage: str) -> Stage:
    """The judge of a stage."""
    return STAGES[stage]


def _digest(what: Any) -> str:
    found = hashlib.sha256()
    for window in [each.now for each in what.transitions] if isinstance(what, Problem) else [o.weight for o in what]:
        found.update(np.ascontiguousarray(window).tobytes())
    return found.hexdigest()
