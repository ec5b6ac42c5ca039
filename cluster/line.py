"""Who may use a slot next: one job at a time, and clients that wait are served in the order they came.

A client that finds the slot taken stands in line and is told when the slot is kept for it; only then does it choose
which of its jobs to send. So no job waits behind another's while a slot elsewhere is free.
"""

from __future__ import annotations

import asyncio

KEPT_S = 1.0
"""How long a slot is kept for a client that was told so and sends nothing: it has gone away."""


class Line:
    """The door of one slot, for one event loop."""

    def __init__(self, kept_s: float = KEPT_S) -> None:
        self._kept_s = kept_s
        self._running = False
        self._paused = False
        self._kept: str | None = None
        self._keeping: asyncio.TimerHandle | None = None
        self._waiting: dict[str, asyncio.Future[None]] = {}

    @property
    def waiting(self) -> int:
        """Clients in line."""
        return len(self._waiting)

    @property
    def running(self) -> bool:
        """Whether a job is under way."""
        return self._running

    def begin(self, client: str) -> bool:
        """Whether a job of `client` begins now; `end` must follow. No when another runs, is expected, or it is
        paused."""
        if self._running or self._paused or self._kept not in (None, client):
            return False
        self._keep(None)
        self._running = True
        return True

    def end(self) -> bool:
        """The job has ended. Whether the slot is free for anybody: nobody waits and it is not paused."""
        self._running = False
        self._next()
        return self._kept is None and not self._paused

    async def wait(self, client: str) -> None:
        """Stand in line; returns when the slot is kept for `client`. Once per client, however often it is asked."""
        place = self._waiting.get(client)
        if place is None:
            place = self._waiting[client] = asyncio.get_running_loop().create_future()
            self._next()
        await asyncio.shield(place)

    def leave(self, client: str) -> None:
        """`client` has no job for the slot any more."""
        self._waiting.pop(client, None)
        if self._kept == client:
            self._keep(None)
            self._next()

    def pause(self) -> None:
        """Begin nothing more; what runs goes on, and who waits keeps its place."""
        self._paused = True
        if self._kept is not None:
            self._keep(None)

    def resume(self) -> None:
        self._paused = False
        self._next()

    def _next(self) -> None:
        if self._running or self._paused or self._kept is not None or not self._waiting:
            return
        client = next(iter(self._waiting))
        self._waiting.pop(client).set_result(None)
        self._keep(client)

    def _keep(self, client: str | None) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            self._keeping = None
        self._kept = client
        if client is not None:
            self._keeping = asyncio.get_running_loop().call_later(self._kept_s, self.leave, client)
