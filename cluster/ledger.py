"""The ledger as a Ray actor beside the run folder, and its client.

The actor says where it listens and which token it knows; everything else goes over `cluster.wire`. Calls are
at-least-once: events carry ids, grants carry request names, so that asking again changes nothing. When the actor is
lost Ray starts it again; it joins the run's epoch and rebuilds its counts from the journal.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError, one_line
from adrs_ray.ledger import Ledger, RunPast, RunStatus
from adrs_ray.storage.journal import Event, EventKind, Journal
from adrs_ray.storage.mirror import open_mirrored
from adrs_ray.storage.runfolder import RUN_YAML
from adrs_ray.storage.sqlite import SqliteJournal
from cluster.calls import LOST, answer
from cluster.wire import Address, ConnectionLostError, WireClient, WireServer

RETRY_FOR_S = 60.0
"""How long a client asks in vain for a lost ledger to come back."""
SERVED = (
    "append_all", "read", "find", "texts", "request", "grant", "give_back", "reopen", "start_epoch", "status", "past",
    "close_purse", "close",
)  # fmt: skip
"""What clients may call over the wire."""

_Sent: TypeAlias = tuple[str, str, str | None, int, Mapping[str, Any], tuple[str, ...]]
"""An event to be appended: id, kind, candidate, island, body, texts. Tuples pickle at a fifth of an Event's CPU."""
_Recorded: TypeAlias = tuple[int, int, float] | Event
"""Of an event as it was sent: seq, epoch, at; where another was recorded under its id, that one."""


class LedgerService:
    """What the actor serves over the wire: `adrs_ray.ledger.Ledger`, opened at the first call."""

    def __init__(self, journal: Path, epoch: int, config: RunConfig) -> None:
        self._path = journal
        self._epoch = epoch
        self._config = config
        self._opening: asyncio.Task[Ledger] | None = None

    async def _ledger(self) -> Ledger:
        """Opened at the first call, not when the actor is made: a journal that refuses is then that call's error."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open())
        return await self._opening

    async def _open(self) -> Ledger:
        journal = await self._journal()
        return await Ledger.open(journal, self._config)

    async def _journal(self) -> Journal:
        """The file, with its mirror where the config names one. Raises what either raises."""
        journal = await asyncio.to_thread(SqliteJournal.join, self._path, self._epoch)
        run_yaml = self._path.with_name(RUN_YAML)
        try:
            return await open_mirrored(journal, self._config.mirror, run_yaml if run_yaml.is_file() else None)
        except BaseException:
            await journal.close()
            raise

    async def append_all(self, appends: list[tuple[list[_Sent], int]]) -> list[list[_Recorded] | Exception]:
        """Several appends (batch, epoch) at once; one outcome each."""
        ledger = await self._ledger()
        batches = [[_event(sent) for sent in batch] for batch, _ in appends]
        epochs = [epoch for _, epoch in appends]
        if len(set(epochs)) == 1:
            # One batch is one commit; apart only when it is refused, so that what is bad fails alone.
            with contextlib.suppress(Exception):
                recorded = iter(await ledger.append([event for batch in batches for event in batch], epochs[0]))
                return [_answers(batch, list(itertools.islice(recorded, len(batch)))) for batch in batches]
        waiting = (ledger.append(batch, epoch) for batch, epoch in zip(batches, epochs, strict=True))
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        return [
            _answers(batch, outcome) if isinstance(outcome, list) else _as_exception(outcome)
            for batch, outcome in zip(batches, outcomes, strict=True)
        ]

    async def read(
        self, after_seq: int, kinds: list[EventKind] | None, island: int | None, limit: int | None
    ) -> list[Event]:
        return await (await self._ledger()).read(after_seq, kinds, island, limit)

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        return await (await self._ledger()).find(ids)

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return await (await self._ledger()).texts(refs)

    async def request(self, sent: list[_Sent], epoch: int) -> list[_Recorded] | None:
        batch = [_event(event) for event in sent]
        recorded = await (await self._ledger()).request(batch, epoch)
        return None if recorded is None else _answers(batch, recorded)

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

    async def close(self) -> str | None:
        return None if self._opening is None else await (await self._opening).close()


class LedgerActor:
    """The service in a process of its own."""

    def __init__(self, journal: str, epoch: int, config: dict[str, Any]) -> None:
        # Not the actor itself: Ray wraps every method of an actor's class in its tracing.
        service = LedgerService(Path(journal), epoch, parse_config(config, "ledger actor"))
        self._server = WireServer(service, SERVED)
        self._starting: asyncio.Task[Address] | None = None

    async def endpoint(self) -> Address:
        """Where the ledger is served. Raises RunError when this node cannot listen."""
        if self._starting is None:
            self._starting = asyncio.create_task(self._server.start(_own_address()))
        return await self._starting


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
        self._epoch = epoch
        self._client = WireClient(lambda: answer(actor.endpoint.remote()))
        self._answered = 0.0
        """When a call last succeeded, by this event loop's clock."""
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
        sent = [([_sent(event) for event in batch], epoch) for batch, epoch in appends]
        outcomes: list[list[_Recorded] | Exception] = await self._insist("append_all", sent)
        return [
            outcome if isinstance(outcome, Exception) else _events(batch, outcome)
            for (batch, _), outcome in zip(appends, outcomes, strict=True)
        ]

    async def read(
        self,
        after_seq: int = 0,
        kinds: Iterable[EventKind] | None = None,
        island: int | None = None,
        limit: int | None = None,
    ) -> list[Event]:
        events: list[Event] = await self._insist(
            "read", after_seq, None if kinds is None else list(kinds), island, limit
        )
        return events

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        found: dict[str, Event] = await self._insist("find", ids) if ids else {}
        return found

    async def texts(self, refs: Sequence[str]) -> dict[str, str]:
        texts: dict[str, str] = await self._insist("texts", refs) if refs else {}
        return texts

    async def request(self, batch: Sequence[Event], epoch: int) -> list[Event] | None:
        recorded: list[_Recorded] | None = await self._insist("request", [_sent(event) for event in batch], epoch)
        return None if recorded is None else _events(batch, recorded)

    async def grant(self, island: int, want: int, request: str) -> int:
        granted: int = await self._insist("grant", island, want, request)
        return granted

    async def give_back(self, island: int, count: int, request: str) -> None:
        await self._insist("give_back", island, count, request)

    async def reopen(self, island: int, pending: int, request: str) -> None:
        await self._insist("reopen", island, pending, request)

    async def start_epoch(self) -> None:
        await self._insist("start_epoch")

    async def status(self) -> RunStatus:
        status: RunStatus = await self._insist("status")
        return status

    async def past(self) -> RunPast:
        past: RunPast = await self._insist("past")
        return past

    async def close_purse(self) -> None:
        await self._insist("close_purse")

    async def close(self) -> str | None:
        """Close the journal; a line that says what its mirror still lacks, if it does."""
        while self._flusher is not None and not self._flusher.done():
            await self._flusher
        missing: str | None = await self._insist("close")
        await self._client.close()
        return missing

    async def _insist(self, method: str, *args: Any) -> Any:
        """Make a call; when the actor is away, make it again until it is back. Every call is idempotent.

        Raises RunError when no call of this client has succeeded for `RETRY_FOR_S`, this one's first attempt included.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while True:
            try:
                result = await self._client.call(method, *args)
            except (ConnectionLostError, *LOST) as error:
                if loop.time() >= max(begun, self._answered) + RETRY_FOR_S:
                    raise RunError(f"the journal's actor is lost: {one_line(error)}") from None
                await asyncio.sleep(0.2)
            else:
                self._answered = loop.time()
                return result


def _sent(event: Event) -> _Sent:
    return event.id, event.kind.value, event.candidate, event.island, event.body, event.texts


def _event(sent: _Sent) -> Event:
    name, kind, candidate, island, body, texts = sent
    return Event(name, EventKind(kind), candidate, island, body, texts)


def _answers(batch: Sequence[Event], recorded: Sequence[Event]) -> list[_Recorded]:
    """What the client does not know yet: a new event comes back with the body it was given."""
    return [
        (after.seq, after.epoch, after.at) if after.body is before.body else after
        for before, after in zip(batch, recorded, strict=True)
    ]


def _events(batch: Sequence[Event], recorded: Sequence[_Recorded]) -> list[Event]:
    return [
        after
        if isinstance(after, Event)
        else Event(before.id, before.kind, before.candidate, before.island, before.body, (), *after)
        for before, after in zip(batch, recorded, strict=True)
    ]


def _as_exception(outcome: BaseException) -> Exception:
    if isinstance(outcome, Exception):
        return outcome
    raise outcome


def _own_address() -> str:
    """This node's IP, at which the others of the cluster reach it."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return address
