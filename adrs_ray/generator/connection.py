"""The HTTP connection to a model's server: the official client, with a bound on replies and requests kept apart.

The client is imported when it is first needed; the library under it is found through it.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from adrs_ray.config import ModelConfig

LARGEST_REPLY_BYTES = 8 * 2**20
"""Of a reply's body; a longer one is not read to its end."""
_CONNECT_S = 10.0
_KEEP_ALIVE_S = 2.0
"""Below the 5 s of common servers: a request on a connection that the other side is closing would be lost."""
_ON_ITS_WAY = ("connect_tcp.started", "send_request_body.started")
"""Events of the HTTP library after which a request no longer needs this process."""
_NO_KEY = "none"
"""The client insists on a key; servers without keys ignore it."""


class Turnstile:
    """Requests go from their start to the wire one at a time.

    Interleaved, requests that were answered together are sent together again, after the CPU time of all of them, and so
    stay in step for ever. One after another, each is sent after its own, and their answers come apart.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._holder: object | None = None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        await self._lock.acquire()
        holder = self._holder = object()
        try:
            yield
        finally:
            self._leave(holder)

    async def on_request(self, request: Any) -> None:
        """A request hook: whoever has the turn is sending this one, and leaves when it is on its way."""
        holder = self._holder

        async def trace(event: str, _: Any) -> None:
            if event.endswith(_ON_ITS_WAY):
                self._leave(holder)

        request.extensions["trace"] = trace

    def _leave(self, holder: object | None) -> None:
        if holder is not None and self._holder is holder:
            self._holder = None
            self._lock.release()


def http_library() -> Any:
    """The one that the installed client is built on: httpx2 since openai 3, httpx before."""
    import openai

    return sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]


def make_client(http: Any, config: ModelConfig, key: str | None, turnstile: Turnstile) -> Any:
    """The official client, without its own retries; a redirect is a wrong address."""
    import openai

    limits = http.Limits(
        max_connections=None, max_keepalive_connections=config.max_in_flight, keepalive_expiry=_KEEP_ALIVE_S
    )
    # The whole attempt is timed by its caller; only what was surely not sent has to be told apart here.
    timeout = openai.Timeout(None, connect=min(_CONNECT_S, config.timeout_s / 2))
    return openai.AsyncOpenAI(
        api_key=key or _NO_KEY,
        base_url=config.base_url,
        max_retries=0,
        timeout=timeout,
        default_headers={"Accept-Encoding": "identity"},
        http_client=openai.DefaultAsyncHttpxClient(
            limits=limits,
            timeout=timeout,
            follow_redirects=False,
            event_hooks={"request": [turnstile.on_request], "response": [_bound_body(http)]},
        ),
    )


def _bound_body(http: Any) -> Callable[[Any], Awaitable[None]]:
    """A response hook after which no body is read beyond `LARGEST_REPLY_BYTES`."""

    class Bounded(http.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> Any:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if size > LARGEST_REPLY_BYTES:
                    raise http.ReadError(f"it is larger than {LARGEST_REPLY_BYTES} bytes")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def bound(response: Any) -> None:
        response.stream = Bounded(response.stream)

    return bound
