"""One slot as one process sees it: where Ray says that it is, a connection, and after a loss what became of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from cluster.calls import answer
from cluster.dispatch import Answer, UnreachableError, told
from cluster.slot import SlotStatus, Whereabouts
from cluster.wire import Address, ConnectionLostError, WireClient

DEATH_SETTLES_S = 1.0
"""After a lost connection, before it is looked whether the process died: its node may be dying with it."""
PROBE_S = 3.0
"""How long a node or a process is given to say that it lives."""


class RaySlot:
    """One slot as one process sees it (`cluster.dispatch.SlotLink`)."""

    def __init__(self, actor: Any, client: str, where: Whereabouts | None) -> None:
        self._actor = actor
        self._client = client
        self._told = where
        self._wire: WireClient | None = None
        self._greeted = False
        self._lost: Whereabouts | None = None
        self.where = where

    async def meet(self) -> None:
        known, self._told = self._told, None
        where = known or await self._ask()
        if self._wire is not None:
            await self._wire.close()
        self.where, self._greeted = where, False
        self._wire = WireClient(_once(where.address))

    async def _ask(self) -> Whereabouts:
        try:
            where: Whereabouts = await answer(self._actor.whereabouts.remote())
        except UsageError:
            raise
        except Exception as error:  # whatever its start met: it is away, and asked again
            raise UnreachableError(told(error)) from error
        return where

    async def evaluate(self, job: EvaluationJob) -> Answer:
        wire = await self._connected()
        where = self.where
        try:
            given: Answer = await wire.call("evaluate", self._client, job)
            return given
        except UnreachableError:
            raise
        except ConnectionLostError:
            self._lost = where
            raise

    async def stand_in_line(self) -> None:
        await (await self._connected()).call("stand_in_line", self._client)

    async def leave(self) -> None:
        await (await self._connected()).call("leave", self._client)

    async def refusal(self) -> str | None:
        said: str | None = await (await self._connected()).call("refusal")
        return said

    async def status(self) -> SlotStatus:
        said: SlotStatus = await (await self._connected()).call("status")
        return said

    async def died(self) -> bool:
        where, self._lost = self._lost, None
        if where is None:
            return False
        await asyncio.sleep(DEATH_SETTLES_S)
        return not await _process_lives(where) and await _node_lives(where)

    async def close(self) -> None:
        if self._wire is not None:
            await self._wire.close()

    async def _connected(self) -> WireClient:
        """A connection that has answered once: what is lost from then on may have reached the slot."""
        wire = self._wire
        if wire is None:
            raise UnreachableError("not met yet")
        if not self._greeted:
            try:
                await wire.call("refusal")
            except ConnectionLostError as error:
                raise UnreachableError(str(error)) from None
            self._greeted = wire is self._wire
        return wire


def always(address: Address) -> Callable[[], Awaitable[Address]]:
    """For a server that never moves."""

    async def resolve() -> Address:
        return address

    return resolve


def _once(address: Address) -> Callable[[], Awaitable[Address]]:
    """For one connection: whoever would connect again is told that nothing was sent."""
    tries = itertools.count()

    async def resolve() -> Address:
        if next(tries):
            raise UnreachableError("the connection was lost")
        return address

    return resolve


async def _process_lives(where: Whereabouts) -> bool:
    """Whether the process that listened there still does: then only the connection was lost."""
    wire = WireClient(always(where.address))
    try:
        async with asyncio.timeout(PROBE_S):
            await wire.call("refusal")
    except (ConnectionLostError, TimeoutError):
        return False
    finally:
        await wire.close()
    return True


async def _node_lives(where: Whereabouts) -> bool:
    host, port = where.raylet
    if not port:
        return False
    try:
        async with asyncio.timeout(PROBE_S):
            _, writer = await asyncio.open_connection(host, port)
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
