"""The ledger as a Ray actor beside the run folder, and its client.

Calls are at-least-once: events carry ids, grants carry request names, so that asking again changes nothing. When the
actor is lost Ray starts it again; it joins the run's epoch and rebuilds its counts from the journal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError
from adrs_ray.ledger import Ledger, RunPast, RunStatus
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.sqlite import SqliteJournal
from cluster.calls import answer

RETRY_FOR_S = 60.0
"""How long a client waits for a lost ledger to come back."""

_Result = TypeVar("_Result")


class LedgerActor:
    """`adrs_ray.ledger.Ledger` in a process of its own."""

    def __init__(self, journal: str, epoch: int, config: dict[str, Any]) -> None:
        self._path = Path(journal)
        self._epoch = epoch
        self._config = parse_config(config, "ledger actor")
        self._opening: asyncio.Task[Ledger] | None = None

    async def _ledger(self) -> Ledger:
        """Opened at the first call, not when the actor is made: a journal that refuses is then that call's error."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await self._opening

    async def _open(self) -> Ledger:
        journal = await asyncio.to_thread(SqliteJournal.join, self._path, self._epoch)
        return await Ledger.open(journal, self._config)

    async def append_all(self, appends: list[tuple[Sequence[Event], int]]) -> list[list[Event] | Exception]:
        """Several appends (batch, epoch) at once; one outcome each."""
        ledger = await self._ledger()
        outcomes = await asyncio.gather(*(ledger.append(*append) for append in appends), return_exceptions=True)
        return [outcome if isinstance(outcome, list) else _as_exception(outcome) for outcome in outcomes]

    async def read(
        self, after_seq: int, kinds: list[EventKind] | None, island: int | None, limit: int | None
    ) -> list[Event]:
        return await (await self._ledger()).read(after_seq, kinds, island, limit)

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        return await (await self._ledger()).find(ids)

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return await (await self._ledger()).texts(refs)

    async def request(self, batch: Sequence[Event], epoch: int) -> list[Event] | None:
        return await (await self._ledger()).request(batch, epoch)

    async def grant(self, island: int, want: int, request: str) -> int:
        return await (await self._ledger()).grant(island, want, request)

    async def give_back(self, island: int, count: int, request: str) -> None:
        await (await self._ledger()).give_back(island, count, request)

    async def reopen(self, island: int, pending: int, request: str) -> None:
        await (await self._ledger()).reopen(island, pending, request)

    async def start_epoch(self) -> None:
        await (await self._ledger()).start_epoch()

    async def status(self) -> RunStatus:
        return await (await self._ledger()).status()

    async def past(self) -> RunPast:
        return await (await self._ledger()).past()

    async def close_purse(self) -> None:
        await (await self._ledger()).close_purse()

    async def close(self) -> None:
        if self._opening is not None:
            await (await self._opening).close()


def start_ledger(journal: Path, epoch: int, config: RunConfig) -> Any:
    """The ledger actor on this node, where the journal's disk is."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor = ray.remote(LedgerActor).options(
        num_cpus=0, max_restarts=-1, max_concurrency=1000, scheduling_strategy=here, name=None
    )
    return actor.remote(str(journal), epoch, config.model_dump())


class RayLedger:
    """The client: one per event loop. Appends that arrive while one call is under way travel together in the next."""

    def __init__(self, actor: Any, epoch: int) -> None:
        self._actor = actor
        self._epoch = epoch
        self._waiting: list[tuple[Sequence[Event], int, asyncio.Future[list[Event]]]] = []
        self._flusher: asyncio.Task[None] | None = None

    @property
    def epoch(self) -> int:
        return self._epoch

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        future: asyncio.Future[list[Event]] = asyncio.get_running_loop().create_future()
        self._waiting.append((batch, epoch, future))
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await future

    async def _flush(self) -> None:
        while self._waiting:
            waiting, self._waiting = self._waiting, []
            outcomes: list[list[Event] | Exception]
            try:
                outcomes = await self._append_all([(batch, epoch) for batch, epoch, _ in waiting])
            except Exception as error:  # the boundary of this task: it is raised where append() is awaited
                outcomes = [error] * len(waiting)
            for (_, _, future), outcome in zip(waiting, outcomes, strict=True):
                if future.done():
                    continue
                if isinstance(outcome, Exception):
                    future.set_exception(outcome)
                else:
                    future.set_result(outcome)

    async def _append_all(self, appends: list[tuple[Sequence[Event], int]]) -> list[list[Event] | Exception]:
        return await self._insist(lambda: self._actor.append_all.remote(appends))

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        chosen = None if kinds is None else list(kinds)
        return await self._insist(lambda: self._actor.read.remote(after_seq, chosen, island, limit))

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        return await self._insist(lambda: self._actor.find.remote(ids)) if ids else {}

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return await self._insist(lambda: self._actor.texts.remote(refs)) if refs else {}

    async def request(self, batch: Sequence[Event], epoch: int) -> list[Event] | None:
        return await self._insist(lambda: self._actor.request.remote(batch, epoch))

    async def grant(self, island: int, want: int, request: str) -> int:
        return await self._insist(lambda: self._actor.grant.remote(island, want, request))

    async def give_back(self, island: int, count: int, request: str) -> None:
        await self._insist(lambda: self._actor.give_back.remote(island, count, request))

    async def reopen(self, island: int, pending: int, request: str) -> None:
        await self._insist(lambda: self._actor.reopen.remote(island, pending, request))

    async def start_epoch(self) -> None:
        await self._insist(lambda: self._actor.start_epoch.remote())

    async def status(self) -> RunStatus:
        return await self._insist(lambda: self._actor.status.remote())

    async def past(self) -> RunPast:
        return await self._insist(lambda: self._actor.past.remote())

    async def close_purse(self) -> None:
        await self._insist(lambda: self._actor.close_purse.remote())

    async def close(self) -> None:
        while self._flusher is not None and not self._flusher.done():
            await self._flusher
        await self._insist(lambda: self._actor.close.remote())

    async def _insist(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Make a call; when the actor is away, make it again until it is back. Every call is idempotent."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + RETRY_FOR_S
        while True:
            try:
                return await answer(call())
            except RayActorError as error:
                if loop.time() >= give_up:
                    raise RunError(f"the journal's actor is lost: {' '.join(str(error).split())[:300]}") from None
                await asyncio.sleep(0.2)


def _as_exception(outcome: BaseException) -> Exception:
    if isinstance(outcome, Exception):
        return outcome
    raise outcome
