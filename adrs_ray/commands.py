"""What people may ask of a run while it goes on: each kind of command with the body it takes.

A command is a file in the run's `commands/` (`adrs steer`, `adrs stop`, `adrs inbox answer`), checked where it is
given and again where it is obeyed, journaled once as COMMAND, and obeyed from the journal: after a resume, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adrs_ray import program
from adrs_ray.config import BudgetConfig, RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.task_spec import describe_validation_error

SAID_CHARS = 150


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Stop(_Body):
    """Drain: what is under way is finished, nothing new is begun."""


class Hint(_Body):
    """Words for the prompts of one island, or of all."""

    text: str = Field(min_length=1, max_length=4000)
    island: int | None = Field(default=None, ge=0)


class Pin(_Body):
    """Draw this candidate as a parent often, wherever it is an elite."""

    candidate: str


class Ban(_Body):
    """Take this candidate out of the running for champion, and out of every archive that holds or held another."""

    candidate: str


class Inject(_Body):
    """Measure this program and give it to every island."""

    source: str = Field(min_length=1, max_length=program.MAX_CHARS)

    @model_validator(mode="after")
    def _is_program(self) -> Inject:
        problem = program.syntax_problem(self.source)
        if problem is not None:
            raise ValueError(f"no Python program that can be evolved: {problem}")
        return self


class Budget(_Body):
    """Other limits: keys of the section `budget` of the config."""

    values: dict[str, int | float | None] = Field(min_length=1)

    @model_validator(mode="after")
    def _known(self) -> Budget:
        unknown = sorted(self.values.keys() - BudgetConfig.model_fields.keys())
        if unknown:
            raise ValueError(
                f"unknown limit {unknown[0]!r}: accepted are {', '.join(sorted(BudgetConfig.model_fields))}"
            )
        endless = sorted(key for key, value in self.values.items() if value is not None and not math.isfinite(value))
        if endless:
            raise ValueError(f"{endless[0]} is no finite number: none takes a limit away")
        return self


class Pause(_Body):
    """Begin nothing new on one island, or on all."""

    island: int | None = Field(default=None, ge=0)


class Continue(Pause):
    """Go on after a pause."""


class Restart(_Body):
    """Cut an island's archive down to its best and the elites most different from it."""

    island: int = Field(ge=0)


class Spawn(_Body):
    """Start one more island. Its number is given when the command is obeyed."""

    island: int | None = Field(default=None, ge=0)


class Retire(_Body):
    """Let an island finish what is under way and end."""

    island: int = Field(ge=0)


class Answer(_Body):
    """Somebody's answer to an open request of the mailbox."""

    request: str
    text: str = Field(max_length=10 * program.MAX_CHARS)


KINDS: Mapping[str, type[_Body]] = {
    "stop": Stop,
    "hint": Hint,
    "pin": Pin,
    "ban": Ban,
    "inject": Inject,
    "budget": Budget,
    "pause": Pause,
    "continue": Continue,
    "restart": Restart,
    "spawn": Spawn,
    "retire": Retire,
    "answer": Answer,
}


def checked(kind: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The body with all its keys. Raises UsageError, one line: what is wrong and what is accepted."""
    model = KINDS.get(kind)
    if model is None:
        raise UsageError(f"unknown command {_short(repr(kind))}: accepted are {', '.join(KINDS)}")
    try:
        return model.model_validate(dict(body)).model_dump()
    except ValidationError as error:
        line = describe_validation_error(error).removeprefix("(top level): ")
        raise UsageError(f"command {kind}: {_short(line)}") from None


def _short(said: str) -> str:
    """What quotes the command itself: its beginning and end are enough."""
    return said if len(said) <= 2 * SAID_CHARS else f"{said[:SAID_CHARS]} ... {said[-SAID_CHARS:]}"


def rebudgeted(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """The config with other limits; None takes one away. Raises UsageError when they cannot be."""
    limits = {**config.budget.model_dump(), **values}
    if limits["max_candidates"] is None:
        raise UsageError("budget.max_candidates cannot be taken away: give a number")
    return override(config, {"budget": limits}, "command budget")
