"""Servers of models that are there already (`pool.endpoints`): which has what, which is away, how loaded each is.

Each is asked for its models at the start and from then on; one that does not answer is left out until it does. Needs
no Ray.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.generator.connection import Connection, NoAnswerError, place_of, read_key
from adrs_ray.generator.engine_metrics import EngineMetrics, EngineRates, metrics_of, rates
from adrs_ray.generator.reply import one_line, read_error
from adrs_ray.generator.routing import PoolView, Server

LOOK_EVERY_S = 5.0
LOOK_TIMEOUT_S = 5.0
METRICS_TIMEOUT_S = 2.0
MISSES = 2
"""Looks in a row without an answer after which an endpoint is away: one may just be busy."""
PATIENCE_S = 20.0
"""At the start: how long endpoints are waited for that do not answer, when a model is served nowhere else."""
_MOST_NAMES = 10_000
_TOLD_NAMES = 8


@dataclass(frozen=True, slots=True)
class Listing:
    """What an endpoint said it has. `problem`, one line, in place of names when it said nothing that can be used."""

    names: frozenset[str] = frozenset()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class EndpointStatus:
    """One endpoint as it was seen last."""

    url: str
    up: bool
    models: tuple[str, ...]
    """Names among the config's `models` that it serves."""
    problem: str
    metrics: EngineMetrics
    rates: EngineRates


@dataclass(slots=True)
class _Endpoint:
    """One endpoint and what is known of it; connections and listings by model key, since names may depend on it."""

    url: str
    listings: dict[str | None, Listing] = field(default_factory=dict)
    misses: int = 0
    metrics: EngineMetrics = field(default_factory=EngineMetrics)
    read_at: float = 0.0
    rates: EngineRates = field(default_factory=EngineRates)

    @property
    def up(self) -> bool:
        return self.misses < MISSES and any(not listing.problem for listing in self.listings.values())

    def has(self, model: str, key: str | None) -> bool:
        listing = self.listings.get(key)
        return self.up and listing is not None and model in listing.names

    @property
    def problem(self) -> str:
        return next((listing.problem for listing in self.listings.values() if listing.problem), "")


def pooled_models(config: RunConfig) -> tuple[str, ...]:
    """Names of the models that endpoints serve: without an address of their own and without engines."""
    return tuple(
        name for name, model in config.models.items() if model.base_url is None and config.engine_of(name) is None
    )


def read_listing(data: bytes) -> Listing:
    """The body of a successful answer to `GET /models`, whatever it contains."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return Listing(problem="/models is no JSON")
    entries = parsed.get("data") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        return Listing(problem="/models lists nothing")
    found = (entry.get("id") for entry in entries[:_MOST_NAMES] if isinstance(entry, dict))
    return Listing(frozenset(name for name in found if isinstance(name, str)))


class EndpointPool:
    """The servers of `pool.endpoints`, watched from `start` to `close`. Of one event loop.

    Every endpoint is asked with the key of every model that it may serve, as far as these have keys.
    """

    def __init__(self, config: RunConfig, look_every_s: float = LOOK_EVERY_S, patience_s: float = PATIENCE_S) -> None:
        """Raises UsageError for a model's key that is missing."""
        self._look_every_s = look_every_s
        self._patience_s = patience_s
        self._models = {name: config.models[name].model for name in pooled_models(config)}
        self._keys = {name: read_key(name, config.models[name]) for name in self._models}
        self._endpoints = [_Endpoint(url) for url in dict.fromkeys(url.rstrip("/") for url in config.pool.endpoints)]
        self._connections: dict[tuple[str, str | None], Connection] = {}
        self._view = PoolView()
        self._news = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Ask every endpoint what it has, and go on watching.

        Raises UsageError, one line, for a model that none has: what each has instead, or why it did not say.
        """
        deadline = time.monotonic() + self._patience_s
        while True:
            await self._look()
            missing = self._missing()
            if not missing:
                break
            if time.monotonic() >= deadline or all(endpoint.up for endpoint in self._endpoints):
                raise UsageError(self._nowhere(missing[0]))
            await asyncio.sleep(min(1.0, self._look_every_s))
        self._watch = asyncio.create_task(self._watching())

    def view(self) -> PoolView:
        """What answers now."""
        return self._view

    async def changed(self, after: PoolView) -> PoolView:
        """The view, once it differs from `after`. Raises what ended the watch, if anything did."""
        while self._view == after:
            if self._watch is not None and self._watch.done():
                self._watch.result()
            await self._news.wait()
        return self._view

    def stats(self) -> list[EndpointStatus]:
        """Every endpoint, in the order of the config."""
        return [EndpointStatus(e.url, e.up, self._served_by(e), e.problem, e.metrics, e.rates) for e in self._endpoints]

    async def close(self) -> None:
        """Safe to call twice."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        connections, self._connections = self._connections, {}
        await asyncio.gather(*(connection.close() for connection in connections.values()))

    async def _watching(self) -> None:
        try:
            while True:
                await asyncio.sleep(self._look_every_s)
                await self._look()
        finally:
            self._tell()

    async def _look(self) -> None:
        """Ask all of them once and renew the view."""
        await asyncio.gather(*(self._ask(endpoint) for endpoint in self._endpoints))
        view = PoolView({name: tuple(self._servers(name)) for name in self._models})
        if view != self._view:
            self._view = view
            self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _ask(self, endpoint: _Endpoint) -> None:
        keys = list(dict.fromkeys(self._keys.values()))
        listings, metrics = await asyncio.gather(
            asyncio.gather(*(self._list(endpoint, key) for key in keys)), self._read_metrics(endpoint)
        )
        told = dict(zip(keys, listings, strict=True))
        if any(not listing.problem for listing in told.values()):
            endpoint.misses = 0
            endpoint.listings = told
        else:
            endpoint.misses += 1
            if not endpoint.up:
                endpoint.listings = told
        now = time.monotonic()
        endpoint.rates = rates(endpoint.metrics, metrics, now - endpoint.read_at)
        endpoint.metrics, endpoint.read_at = metrics, now

    async def _list(self, endpoint: _Endpoint, key: str | None) -> Listing:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                answer = await self._connection(endpoint.url, key).get("/models")
        except TimeoutError:
            return Listing(problem=f"no answer within {LOOK_TIMEOUT_S:g} s")
        except NoAnswerError as error:
            return Listing(problem=one_line(str(error), key))
        if answer.status != 200:
            return Listing(problem=one_line(f"HTTP {answer.status}: {read_error(answer.content).message}", key))
        return read_listing(answer.content)

    async def _read_metrics(self, endpoint: _Endpoint) -> EngineMetrics:
        key = next(iter(self._keys.values()), None)
        return await metrics_of(self._connection(endpoint.url.removesuffix("/v1"), key), METRICS_TIMEOUT_S)

    def _connection(self, url: str, key: str | None) -> Connection:
        if (url, key) not in self._connections:
            self._connections[url, key] = Connection(url, key, connect_s=LOOK_TIMEOUT_S / 2)
        return self._connections[url, key]

    def _served_by(self, endpoint: _Endpoint) -> tuple[str, ...]:
        return tuple(name for name, model in self._models.items() if endpoint.has(model, self._keys[name]))

    def _servers(self, name: str) -> Iterable[Server]:
        for endpoint in self._endpoints:
            if endpoint.has(self._models[name], self._keys[name]):
                yield Server(endpoint.url, endpoint.url, endpoint.metrics.load or 0.0)

    def _missing(self) -> list[str]:
        """Models that no endpoint serves."""
        return [name for name, servers in self._view.servers.items() if not servers]

    def _nowhere(self, name: str) -> str:
        key = self._keys[name]
        told = "; ".join(_told(endpoint.url, endpoint.listings.get(key, Listing())) for endpoint in self._endpoints)
        return f"models.{name}: no endpoint has {self._models[name]!r}: {told}; set models.{name}.model to one of these"


def _told(url: str, listing: Listing) -> str:
    place = place_of(url)
    if listing.problem:
        return f"{place} does not say what it has ({listing.problem})"
    if not listing.names:
        return f"{place} has none"
    names: Sequence[str] = sorted(listing.names)
    more = f" and {len(names) - _TOLD_NAMES} more" if len(names) > _TOLD_NAMES else ""
    return f"{place} has {one_line(', '.join(names[:_TOLD_NAMES]), None)}{more}"
