"""One model pool for several runs of a cluster: `pool.name`.

A detached actor of that name owns the pool and outlives the run that started it. Runs hold leases that they renew;
each gets its share of every server. When no run has held a lease for `LEASE_S` the actor ends, and the pool with it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import RunError, UsageError, one_line
from adrs_ray.generator.routing import PoolView
from cluster.calls import LOST, answer
from cluster.model_pool import ModelPool, Progress, by_name
from cluster.replica_keeper import ReplicaStatus

NAMESPACE = "adrs-pools"
LEASE_S = 20.0
"""How long a run that says nothing keeps its lease, and a pool without runs is kept."""
RENEW_S = 3.0
JOIN_S = 60.0
"""How long a run tries to join: a pool of that name may just be ending."""
_LINES_KEPT = 100
_log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class PoolEndsError(Exception):
    """The pool ends: another one can be started soon."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The pool as one run sees it."""

    version: int
    view: PoolView
    started: bool
    """Each model has a server, or had one."""
    failure: str | None
    """Why the pool cannot be: one line."""
    unusable: bool
    """The failure is the config's."""
    statuses: tuple[ReplicaStatus, ...]
    gpus: tuple[tuple[str, tuple[str, ...]], ...]
    lines: tuple[str, ...]
    """Of progress, those that this run has not seen."""


def shared_part(config: RunConfig) -> dict[str, Any]:
    """What runs that share a pool must agree on, by dotted key."""
    told: dict[str, Any] = {
        "pool.python": config.pool.python,
        "pool.max_in_flight": config.pool.max_in_flight,
        "pool.one_gpu": config.pool.one_gpu,
        "pool.models": sorted(config.pool.models),
    }
    for name, engine in config.pool.models.items():
        told |= {f"pool.models.{name}.{key}": value for key, value in engine.model_dump().items()}
        told[f"models.{name}.model"] = config.models[name].model
        told[f"models.{name}.context_tokens"] = config.models[name].context_tokens
    return told


def disagreement(name: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> str | None:
    """One line about the first difference; None when there is none."""
    for key in [*here, *there]:
        if there.get(key) != here.get(key):
            return (
                f"the pool {name!r} is in use with {key} {there.get(key)!r}, this config says {here.get(key)!r}: "
                "give the same, or another pool.name"
            )
    return None


class Leases:
    """Who uses the pool; pure, told the time."""

    def __init__(self, now: float) -> None:
        self._until: dict[str, float] = {}
        self._idle_since = now

    def renew(self, run: str, now: float) -> bool:
        """Whether it is a new one."""
        new = run not in self._until
        self._until[run] = now + LEASE_S
        return new

    def leave(self, run: str, now: float) -> bool:
        """Whether it had one."""
        had = self._until.pop(run, None) is not None
        if not self._until:
            self._idle_since = now
        return had

    def expire(self, now: float) -> list[str]:
        """Those who have said nothing for too long, and now have none."""
        gone = [run for run, until in self._until.items() if until <= now]
        for run in gone:
            self.leave(run, now)
        return gone

    def abandoned(self, now: float) -> bool:
        """Whether nobody has had a lease for `LEASE_S`, however the last one ended."""
        return not self._until and now - self._idle_since >= LEASE_S

    def __contains__(self, run: str) -> bool:
        return run in self._until

    def __len__(self) -> int:
        return len(self._until)


class PoolHost:
    """The detached actor."""

    def __init__(self, config: dict[str, Any], name: str, may_sleep: bool | None) -> None:
        self._config = parse_config(config, f"shared pool {name}")
        self._name = name
        # A run that has no need of it is no reason to refuse the next one that has.
        self._pool = ModelPool(self._config, name, may_sleep or None)
        self._leases = Leases(time.monotonic())
        self._version = 0
        self._news = asyncio.Event()
        self._lines: list[tuple[int, str]] = []
        self._started = False
        self._failure: str | None = None
        self._unusable = False
        self._ending = False
        self._sleeper: str | None = None
        self._turn = asyncio.Condition()
        self._running: asyncio.Task[None] | None = None

    async def join(self, run: str, wanted: dict[str, Any], needs_sleep: bool = False) -> int:
        """Take a lease; the version before it. Raises UsageError when the pool is another one, or never sleeps and
        the run needs that; PoolEndsError when it ends."""
        if self._ending:
            raise PoolEndsError
        if (told := disagreement(self._name, shared_part(self._config), wanted)) is not None:
            raise UsageError(told)
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        if needs_sleep and not await self._sleeps():
            raise UsageError(
                f"the pool {self._name!r} was started without sleep mode, and this run measures candidates on the GPUs "
                "of its engines: give another pool.name, or start when no run uses the pool"
            )
        before = self._version
        if self._leases.renew(run, time.monotonic()):
            self._changed()
        return before

    async def follow(self, run: str, seen: int) -> Snapshot:
        """The pool when it differs from version `seen`, or after `RENEW_S`; renews the lease."""
        if self._ending and self._failure is None:
            raise PoolEndsError
        if self._leases.renew(run, time.monotonic()):
            self._changed()
        if self._version == seen:
            try:
                await asyncio.wait_for(self._news.wait(), RENEW_S)
            except TimeoutError:
                pass
        lines = tuple(line for version, line in self._lines if version > seen)
        view = replace(self._pool.view(), share=1.0 / max(1, len(self._leases)))
        statuses, gpus = tuple(self._pool.stats()), tuple(self._pool.gpus())
        return Snapshot(self._version, view, self._started, self._failure, self._unusable, statuses, gpus, lines)

    async def leave(self, run: str) -> None:
        """Give the lease back."""
        if self._leases.leave(run, time.monotonic()):
            await self._left(run)
            self._changed()

    async def sleep(self, run: str) -> float:
        """As `ModelPool.sleep`; waits while another run has the GPUs. Raises RunError for a run without a lease."""
        async with self._turn:
            await self._turn.wait_for(lambda: run not in self._leases or self._sleeper in (None, run))
            if run not in self._leases:
                raise RunError(f"the pool {self._name!r} does not sleep for a run that has no lease of it")
            self._sleeper = run
        return await self._pool.sleep()

    async def wake(self, run: str) -> float:
        if self._sleeper != run:
            return 0.0
        seconds = await self._pool.wake()
        async with self._turn:
            if self._sleeper == run:  # another call may have given the turn to another run meanwhile
                self._sleeper = None
            self._turn.notify_all()
        return seconds

    async def _left(self, run: str) -> None:
        """Whatever this run, which has no lease any more, has or waits for is given up."""
        async with self._turn:
            self._turn.notify_all()
        await self.wake(run)

    async def _expire(self) -> None:
        for run in self._leases.expire(time.monotonic()):
            self._changed(f"{run.rpartition('#')[0]} has not renewed its lease of the pool")
            await self._left(run)

    async def _sleeps(self) -> bool:
        """Whether the engines are started so that they can sleep; a pool that fails says so by itself."""
        while (sleeps := self._pool.sleeps) is None and self._failure is None:
            await asyncio.sleep(0.05)
        return sleeps is not False

    def _changed(self, line: str | None = None) -> None:
        self._version += 1
        if line is not None:
            self._lines = [*self._lines, (self._version, line)][-_LINES_KEPT:]
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _run(self) -> None:
        """The pool's whole life; this actor ends with it."""
        upkeep = asyncio.create_task(self._keep())
        try:
            while not upkeep.done() and not self._leases.abandoned(time.monotonic()):
                await asyncio.wait([upkeep], timeout=1.0)
                await self._expire()
        finally:
            self._ending = True
            upkeep.cancel()
            await asyncio.gather(upkeep, return_exceptions=True)
            await self._pool.close()
            self._changed()
            if self._failure is not None:
                await asyncio.sleep(2 * RENEW_S)  # until each run has heard of it
            ray.kill(ray.get_runtime_context().current_actor)

    async def _keep(self) -> None:
        try:
            await self._pool.start(self._changed)
            self._started = True
            view = self._pool.view()
            while True:
                self._changed()
                view = await self._pool.changed(view)
        except (UsageError, RunError) as error:
            self._failure, self._unusable = str(error), isinstance(error, UsageError)
        except Exception as error:  # the boundary of this actor: its runs are told, not left to start it again
            _log.exception("the shared pool %s failed", self._name)
            self._failure = f"the pool {self._name!r} failed: {type(error).__name__}: {' '.join(str(error).split())}"


class SharedPool:
    """A run's side of a shared pool: what `ModelPool` has, over the actor."""

    def __init__(self, config: RunConfig, run: str, may_sleep: bool | None = None) -> None:
        """Raises UsageError, one line, for engine settings that cannot be."""
        assert config.pool.name is not None
        ModelPool(config, config.pool.name)  # says what is wrong with the config, here
        self._config = config
        self._name = config.pool.name
        self._run = f"{run}#{secrets.token_hex(4)}"
        self._needs_sleep = bool(may_sleep)
        self._host: Any = None
        self._snapshot: Snapshot | None = None
        self._joined_at = 0
        self._view = PoolView()
        self._news = asyncio.Event()
        self._on_progress: Progress = lambda line: None
        self._following: asyncio.Task[None] | None = None

    async def start(self, on_progress: Progress = lambda line: None) -> None:
        """Join the pool, or start it; returns when each model has a server. Raises as `ModelPool.start`, and UsageError
        when the pool is there with other engines, or without the sleep mode that this run needs."""
        self._on_progress = on_progress
        try:
            await self._join()
            self._following = asyncio.create_task(self._follow())
            while self._snapshot is None or not self._snapshot.started:
                news = self._news
                self._check()
                await news.wait()
        except BaseException:
            await self.close()
            raise

    def view(self) -> PoolView:
        """What answers now, with this run's share of it."""
        return self._view

    async def changed(self, after: PoolView) -> PoolView:
        """The view once it differs. Raises RunError when the pool is lost and cannot be started again."""
        while self._view == after:
            self._check()
            await self._news.wait()
        return self._view

    def stats(self) -> list[ReplicaStatus]:
        return [] if self._snapshot is None else list(self._snapshot.statuses)

    def gpus(self) -> list[tuple[str, tuple[str, ...]]]:
        return [] if self._snapshot is None else list(self._snapshot.gpus)

    async def sleep(self) -> float:
        """Let the engines leave their GPUs to this run; waits while they have left them to another."""
        return await self._asked(lambda: self._host.sleep.remote(self._run))

    async def wake(self) -> float:
        return await self._asked(lambda: self._host.wake.remote(self._run))

    async def close(self) -> None:
        """Leave the pool; it ends when nobody else has joined for a while. May be called again."""
        following, self._following = self._following, None
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        host, self._host = self._host, None
        if host is not None:
            try:
                await asyncio.wait_for(answer(host.leave.remote(self._run)), RENEW_S)
            except (RayError, TimeoutError):
                pass  # gone with the lease

    async def _asked(self, ask: Callable[[], Awaitable[_Result]]) -> _Result:
        try:
            return await answer(ask())
        except LOST as error:
            raise RunError(f"the pool {self._name!r} was lost: {one_line(error, 200)}") from None

    def _check(self) -> None:
        """Raise what ended the pool."""
        if self._following is not None and self._following.done() and not self._following.cancelled():
            self._following.result()
        if self._snapshot is not None and self._snapshot.failure is not None:
            kind = UsageError if self._snapshot.unusable else RunError
            raise kind(self._snapshot.failure)

    async def _join(self) -> None:
        """Find the actor or start it. Raises UsageError, and RunError when it cannot be had."""
        actor_class = ray.remote(PoolHost).options(
            name=self._name,
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=0,
            max_concurrency=1000,
        )
        deadline = time.monotonic() + JOIN_S
        while True:
            try:
                host: Any = actor_class.remote(self._config.model_dump(), self._name, self._needs_sleep)
                joining = host.join.remote(self._run, shared_part(self._config), self._needs_sleep)
                self._joined_at = await answer(joining)
                self._host = host
                return
            except (*LOST, PoolEndsError) as error:
                if time.monotonic() >= deadline:
                    told = " ".join(str(error).split())[:200] or "it is ending"
                    raise RunError(f"the pool {self._name!r} cannot be joined: {told}") from None
                await asyncio.sleep(0.5)

    async def _follow(self) -> None:
        """Until cancelled, or the pool has failed."""
        try:
            while self._snapshot is None or self._snapshot.failure is None:
                try:
                    snapshot = await answer(self._host.follow.remote(self._run, self._seen))
                except (*LOST, PoolEndsError):
                    self._snapshot = None
                    self._publish(PoolView())
                    self._on_progress(f"the pool {self._name!r} was lost: starting it again")
                    await self._join()
                    continue
                self._snapshot = snapshot
                # The actor knows the names of the run that started it; this one may have others for the same models.
                self._publish(replace(snapshot.view, servers=by_name(self._config, snapshot.view.servers)))
                for line in snapshot.lines:
                    self._on_progress(line)
        finally:
            self._publish(PoolView() if self._snapshot is None else self._view)

    @property
    def _seen(self) -> int:
        """What was told before this run joined is no news to it."""
        return self._joined_at if self._snapshot is None else self._snapshot.version

    def _publish(self, view: PoolView) -> None:
        self._view = view
        news, self._news = self._news, asyncio.Event()
        news.set()
