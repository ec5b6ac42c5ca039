"""The order in which an island's state was touched: noted in a live run, kept in a strict replay.

Every step of an island that changes it, or depends on what changed it, takes its turn here first, and then does its
work without giving up the event loop. Live, a turn comes at once and is noted; the notes travel with settled events,
those behind the last one with an event at the island's end. In a strict replay a turn comes when it is next in the
recorded order, however many steps are ready at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from adrs_ray.errors import RunError
from adrs_ray.storage.journal import Event, EventKind


class Order:
    """Steps by name: `a` ask, `s<candidate>` screen, `g<candidate>:<stage>` on to the next
    stage?, `q<candidate>:<repeat>` measure again?, `d<candidate>` ended,
    `t<candidate>` told, `e<decision>` emigrate, `m<decision>:<candidate>` welcome, `r<decision>` look back for a
    scratchpad, `n<decision>` scratchpad, `c<command>` command, `j<candidate>` injected."""

    def __init__(self, script: Sequence[str] | None = None) -> None:
        """`script`: the recorded order, None in a live run."""
        self._script = tuple(script or ())
        self._strict = script is not None
        self._left = Counter(self._script)
        self._position = 0
        self._noted: list[str] = []
        self._waiting: list[asyncio.Future[None]] = []

    async def turn(self, step: str) -> None:
        """Wait until the step is next. Raises RunError in a replay that takes a step which the recording has not."""
        while self._strict and self._next() != step:
            if not self._left[step]:
                raise RunError(
                    f"replay: step {step} was not recorded: config or code differ "
                    "(`adrs replay --loose` replays completions only)"
                )
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(waiter)
            await waiter
        self._left[step] -= self._strict
        self._position += 1
        self._noted.append(step)
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            if not waiter.done():
                waiter.set_result(None)

    def _next(self) -> str | None:
        return self._script[self._position] if self._position < len(self._script) else None

    def taken(self) -> tuple[str, ...]:
        """Steps taken since the last call."""
        noted, self._noted = self._noted, []
        return tuple(noted)

    @property
    def strict(self) -> bool:
        """Whether this is a replay."""
        return self._strict

    @property
    def asks(self) -> int | None:
        """Decisions in the whole script; None in a live run."""
        return self._script.count("a") if self._strict else None

    def holds(self, step: str) -> bool | None:
        """Whether the script still has this step; None in a live run."""
        return self._left[step] > 0 if self._strict else None

    def welcomed(self, decision: int) -> list[str] | None:
        """The migrants that the script welcomes after a decision; None in a live run."""
        if not self._strict:
            return None
        prefix = f"m{decision}:"
        return [step.removeprefix(prefix) for step in self._script if step.startswith(prefix)]

    def commands(self) -> list[str]:
        """Ids of the commands in the script, in order."""
        return [step[1:] for step in self._script if step.startswith("c")]


def last_steps(name: str, island: int, order: Order) -> Event:
    """GRANT of no more candidates, named after a start of the island: it has ended, after these steps."""
    return Event(f"grant:{name}:end", EventKind.GRANT, None, island, {"count": 0, "ops": list(order.taken())})
