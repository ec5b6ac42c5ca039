"""Which of several servers of a model answers a request: chosen by the client, without a hop between.

The view of the pool is a value that the driver hands to every island. `Board` decides and is pure: told the time, the
random generator passed in. `Router` waits for it on one event loop.

- Affinity: requests with one key (an island's repeated prompt prefix) go to one server, whose prefix cache has it, by
  rendezvous hashing (Thaler and Ravishankar, 1998): when servers come and go, only keys of those move.
- Unless that server is overloaded: its load is above `OVERLOAD` times the mean and more than `SLACK` above the least.
  Then, or where it has no room, the less loaded of two that are drawn answers (Mitzenmacher, "The Power of Two
  Choices", 2001).
- Load: the requests of this process that are under way, and what the server told last less those that were at that
  time. So stale figures shift with what we send ourselves.
- Room: at most `max(1, ceil(max_in_flight * share))` requests of this process at one server, and from the second on
  only while the load stays below `max_in_flight`. The first always passes, so that no process starves for a figure
  that is old. Islands that start at once may exceed the bound until figures come, by one server's queue.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np

from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.breaker import Breaker

OVERLOAD = 1.5
SLACK = 4.0
WAIT_S = 120.0
"""For how long a request waits while no server of its model answers."""


@dataclass(frozen=True, slots=True)
class Server:
    """One replica that answers."""

    id: str
    """Of this start of it: a replica that was started again is another server."""
    base_url: str
    """Such as http://10.0.0.7:8000/v1."""
    load: float = 0.0
    """Requests that it runs or lets wait, of everybody, as it said last."""
    accepts: bool = True
    """False: it ends what it has and takes nothing new for now (it is about to sleep, or sleeps). Requests wait for
    it as for a full one."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What of the pool answers now."""

    servers: Mapping[str, tuple[Server, ...]] = field(default_factory=dict)
    """By name among the config's `models`."""
    share: float = 1.0
    """This run's part of every replica's `pool.max_in_flight`: 1 over the runs that use the pool."""
    key: str | None = field(default=None, repr=False)
    """What the pool's own servers take as a key; None for servers that were there before."""


class NoServerError(Exception):
    """No server of the model has answered for as long as a request waits: one line."""


def prefix_key(request: GenerationRequest) -> bytes:
    """What requests with a common beginning share: their island and their first message.

    System message and task stand in front of every prompt of a run, so every server comes to have them; hints and
    parents recur within an island. With the island in the key, islands spread over the servers.
    """
    first = request.messages[0].content if request.messages else ""
    island = request.candidate.rpartition("-")[0]
    return hashlib.blake2b(f"{island}\0{first}".encode("utf-8", "replace"), digest_size=16).digest()


def _weight(key: bytes, server: str) -> bytes:
    return hashlib.blake2b(server.encode("utf-8", "replace"), key=key[:64], digest_size=8).digest()


@dataclass(slots=True)
class Seat:
    """One server as this process sees it."""

    server: Server
    others: float
    """Its load less what of it was ours when it was told."""
    own: int = 0
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def load(self) -> float:
        return self.own + self.others


class Board:
    """The servers of one model: what each has under way, which of them fail, and who answers next."""

    def __init__(self, max_in_flight: int) -> None:
        """`max_in_flight`: requests at one server, of everybody."""
        self._max_in_flight = max_in_flight
        self._limit = max_in_flight
        self._seats: dict[str, Seat] = {}

    @property
    def servers(self) -> tuple[Server, ...]:
        return tuple(seat.server for seat in self._seats.values())

    def update(self, servers: Iterable[Server], share: float) -> set[str]:
        """Take over what answers now; returns the ids of servers that are gone. What is known of the others stays."""
        self._limit = max(1, math.ceil(self._max_in_flight * share))
        before, self._seats = self._seats, {}
        for server in servers:
            seat = before.get(server.id) or Seat(server, 0.0)
            seat.server = server
            seat.others = max(0.0, server.load - seat.own)
            self._seats[server.id] = seat
        return before.keys() - self._seats.keys()

    def choose(
        self, key: bytes, now: float, rng: np.random.Generator, avoid: frozenset[str] = frozenset()
    ) -> Server | None:
        """Who answers a request now; None when it has to wait. Of `avoid` only when all others are away or full."""
        usable = [s for s in self._seats.values() if s.server.accepts and s.breaker.wait_s(now) == 0]
        others = [seat for seat in usable if seat.server.id not in avoid]
        favourite = max(others or usable, key=lambda seat: _weight(key, seat.server.id), default=None)
        if favourite is None:
            return None
        if self._has_room(favourite) and not _overloaded(favourite, usable):
            return favourite.server
        roomy = [s for s in others if self._has_room(s)] or [s for s in usable if self._has_room(s)]
        return _less_loaded(roomy, rng).server if roomy else None

    def wait_s(self, now: float) -> float:
        """Seconds until a breaker lets somebody pass; infinite while none is open."""
        waits = (seat.breaker.wait_s(now) for seat in self._seats.values())
        return min((wait for wait in waits if wait > 0), default=math.inf)

    def answers(self, now: float) -> bool:
        """Whether there is a server that works, full or asleep as it may be."""
        return any(seat.breaker.wait_s(now) == 0 for seat in self._seats.values())

    def begin(self, server: str, now: float) -> Lease:
        """A request goes to the server. Raises ValueError when its breaker is open."""
        seat = self._seats[server]
        stamp = seat.breaker.enter(now)
        seat.own += 1
        return Lease(seat.server, seat, stamp)

    def _has_room(self, seat: Seat) -> bool:
        return seat.own == 0 or (seat.own < self._limit and seat.load < self._max_in_flight)


def _overloaded(seat: Seat, usable: list[Seat]) -> bool:
    loads = [each.load for each in usable]
    return seat.load > OVERLOAD * sum(loads) / len(loads) and seat.load > SLACK + min(loads)


def _less_loaded(seats: list[Seat], rng: np.random.Generator) -> Seat:
    """The less loaded of two different ones that are drawn, or of all that are there."""
    if len(seats) > 2:
        first = int(rng.integers(len(seats)))
        second = int(rng.integers(len(seats) - 1))
        seats = [seats[first], seats[second + (second >= first)]]
    return min(seats, key=lambda seat: seat.load)


class Lease:
    """Permission for one request to one server; whoever has it says how it went, at most once."""

    def __init__(self, server: Server, seat: Seat | None = None, stamp: int = 0) -> None:
        """Without a seat nobody is told: a server that is not chosen among others."""
        self.server = server
        self.left = False
        """The server has left the view: what was asked of it is abandoned."""
        self._seat = seat
        self._stamp = stamp
        self._scope: asyncio.Timeout | None = None

    def watch(self, scope: asyncio.Timeout) -> None:
        """Let the scope, which is entered, time out at once when the server leaves."""
        self._scope = scope
        if self.left:
            self.leave()

    def leave(self) -> None:
        self.left = True
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def answered(self) -> None:
        """It works, whatever it said about this request."""
        self._scope = None
        if self._seat is not None:
            self._seat.breaker.succeeded()

    def failed(self, now: float, lost: bool = False, pause_s: float = 0.0) -> None:
        """`lost`: so that nobody needs to try it now. `pause_s`: for so long it wants nobody."""
        self._scope = None
        if self._seat is not None:
            self._seat.breaker.failed(self._stamp, now, lost, pause_s)

    def end(self) -> None:
        """The request is no longer there."""
        self._scope = None
        if self._seat is not None:
            self._seat.own -= 1


class Router:
    """The servers of one model for one process and event loop. First come, first served."""

    def __init__(
        self,
        model: str,
        max_in_flight: int,
        foreign: bool = False,
        wait_s: float = WAIT_S,
    ) -> None:
        """`foreign`: the servers are not the run's own. They are never told the pool's key, and a request stays with
        one that leaves the view: its answer may be paid for."""
        self.model = model
        self._foreign = foreign
        self._wait_s = wait_s
        self._board = Board(max_in_flight)
        self._key: str | None = None
        self._leases: set[Lease] = set()
        self._listeners: list[Callable[[str], None]] = []
        self._turn = asyncio.Lock()
        """Held by the first in line while it waits."""
        self._changed = asyncio.Event()
        self._waits = True
        self._dark_since: float | None = None
        """Since when no server answers, as the first in line saw it; None while one does."""

    @property
    def key(self) -> str | None:
        """What the pool's own servers take as a key."""
        return self._key

    @property
    def own(self) -> bool:
        """Whether these are servers that the pool started: nothing is paid for a request that is lost with one."""
        return self._key is not None

    @property
    def servers(self) -> tuple[Server, ...]:
        return self._board.servers

    def set_view(self, view: PoolView) -> None:
        """What answers from now on. Requests at own servers that are no longer there end at once (`Lease.watch`)."""
        if view.key is not None and not self._foreign:
            self._key = view.key
        gone = self._board.update(view.servers.get(self.model, ()), view.share)
        for lease in [lease for lease in self._leases if lease.server.id in gone] if self.own else ():
            lease.leave()
        for server in sorted(gone):
            for listener in self._listeners:
                listener(server)
        self._changed.set()

    def listen(self, listener: Callable[[str], None]) -> None:
        """Be told the ids of servers that leave."""
        self._listeners.append(listener)

    def stop_waiting(self) -> None:
        """The run drains: who finds no server that answers is told so at once."""
        self._waits = False
        self._changed.set()

    @asynccontextmanager
    async def lease(
        self, key: bytes, rng: np.random.Generator, avoid: frozenset[str] = frozenset()
    ) -> AsyncIterator[Lease]:
        """A server for one request, as long as the context lasts. Waits behind full servers without end, for one that
        answers at all `wait_s` since it asked or since the last one was lost, in line or not: then NoServerError."""
        asked = time.monotonic()
        async with self._turn:
            lease = await self._next(key, rng, avoid, asked)
        self._leases.add(lease)
        try:
            yield lease
        finally:
            self._leases.discard(lease)
            lease.end()
            self._changed.set()

    async def _next(self, key: bytes, rng: np.random.Generator, avoid: frozenset[str], asked: float) -> Lease:
        while True:
            self._changed.clear()
            now = time.monotonic()
            server = self._board.choose(key, now, rng, avoid)
            if server is not None:
                self._dark_since = None
                return self._board.begin(server.id, now)
            wait = self._board.wait_s(now)
            if self._board.answers(now):
                self._dark_since = None
            else:
                self._dark_since = now if self._dark_since is None else self._dark_since
                given_up = max(asked, self._dark_since) + self._wait_s
                if now >= given_up or not self._waits:
                    raise NoServerError(self._why())
                wait = min(wait, given_up - now)
            try:
                await asyncio.wait_for(self._changed.wait(), None if wait == math.inf else wait)
            except TimeoutError:
                pass

    def _why(self) -> str:
        count = len(self._board.servers)
        return "the pool has no server for it" if not count else f"none of its {count} servers answers"
