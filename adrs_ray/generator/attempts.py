"""One attempt at a request: sent to one server, and what its answer or its silence means.

Chat completions, not streamed: nobody reads along, and one body is either whole or lost.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from adrs_ray.config import ModelConfig
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.charging import cap_of
from adrs_ray.generator.connection import CONNECT_S, Answer, Connection, NoAnswerError, read_key
from adrs_ray.generator.reply import clean, one_line, read_error
from adrs_ray.generator.retry import Fate, fate_of_lost_connection, fate_of_status, retry_after_s
from adrs_ray.generator.routing import Lease, Router, Server


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why an attempt has no answer; `detail` is one line without the key."""

    fate: Fate
    detail: str
    retry_after_s: float | None = None
    unreached: bool = False
    """The server could not be connected to, or is gone: another may be asked at once."""


class Attempts:
    """Sends requests to the servers of one model and remembers what they taught. Of one event loop.

    Raises UsageError for a key that is missing or none.
    """

    def __init__(self, name: str, config: ModelConfig, router: Router | None, answered_before: bool) -> None:
        self._config = config
        self._router = router
        self._key = read_key(name, config)
        self._connections: dict[str, Connection] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._cap_field = "max_tokens"
        self.answered = answered_before
        """Whether any server ever gave an answer: an address where none did is a wrong one."""
        self.served = answered_before
        """Whether an answer was ever a success."""
        if router is not None:
            router.listen(self._forget)

    @property
    def key(self) -> str | None:
        """What is sent: the pool's key to its own servers, else the model's own."""
        return self._router.key if self._router is not None and self._router.own else self._key

    @property
    def _own(self) -> bool:
        return self._router is not None and self._router.own

    async def send(
        self, lease: Lease, request: GenerationRequest, fields: Mapping[str, Any], limit_s: float
    ) -> bytes | Trouble:
        """The body of a successful answer within `limit_s` seconds, or what went wrong; the lease is told, too."""
        cap_field = self._cap_field
        messages = [{"role": m.role, "content": clean(m.content)} for m in request.messages]
        body = {"model": self._config.model, "messages": messages, cap_field: cap_of(self._config, request), **fields}
        data = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
        try:
            async with asyncio.timeout(limit_s) as scope:
                lease.watch(scope)
                answer = await self._connection(lease.server).post("/chat/completions", data)
        except TimeoutError:
            return self._silence(lease, limit_s)
        except NoAnswerError as error:
            return self._loss(lease, error)
        self.answered = True
        if 200 <= answer.status < 300:
            self.served = True
            lease.answered()
            return answer.content
        return self._refusal(lease, answer, cap_field)

    def _silence(self, lease: Lease, limit_s: float) -> Trouble:
        if lease.left:
            return Trouble(Fate.ELSEWHERE, "its server went away", unreached=True)
        if limit_s >= self._config.timeout_s:  # less is no fault of this server
            lease.failed(time.monotonic())
        return Trouble(Fate.CHARGED, f"timed out after {self._config.timeout_s:g} s without an answer")

    def _loss(self, lease: Lease, error: NoAnswerError) -> Trouble:
        if error.cause is None:
            self.answered = True
            lease.answered()
            return Trouble(Fate.CHARGED, str(error))
        fate = fate_of_lost_connection(error.cause)
        lease.failed(time.monotonic(), lost=True)
        self.answered |= fate is not Fate.AGAIN
        what = "cannot connect" if fate is Fate.AGAIN else "the connection was lost before the answer was whole"
        if fate is Fate.CHARGED and self._own:
            fate = Fate.ELSEWHERE
        return Trouble(fate, self._told(f"{what}: {error}"), unreached=True)

    def _refusal(self, lease: Lease, answer: Answer, sent_cap: str) -> Trouble:
        """What an HTTP status that is no success means; the bound of the answer was sent as `sent_cap`."""
        status, said = answer.status, read_error(answer.content)
        detail = f"HTTP {status}: {said.message}" if said.message.strip() else f"HTTP {status}"
        fate = fate_of_status(status, said.code)
        if status in (401, 403):
            key = f"the key in {self._config.api_key_env}" if self._config.api_key_env else "requests without a key"
            detail = f"{'the key of the pool' if self._own else key} is refused, {detail}"
        elif status in (404, 405) or 300 <= status < 400:
            where = "its address" if self._router is not None else "base_url"
            detail = f"no model {self._config.model!r} there, or {where} is wrong, {detail}"
        elif status == 400 and sent_cap == "max_tokens" and "max_completion_tokens" in said.message:
            self._cap_field = "max_completion_tokens"  # newer name of the same bound, which some servers insist on
            fate = Fate.AGAIN
        pause_s = retry_after_s(answer.headers.get("retry-after"), datetime.now(UTC))
        if fate is Fate.FATAL or status == 429 or status >= 500:
            lease.failed(time.monotonic(), lost=fate is Fate.FATAL, pause_s=pause_s or 0.0)
        else:
            lease.answered()
        return Trouble(fate, self._told(detail), pause_s)

    def _connection(self, server: Server) -> Connection:
        connection = self._connections.get(server.id)
        if connection is None:
            connect_s = min(CONNECT_S, self._config.timeout_s / 2)
            keep = self._config.max_in_flight
            connection = Connection(server.base_url, self.key, keep, self._own, connect_s)
            self._connections[server.id] = connection
        return connection

    def _forget(self, server: str) -> None:
        """Close the connections to a server that is gone; requests of ours that are there have ended as abandoned,
        those at a server that is not the pool's own may still be answered."""
        if self._own and (connection := self._connections.pop(server, None)) is not None:
            task = asyncio.get_running_loop().create_task(connection.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _told(self, text: str) -> str:
        """What a server said, as one line without the key."""
        return one_line(text, self.key)

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        await asyncio.gather(*(each.close() for each in connections.values()), *self._closing)
