"""The HTTP connection to a model's server: the official client, with a bound on what a reply may hold.

The client is imported when it is first needed; the library under it is found through it.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import Any

from adrs_ray.config import ModelConfig

LARGEST_REPLY_BYTES = 8 * 2**20
"""Of a reply's body; a longer one is not read to its end."""
_CONNECT_S = 10.0
_KEEP_ALIVE_S = 2.0
"""Below the 5 s of common servers: a request on a connection that the other side is closing would be lost."""
_NO_KEY = "none"
"""The client insists on a key; servers without keys ignore it."""


def http_library() -> Any:
    """The one that the installed client is built on: httpx2 since openai 3, httpx before."""
    import openai

    return sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]


def make_client(http: Any, config: ModelConfig, key: str | None) -> Any:
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
            event_hooks={"response": [_bound_body(http)]},
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
