"""Calls between the processes of one run over TCP: what an actor call does, at a tenth of its CPU.

Any number of calls is in flight on one connection (`cluster.link`); nothing is held back, for every frame belongs to a
call that somebody awaits: the calls in flight bound the memory. For the inside of a cluster, like Ray's own ports.

A call whose connection goes away raises ConnectionLostError, whether or not the other side carried it out: callers make
calls that may be made twice.
"""

from __future__ import annotations

import asyncio
import hmac
import itertools
import pickle
import secrets
import traceback
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from adrs_ray.errors import RunError, one_line
from cluster.link import (
    ANSWER,
    CALL,
    CONNECT_S,
    ERROR,
    LARGEST_FRAME_BYTES,
    MAGIC,
    NONCE_BYTES,
    PROOF_BYTES,
    Link,
    prove,
)


class ConnectionLostError(Exception):
    """The other side cannot be reached, or went away before it answered; the call may have been carried out."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a `WireServer` listens; `token` is what a client must know."""

    host: str
    port: int
    token: bytes = field(repr=False)


class WireServer:
    """Serves coroutine methods of one object, those named and no others, to who knows its token.

    What a method raises is raised by the client's `call`; what cannot be pickled becomes a RunError of one line. A
    method that was called runs on when its caller goes away.
    """

    def __init__(self, target: object, methods: Collection[str]) -> None:
        self._methods: dict[str, Callable[..., Awaitable[Any]]] = {name: getattr(target, name) for name in methods}
        self._token = secrets.token_bytes(32)
        self._server: asyncio.Server | None = None
        self._links: set[_ServerLink] = set()
        self._running: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self, host: str) -> Address:
        """Listen on a free port of `host`, an address of this node that the others can reach.

        Raises RunError when that is not possible.
        """
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(lambda: _ServerLink(self), host, 0, backlog=1024)
        except OSError as error:
            raise RunError(f"cannot listen on {host}: {error}") from None
        return Address(host, self._server.sockets[0].getsockname()[1], self._token)

    async def close(self) -> None:
        """Stop listening, drop every connection, cancel every call; safe to call twice."""
        self._closed = True
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.drop()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def _begin(self, link: _ServerLink, call: int, payload: bytes | bytearray) -> None:
        task = link.loop.create_task(self._serve(link, call, payload))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, link: _ServerLink, call: int, payload: bytes | bytearray) -> None:
        name = "?"
        try:
            name, args = pickle.loads(payload)
            if name not in self._methods:
                raise RunError(f"no method {name!r} is served here")
            kind, answer = ANSWER, _dump(await self._methods[name](*args), f"the answer of {name}")
        except asyncio.CancelledError:
            if self._closed:
                raise
            kind, answer = ERROR, _dump_error(RunError(f"{name} was cancelled"), name)
        except Exception as error:  # the boundary of the call: it is raised where it was made
            kind, answer = ERROR, _dump_error(error, name)
        if link.open:
            link.send(call, kind, answer)


class _ServerLink(Link):
    def __init__(self, server: WireServer) -> None:
        super().__init__()
        self._server = server
        self._nonce = secrets.token_bytes(NONCE_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._server._links.add(self)
        self.write(MAGIC + self._nonce)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._server._links.discard(self)

    def greet(self, received: bytes | bytearray) -> int:
        size = NONCE_BYTES + PROOF_BYTES
        if len(received) < size:
            return 0
        nonce, proof = bytes(received[:NONCE_BYTES]), bytes(received[NONCE_BYTES:])
        # A client waits for our proof before it sends more, so there is no more; compare_digest refuses a longer one.
        if not hmac.compare_digest(proof, prove(self._server._token, b"client", self._nonce, nonce)):
            self.drop()
            return 0
        self.write(prove(self._server._token, b"server", self._nonce, nonce))
        self.greeted()
        return size

    def take(self, call: int, kind: int, payload: bytes | bytearray) -> None:
        self._server._begin(self, call, payload)


class WireClient:
    """Calls a `WireServer`, connected at the first call and again after a loss, each time where `resolve` says.

    For one event loop at a time: used under another one, it connects anew. Safe for any number of calls at once. What
    `resolve` raises is raised by the calls that waited for it.
    """

    def __init__(self, resolve: Callable[[], Awaitable[Address]]) -> None:
        self._resolve = resolve
        self._link: _ClientLink | None = None
        self._connecting: asyncio.Task[_ClientLink] | None = None
        self._calls = itertools.count(1)

    async def call(self, method: str, *args: Any) -> Any:
        """What the method returns, raising what it raised.

        Raises ConnectionLostError when the other side cannot be reached or goes away before it has answered, RunError
        when the arguments or the answer are larger than a frame.
        """
        payload = _dump((method, args), f"a call of {method}")
        link = self._link
        if link is None or not link.open or link.loop is not asyncio.get_running_loop():
            link = await self._connected()
        number = next(self._calls)
        answer: asyncio.Future[Any] = link.loop.create_future()
        link.waiting[number] = answer
        link.send(number, CALL, payload)
        try:
            return await answer
        finally:
            link.waiting.pop(number, None)

    async def close(self) -> None:
        """Drop the connection; calls in flight raise ConnectionLostError, a later one connects again."""
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        if self._link is not None:
            self._link.drop()
            self._link = None

    async def _connected(self) -> _ClientLink:
        task = self._connecting
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            task = self._connecting = asyncio.create_task(self._connect())
            # Nobody may be left to hear of its failure.
            task.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            link = await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise ConnectionLostError("closed while it connected") from None
            raise
        if not link.open:
            raise ConnectionLostError(f"the connection to {link.peer} was lost")
        return link

    async def _connect(self) -> _ClientLink:
        address = await self._resolve()
        peer = f"{address.host}:{address.port}"
        loop = asyncio.get_running_loop()
        link = _ClientLink(address.token, peer)
        try:
            async with asyncio.timeout(CONNECT_S):
                await loop.create_connection(lambda: link, address.host, address.port)
                await link.ready
        except BaseException as error:
            link.drop()
            if isinstance(error, TimeoutError):
                raise ConnectionLostError(f"{peer} did not answer within {CONNECT_S:g} s") from None
            if isinstance(error, OSError):
                raise ConnectionLostError(f"cannot reach {peer}: {one_line(error)}") from None
            raise
        self._link = link
        return link


class _ClientLink(Link):
    def __init__(self, token: bytes, peer: str) -> None:
        super().__init__()
        self.peer = peer
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.waiting: dict[int, asyncio.Future[Any]] = {}
        self._token = token
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._expected: bytes | None = None
        """The server's proof."""

    def drop(self) -> None:
        super().drop()
        self._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._give_up()

    def _give_up(self) -> None:
        if self.loop.is_closed():
            return
        waiting, self.waiting = self.waiting, {}
        for future in (self.ready, *waiting.values()):
            if not future.done():
                future.set_exception(ConnectionLostError(f"the connection to {self.peer} was lost"))
        if not self.ready.cancelled():
            self.ready.exception()  # nobody waits for it any more once a connection has timed out

    def greet(self, received: bytes | bytearray) -> int:
        size = PROOF_BYTES if self._expected else len(MAGIC) + NONCE_BYTES
        if len(received) < size:
            return 0
        if self._expected is not None:
            if not hmac.compare_digest(bytes(received), self._expected):
                self.drop()
                return 0
            self.greeted()
            self.ready.set_result(None)
            return size
        if received[: len(MAGIC)] != MAGIC:
            self.drop()
            return 0
        nonce = bytes(received[len(MAGIC) : size])
        self._expected = prove(self._token, b"server", nonce, self._nonce)
        self.write(self._nonce + prove(self._token, b"client", nonce, self._nonce))
        return size

    def take(self, call: int, kind: int, payload: bytes | bytearray) -> None:
        future = self.waiting.get(call)
        if future is None or future.done():
            return
        try:
            value = pickle.loads(payload)
        except Exception as error:  # whatever a class does when it is made again
            kind, value = ERROR, RunError(f"the answer of {self.peer} cannot be read: {one_line(error)}")
        if kind == ERROR:
            future.set_exception(value)
        else:
            future.set_result(value)


def _dump(value: Any, what: str) -> bytes:
    """Raises RunError when `value` does not fit a frame."""
    payload = pickle.dumps(value, 5)
    if len(payload) > LARGEST_FRAME_BYTES:
        raise RunError(f"{what} has {len(payload):,} bytes; at most {LARGEST_FRAME_BYTES:,} can be sent")
    return payload


def _dump_error(error: Exception, method: str) -> bytes:
    """The error with its traceback as a note; a RunError in its place when it does not survive pickling."""
    if not hasattr(error, "__notes__"):
        error.add_note("".join(traceback.format_exception(error)))
    try:
        payload = pickle.dumps(error, 5)
        if len(payload) <= LARGEST_FRAME_BYTES and isinstance(pickle.loads(payload), type(error)):
            return payload
    except Exception:  # whatever a class does when it is taken apart and made again
        pass
    return pickle.dumps(RunError(f"{method} failed: {type(error).__name__}: {one_line(error)}"), 5)
