"""Awaiting an actor call so that an error raised inside comes out as it was raised, with its one line."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from ray.exceptions import (
    ActorUnschedulableError,
    LocalRayletDiedError,
    NodeDiedError,
    OutOfMemoryError,
    RayActorError,
    RayTaskError,
    RuntimeEnvSetupError,
    WorkerCrashedError,
)

_Result = TypeVar("_Result")

LOST = (
    RayActorError,
    ActorUnschedulableError,
    OutOfMemoryError,
    RuntimeEnvSetupError,
    NodeDiedError,
    WorkerCrashedError,
    LocalRayletDiedError,
)
"""What Ray raises for a call to an actor that is lost: how it was lost says which, and only the first is a
RayActorError."""


async def answer(call: Awaitable[_Result]) -> _Result:
    """The result of an actor call. Raises what the method raised, and one of `LOST` when the actor is lost."""
    try:
        return await call
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Exception):
            raise cause from error
        raise
