"""Awaiting an actor call so that an error raised inside comes out as it was raised, with its one line."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TypeVar

from ray.exceptions import RayTaskError

_Result = TypeVar("_Result")


async def answer(call: Awaitable[_Result]) -> _Result:
    """The result of an actor call. Raises what the method raised, and RayActorError when the actor is lost."""
    try:
        return await call
    except RayTaskError as error:
        cause = error.cause
        if isinstance(cause, Exception):
            raise cause from error
        raise
