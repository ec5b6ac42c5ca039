"""The order in which an island's state was touched: noted in a live run, kept in a strict replay.

Every step of an island that changes it, or depends on what changed it, takes its turn here first, and then does its
work without giving up the event loop. Live, a turn comes at once and is noted; the notes travel with settled events.
In a strict replay a turn comes when it is next in the recorded order, however many steps are ready at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence


class Order:
    """Steps by name: `a` ask, `s<candidate>` screen, `q<candidate>:<repeat>` measure again?, `t<candidate>` told,
    `e<decision>` emigrate, `m<decision>:<candidate>` welcome, `n<decision>` scratchpad, `c<command>` command,
    `j<candidate>` injected."""

    def __init__(self, script: Sequence[str] | None = None) -> None:
        """`script`: the recorded order, None in a live run. Behind its end every turn comes at once."""
        self._script = tuple(script or ())
        self._strict = script is not None
        self._position = 0
        self._noted: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def turn(self, step: str) -> None:
        """Wait until the step is next."""
        while self._position < len(self._script) and self._script[self._position] != step:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._position += 1
        self._noted.append(step)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def taken(self) -> tuple[str, ...]:
        """Steps taken since the last call."""
        noted, self._noted = self._noted, []
        return tuple(noted)

    @property
    def strict(self) -> bool:
        """Whether this is a replay."""
        return self._strict

    def asks_left(self) -> int | None:
        """Decisions that the script still has; None in a live run."""
        return self._script[self._position :].count("a") if self._strict else None

    def welcomed(self, decision: int) -> list[str] | None:
        """The migrants that the script welcomes after a decision; None in a live run, and behind the script's end."""
        if self._position >= len(self._script):
            return None
        prefix = f"m{decision}:"
        return [step.removeprefix(prefix) for step in self._script if step.startswith(prefix)]

    def commands(self) -> list[str]:
        """Ids of the commands in the script, in order."""
        return [step[1:] for step in self._script if step.startswith("c")]
