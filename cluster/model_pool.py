"""The model servers of a run on the cluster's GPUs: started, watched, replaced, ended.

Lives in the driver's event loop and owns placement groups and replica actors, so that all of them end with it. It
answers no requests: clients ask the servers of its view directly. `docs/model_pool.md` tells how it is run.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError
from adrs_ray.generator.engine_metrics import read_metrics
from adrs_ray.generator.routing import PoolView, Server
from cluster.engine import engine_specs
from cluster.fit import NodeRoom, fit
from cluster.nodes import nodes_of_cluster
from cluster.replica_keeper import ReplicaKeeper, ReplicaState, ReplicaStatus

METRICS_EVERY_S = 2.0
DRAIN_TICK_S = 0.25
WAITING_EVERY_S = 60.0
"""Between two lines about replicas that have waited for a place longer than a start may take."""

Progress = Callable[[str], None]


def holds_every_gpu(nodes: Iterable[NodeRoom], config: RunConfig) -> bool:
    """Whether engines leave no GPU to others, so that they have to sleep while one is needed.

    Raises UsageError, one line, when the cluster can never host them.
    """
    left = fit(list(nodes), config, ()).left
    served = any(engine.device == "cuda" for engine in config.pool.models.values())
    return served and sum(node.gpus for node in left) < 1


def progress_line(statuses: Iterable[ReplicaStatus]) -> str:
    """Such as `2 of 5 small up, 1 of 2 strong`; the models in the order of the config."""
    up: dict[str, list[bool]] = {}
    for status in statuses:
        up.setdefault(status.model, []).append(status.state in (ReplicaState.UP, ReplicaState.ASLEEP))
    parts = [f"{sum(each)} of {len(each)} {model}" for model, each in up.items()]
    return ", ".join([f"{parts[0]} up", *parts[1:]]) if parts else ""


def waiting_line(statuses: Iterable[ReplicaStatus], patience_s: Mapping[str, float]) -> str:
    """Such as `strong 1 of 2 waits for 4 GPUs on one node`; of each model, those that have waited longer than its
    `patience_s`. "" when there are none."""
    by_model: dict[str, list[ReplicaStatus]] = {}
    for status in statuses:
        by_model.setdefault(status.model, []).append(status)
    parts = []
    for model, each in by_model.items():
        if count := sum(status.queued_s > patience_s[model] for status in each):
            gpus = each[0].gpus
            place = f"{gpus} GPU{'s on one node' * (gpus > 1)}" if gpus else "CPUs"
            parts.append(f"{model} {count} of {len(each)} wait{'s' * (count == 1)} for {place}{' each' * (count > 1)}")
    return ", ".join(parts)


def by_name(config: RunConfig, by_engine: Mapping[str, tuple[Server, ...]]) -> dict[str, tuple[Server, ...]]:
    """The servers of each of `models` that engines serve: two names may ask for one model, one engine answers both."""
    engines = {name: config.engine_of(name) for name in config.models}
    return {name: by_engine.get(engine, ()) for name, engine in engines.items() if engine is not None}


class ModelPool:
    """Servers of `config.pool.models`. `name` is the run's, or the pool's where runs share it.

    `may_sleep`: engines are started so that they can leave their GPUs for a while; by default where `pool.one_gpu`
    allows it and they hold every GPU.
    """

    def __init__(self, config: RunConfig, name: str, may_sleep: bool | None = None) -> None:
        """Raises UsageError, one line, for engine settings that cannot be."""
        engine_specs(config, name)
        self._config = config
        self._name = name
        self._may_sleep = may_sleep
        self._key = secrets.token_urlsafe(24)
        self._keepers: list[ReplicaKeeper] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._awake = asyncio.Event()
        self._awake.set()
        self._turn = asyncio.Lock()
        self._view = self._compose()
        self._news = asyncio.Event()
        self._broken: BaseException | None = None
        self._on_progress: Progress = lambda line: None
        self._last_line = ""
        self._losses = 0
        self._closed = False
        self.sleeps: bool | None = None
        """Whether the engines are started so that they can leave their GPUs; None before that is decided."""

    async def start(self, on_progress: Progress = lambda line: None) -> None:
        """Start every replica; returns when each model has one that answers, the others keep coming up.

        `on_progress` gets a line at each change, then and later, and until then one a minute about replicas that have
        waited for a place for `start_timeout_s`: another run may hold it, and wait for ours. Raises UsageError when the
        cluster can never host them, RunError when the first starts of all replicas of a model have failed.
        """
        self._on_progress = on_progress
        holds_all = holds_every_gpu(nodes_of_cluster(), self._config)
        by_default = holds_all and self._config.pool.one_gpu == "auto"
        self.sleeps = by_default if self._may_sleep is None else self._may_sleep
        specs = engine_specs(self._config, self._name, self._key, self.sleeps)
        self._keepers = [ReplicaKeeper(spec, self._awake, self._refresh) for spec in specs]
        self._tasks = [asyncio.create_task(keeper.keep()) for keeper in self._keepers]
        self._tasks.append(asyncio.create_task(self._read_metrics()))
        for task in self._tasks:
            task.add_done_callback(self._ended)
        telling = asyncio.create_task(self._tell_what_waits())
        try:
            while not self._each_answers():
                news = self._news
                self._check_hope()
                await news.wait()
        except BaseException:
            await self.close()
            raise
        finally:
            telling.cancel()

    def view(self) -> PoolView:
        """What answers now; while the pool is asleep, or waits for that, nothing of it accepts requests."""
        return self._view

    async def changed(self, after: PoolView) -> PoolView:
        """The view once it differs from `after`; loads alone differ every two seconds at most."""
        while self._view == after:
            self._check_broken()
            await self._news.wait()
        return self._view

    def stats(self) -> list[ReplicaStatus]:
        """Every replica, by model in the config's order, then by number."""
        order = list(self._config.pool.models)
        statuses = [keeper.status() for keeper in self._keepers]
        return sorted(statuses, key=lambda status: (order.index(status.model), status.number))

    def gpus(self) -> list[tuple[str, tuple[str, ...]]]:
        """Node id and device ids of each replica that has its GPUs."""
        return [(k.place.node_id, k.place.devices) for k in self._keepers if k.place is not None and k.place.devices]

    async def sleep(self) -> float:
        """Let every engine leave its GPUs; seconds that took, the wait for running requests not counted.

        Requests are waited for as long as one may take; nothing is started again until `wake`. May be called again.
        """
        async with self._turn:
            self._awake.clear()
            self._refresh()
            await self._no_starts()
            await self._drained()
            begun = time.monotonic()
            await asyncio.gather(*(keeper.sleep() for keeper in self._having(ReplicaState.UP)))
            return time.monotonic() - begun

    async def wake(self) -> float:
        """Let them come back; seconds."""
        async with self._turn:
            begun = time.monotonic()
            await asyncio.gather(*(keeper.wake() for keeper in self._having(ReplicaState.ASLEEP)))
            self._awake.set()
            self._refresh()
            return time.monotonic() - begun

    async def close(self) -> None:
        """End every engine at once, whatever it runs, and give back every place. May be called again."""
        self._closed = True
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        keepers, self._keepers = self._keepers, []
        await asyncio.gather(*(keeper.close() for keeper in keepers))
        self._publish(self._compose())

    def _each_answers(self) -> bool:
        answering = {keeper.spec.model for keeper in self._keepers if keeper.server is not None}
        return answering == self._config.pool.models.keys()

    def _check_hope(self) -> None:
        """Raise RunError when the first start of every replica of a model has failed."""
        self._check_broken()
        for model in self._config.pool.models:
            keepers = [keeper for keeper in self._keepers if keeper.spec.model == model]
            if all(keeper.failed_first for keeper in keepers):
                count = f"none of {len(keepers)} engines starts" if len(keepers) > 1 else "its engine does not start"
                raise RunError(f"pool.models.{model}: {count}: {keepers[0].error}")

    def _check_broken(self) -> None:
        if self._broken is not None:
            raise self._broken

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self._broken = task.exception()
            self._wake_listeners()

    def _having(self, state: ReplicaState) -> list[ReplicaKeeper]:
        return [keeper for keeper in self._keepers if keeper.state is state]

    def _compose(self) -> PoolView:
        """Engines that sleep, or are about to, are told all the same: what they run is waited for, not asked again."""
        accept, there = self._awake.is_set(), (ReplicaState.UP, ReplicaState.ASLEEP)
        by_engine: dict[str, tuple[Server, ...]] = {}
        for model in self._config.pool.models:
            mine = sorted((k for k in self._keepers if k.spec.model == model), key=lambda k: k.spec.number)
            answering = [keeper.server for keeper in mine if keeper.server is not None and keeper.state in there]
            by_engine[model] = tuple(replace(server, accepts=accept) for server in answering)
        return PoolView(by_name(self._config, by_engine), key=self._key)

    def _refresh(self) -> None:
        """After any change: the view, a line of progress, a line for each loss."""
        self._publish(self._compose())
        if self._closed:
            return
        losses = sum(keeper.losses for keeper in self._keepers)
        if losses > self._losses:
            lost = self._having(ReplicaState.LOST)
            if lost:
                self._on_progress(f"lost {lost[-1].error}")
            self._losses = losses
        line = progress_line(self.stats())
        if line != self._last_line:
            self._last_line = line
            self._on_progress(line)

    def _publish(self, view: PoolView) -> None:
        self._view = view
        self._wake_listeners()

    def _wake_listeners(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()

    async def _tell_what_waits(self) -> None:
        patience_s = {name: engine.start_timeout_s for name, engine in self._config.pool.models.items()}
        while True:
            await asyncio.sleep(WAITING_EVERY_S)
            if line := waiting_line(self.stats(), patience_s):
                self._on_progress(line)

    async def _read_metrics(self) -> None:
        """Again and again; a replica that does not say keeps what it said last."""
        while True:
            await asyncio.sleep(METRICS_EVERY_S)
            if self._awake.is_set():
                await self._read_once()
                self._publish(self._compose())

    async def _read_once(self) -> float:
        """Requests that the engines run or let wait, of those that say."""
        up = self._having(ReplicaState.UP)
        loads = await asyncio.gather(*(self._load(keeper) for keeper in up))
        return sum(loads)

    async def _load(self, keeper: ReplicaKeeper) -> float:
        server = keeper.server
        if server is None:
            return 0.0
        metrics = await read_metrics(server.base_url, self._key)
        if metrics is None:
            return server.load
        if keeper.server is not None and keeper.server.id == server.id:
            keeper.told(metrics, time.monotonic())
        return metrics.load or 0.0

    async def _no_starts(self) -> None:
        """Wait for replicas that are starting: they use their GPUs."""
        while self._having(ReplicaState.STARTING):
            await self._news.wait()

    async def _drained(self) -> None:
        """Wait until the engines run nothing, at most as long as a request may take."""
        served = [self._config.models[model] for model in self._config.pool.models]
        deadline = time.monotonic() + max(model.timeout_s for model in served)
        while await self._read_once() > 0 and time.monotonic() < deadline:
            await asyncio.sleep(DRAIN_TICK_S)
