"""Limits of endpoints: when a request may start.

`TokenBucket` and `Gate` are pure: they are told the time. `LocalLimiter` waits for them inside one process;
`cluster.limiter` keeps one gate per model for all processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from adrs_ray.config import ModelConfig

BLOCK_S = 1.0
"""What a limit allows in this time may start at once; nobody waits longer before asking again."""
_SHORTEST_WAIT_S = 1e-3


class Limiter(Protocol):
    """Who may ask a model when. Any number of callers on one event loop; first come, first served per model."""

    async def lease(self, model: str, tokens: int) -> None:
        """Wait until a request of so many tokens, prompt and answer, may start. Each lease ends with one `done`."""
        ...

    async def done(self, model: str, reserved_tokens: int, used_tokens: int) -> None:
        """The request ended; what was reserved and not used is given back. Never waits."""
        ...

    async def hold(self, model: str, seconds: float) -> None:
        """Nobody starts a request to the model before so many seconds have passed."""
        ...


class TokenBucket:
    """An allowance that fills at `per_s` up to `burst`; full at first.

    An amount larger than the burst waits for a full bucket and leaves a debt. So what is taken in any w seconds sums to
    at most `per_s * w + max(burst, largest amount)`, as long as nothing is given back.
    """

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._level = burst
        self._at = now

    def wait_s(self, amount: float, now: float) -> float:
        """Seconds until the amount may be taken; 0 when it may be now."""
        self._fill(now)
        missing = min(amount, self._burst) - self._level
        # a missing rest too small to move the clock would be waited for without end
        return max(missing / self._per_s, _SHORTEST_WAIT_S) if missing > 0 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take it, whether or not it is there; a negative amount is given back."""
        self._fill(now)
        self._level = min(self._burst, self._level - amount)

    def _fill(self, now: float) -> None:
        self._level = min(self._burst, self._level + max(0.0, now - self._at) * self._per_s)
        self._at = max(self._at, now)


def _bucket(per_min: float | None, now: float) -> TokenBucket | None:
    return None if per_min is None else TokenBucket(per_min / 60, max(1.0, per_min / 60 * BLOCK_S), now)


class Gate:
    """The limits of one model: requests, tokens, and until when its server wants nobody."""

    def __init__(self, config: ModelConfig, now: float) -> None:
        self._requests = _bucket(config.requests_per_min, now)
        self._tokens = _bucket(config.tokens_per_min, now)
        self._held_until = now

    def start(self, tokens: int, now: float) -> float:
        """Start a request: 0, or the seconds after which to try again, and then nothing was taken."""
        wanted = [(bucket, n) for bucket, n in ((self._requests, 1), (self._tokens, tokens)) if bucket is not None]
        wait = max([self._held_until - now, *(bucket.wait_s(n, now) for bucket, n in wanted)])
        if wait > 0:
            return max(wait, _SHORTEST_WAIT_S)
        for bucket, n in wanted:
            bucket.take(n, now)
        return 0.0

    def give_back(self, tokens: int, now: float) -> None:
        """Tokens that were reserved and not used; negative when more were used than reserved."""
        if self._tokens is not None:
            self._tokens.take(-tokens, now)

    def hold(self, seconds: float, now: float) -> None:
        """Nothing starts before `now + seconds`; a shorter hold does not end a longer one."""
        self._held_until = max(self._held_until, now + seconds)


@dataclass(frozen=True, slots=True)
class _Line:
    """Those who want to ask one model."""

    gate: Gate
    room: asyncio.Semaphore
    turn: asyncio.Lock
    """Held by the first in line while it waits for the gate."""


class LocalLimiter:
    """A `Limiter` for one process, which alone uses its models. Without limits only `max_in_flight` holds.

    `now` and `sleep` are the clock.
    """

    def __init__(
        self,
        models: Mapping[str, ModelConfig],
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._now = now
        self._sleep = sleep
        self._lines = {
            name: _Line(Gate(config, now()), asyncio.Semaphore(config.max_in_flight), asyncio.Lock())
            for name, config in models.items()
        }

    async def lease(self, model: str, tokens: int) -> None:
        line = self._lines[model]
        await line.room.acquire()
        try:
            async with line.turn:
                while (wait := line.gate.start(tokens, self._now())) > 0:
                    await self._sleep(min(wait, BLOCK_S))  # what is given back meanwhile may end the wait earlier
        except BaseException:
            line.room.release()
            raise

    async def done(self, model: str, reserved_tokens: int, used_tokens: int) -> None:
        line = self._lines[model]
        line.room.release()
        line.gate.give_back(reserved_tokens - used_tokens, self._now())

    async def hold(self, model: str, seconds: float) -> None:
        self._lines[model].gate.hold(seconds, self._now())
