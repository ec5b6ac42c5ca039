"""The HTTP connection to one server of models, with a bound on what a reply may hold, and the key that it takes.

The HTTP library is imported when it is first needed.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from adrs_ray.config import ModelConfig
from adrs_ray.errors import UsageError

if TYPE_CHECKING:
    import ssl

LARGEST_REPLY_BYTES = 8 * 2**20
"""Of a reply's body; a longer one is not read to its end."""
CONNECT_S = 10.0
_KEEP_ALIVE_S = 2.0
"""Below the 5 s of common servers: a request on a connection that the other side is closing would be lost."""


class NoAnswerError(Exception):
    """A request has no answer; the text is one line of the HTTP library's words."""

    def __init__(self, detail: str, cause: BaseException | None) -> None:
        """`cause`: the library's error; None for an answer that is larger than anything we read."""
        super().__init__(detail)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sent, whole."""

    status: int
    headers: Mapping[str, str]
    """Names in any case."""
    content: bytes


class Connection:
    """Connections to one server, kept alive between requests. Of one event loop. The key is sent and never told.

    `direct`: proxies of the environment are passed by, as for servers that a run started itself.
    """

    def __init__(
        self, base_url: str, key: str | None, keep: int = 4, direct: bool = False, connect_s: float = CONNECT_S
    ) -> None:
        import httpx2

        headers = {"Accept": "application/json, text/plain", "Accept-Encoding": "identity", "User-Agent": "adrs-ray"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        plain = direct and base_url.startswith("http://")
        self._base_url = base_url.rstrip("/")
        self._client = httpx2.AsyncClient(
            headers=headers,
            # A redirect is a wrong address, so a plain one never comes to need certificates.
            verify=False if plain else _certificates(),
            follow_redirects=False,
            trust_env=not direct,
            # Who asks times the whole; only what was surely not sent has to be told apart here.
            timeout=httpx2.Timeout(None, connect=connect_s),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=keep, keepalive_expiry=_KEEP_ALIVE_S),
        )

    async def post(self, path: str, body: bytes) -> Answer:
        """Send JSON. Raises NoAnswerError; not for a status that is no success."""
        return await self._ask("POST", path, body)

    async def get(self, path: str) -> Answer:
        """Raises NoAnswerError; not for a status that is no success."""
        return await self._ask("GET", path, None)

    async def _ask(self, method: str, path: str, body: bytes | None) -> Answer:
        client = self._client
        try:
            headers = None if body is None else {"Content-Type": "application/json"}
            request = client.build_request(method, self._base_url + path, content=body, headers=headers)
            response = await client.send(request, stream=True)
            try:
                pieces, size = [], 0
                async for piece in response.aiter_bytes():
                    pieces.append(piece)
                    size += len(piece)
                    if size > LARGEST_REPLY_BYTES:
                        raise NoAnswerError(f"the answer is larger than {LARGEST_REPLY_BYTES} bytes", None)
            finally:
                await response.aclose()
        except NoAnswerError:
            raise
        except Exception as error:  # whatever the library makes of what a server sends
            raise NoAnswerError(f"{type(error).__name__}: {error}", error) from error
        return Answer(response.status_code, response.headers, b"".join(pieces))

    async def close(self) -> None:
        """Safe to call twice; what is under way ends as lost."""
        await self._client.aclose()


@functools.cache
def _certificates() -> ssl.SSLContext:
    """Loading them takes 0.2 s of CPU, so all connections of a process share them."""
    import httpx2

    return httpx2.create_ssl_context()


def read_key(name: str, config: ModelConfig) -> str | None:
    """The key of a model, from the environment variable that its config names.

    Raises UsageError when that is missing or holds no key.
    """
    if config.api_key_env is None:
        return None
    key = os.environ.get(config.api_key_env, "").strip()
    if not key:
        raise UsageError(f"models.{name}: its key is read from the environment variable {config.api_key_env}: set it")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(
            f"models.{name}: the environment variable {config.api_key_env} holds no key: one has visible ASCII "
            "characters only"
        )
    return key


def place_of(url: str) -> str | None:
    """Host and port of a URL, without what may be secret in it; None when it has none."""
    try:
        parts = urlsplit(url)
        return f"{parts.hostname}:{parts.port}" if parts.port and parts.hostname else parts.hostname
    except ValueError:
        return None
