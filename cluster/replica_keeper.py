"""Keeps one replica there: places its actor, starts it, says when it answers, starts another when it is lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from adrs_ray.errors import RunError, one_line
from adrs_ray.generator.engine_metrics import EngineMetrics, EngineRates, rates
from adrs_ray.generator.routing import Server
from cluster.calls import answer
from cluster.engine import EngineSpec
from cluster.replica import Announcement, Place, ReplicaActor

_log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 60.0
STEADY_S = 60.0
"""A replica that answered for so long and is lost is replaced without a pause, as if it were the first."""
CLOSE_S = 6.0
"""What an actor has to end its engine in good order, before it is killed and the guard does it."""


class ReplicaState(StrEnum):
    QUEUED = "waits for a place"
    STARTING = "starting"
    UP = "up"
    ASLEEP = "asleep"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class ReplicaStatus:
    """One replica as the pool sees it now."""

    id: str
    """Of this start; "" before it ever answered."""
    model: str
    number: int
    state: ReplicaState
    base_url: str = ""
    node_id: str = ""
    host: str = ""
    devices: tuple[str, ...] = ()
    gpus: int = 0
    metrics: EngineMetrics = field(default_factory=EngineMetrics)
    """What it said last: requests in the batch and in line, tokens since its start."""
    rates: EngineRates = field(default_factory=EngineRates)
    """Tokens a second and cache hits between the last two readings."""
    start_s: float | None = None
    sleep_s: float | None = None
    """Seconds of the last change to sleep, and to wake."""
    wake_s: float | None = None
    losses: int = 0
    """Failed starts and losses, since the pool was started."""
    error: str = ""
    """Why it was lost last."""
    queued_s: float = 0.0
    """How long it has waited for a place; 0 while it does not."""


def pause_s(failures: int) -> float:
    """Before another start, after so many failures in a row."""
    return 0.0 if failures == 0 else min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30))


class ReplicaKeeper:
    """One replica. `awake` is cleared while nothing may start; `on_change` is called with every change of state."""

    def __init__(self, spec: EngineSpec, awake: asyncio.Event, on_change: Callable[[], None]) -> None:
        self.spec = spec
        self.state = ReplicaState.QUEUED
        self.server: Server | None = None
        self.failed_first = False
        """Its first start failed, and no later one has succeeded."""
        self.losses = 0
        self.error = ""
        self._awake = awake
        self._on_change = on_change
        self._id = ""
        self._place: Place | None = None
        self._actor: Any = None
        self._group: Any = None
        self._announced: Announcement | None = None
        self._told: tuple[float, EngineMetrics] | None = None
        self._rates = EngineRates()
        self._sleep_s: float | None = None
        self._wake_s: float | None = None
        self._ended_because = ""
        self._since = time.monotonic()
        """Of its state."""

    @property
    def place(self) -> Place | None:
        """Where it is; None while it is nowhere."""
        return self._place

    async def keep(self) -> None:
        """Until cancelled."""
        failures = 0
        while True:
            await self._awake.wait()
            self._become(ReplicaState.QUEUED)
            up_at: float | None = None
            try:
                up_at = await self._start()
                raise RunError(await answer(self._actor.lost.remote()))
            except RunError as error:
                self.error = str(error)
            except RayError as error:
                told = one_line(error, 200)
                self.error = self._ended_because or f"{self.spec.marker}: its actor or node was lost: {told}"
            except Exception as error:  # what its node refused, as a full disk does: another start may be on another
                _log.warning("a start of %s failed", self.spec.marker, exc_info=True)
                told = " ".join(str(error).split())[:200]
                self.error = f"{self.spec.marker}: {type(error).__name__}{': ' + told if told else ''}"
            self._forget()
            self.losses += 1
            self.failed_first |= up_at is None
            failures = 0 if up_at is not None and time.monotonic() - up_at >= STEADY_S else failures + 1
            self._become(ReplicaState.LOST)
            await asyncio.sleep(pause_s(failures))

    async def sleep(self) -> None:
        """Leave the GPUs. One that refuses is ended: they are needed."""
        try:
            self._sleep_s = await answer(self._actor.sleep.remote())
        except (RunError, RayError) as error:
            await self.end(f"{self.spec.marker}: it does not sleep: {error}")
        else:
            if self.state is ReplicaState.UP:
                self._become(ReplicaState.ASLEEP)

    async def wake(self) -> None:
        """One that does not wake is ended, and replaced."""
        try:
            self._wake_s = await answer(self._actor.wake.remote())
        except (RunError, RayError) as error:
            await self.end(f"{self.spec.marker}: it does not wake: {error}")
        else:
            if self.state is ReplicaState.ASLEEP:
                self._become(ReplicaState.UP)

    async def end(self, why: str = "") -> None:
        """End the engine and the actor; `keep`, where it runs, takes it for a loss."""
        actor, self._ended_because = self._actor, " ".join(why.split())
        if actor is not None:
            try:
                await asyncio.wait_for(answer(actor.close.remote()), CLOSE_S)
            except (RunError, RayError, TimeoutError):
                pass
            ray.kill(actor)

    async def close(self) -> None:
        """As `end`, and give back the place. `keep` must have been cancelled."""
        await self.end()
        self._forget()
        group, self._group = self._group, None
        if group is not None:
            await asyncio.to_thread(remove_placement_group, group)

    def told(self, metrics: EngineMetrics, now: float) -> None:
        """What the engine said of itself."""
        if self.server is None:
            return
        if self._told is not None:
            before, last = self._told
            self._rates = rates(last, metrics, now - before)
        self._told = (now, metrics)
        if metrics.load is not None:
            self.server = replace(self.server, load=metrics.load)

    def status(self) -> ReplicaStatus:
        spec, place = self.spec, self._place
        return ReplicaStatus(
            id=self._id,
            model=spec.model,
            number=spec.number,
            state=self.state,
            base_url=self._announced.base_url if self._announced else "",
            node_id=place.node_id if place else "",
            host=place.host if place else "",
            devices=place.devices if place else (),
            gpus=spec.gpus,
            metrics=EngineMetrics() if self._told is None else self._told[1],
            rates=self._rates,
            start_s=self._announced.start_s if self._announced else None,
            sleep_s=self._sleep_s,
            wake_s=self._wake_s,
            losses=self.losses,
            error=self.error,
            queued_s=time.monotonic() - self._since if self.state is ReplicaState.QUEUED and place is None else 0.0,
        )

    async def _start(self) -> float:
        """Place and start it; the time from which it answers."""
        spec = self.spec
        if self._group is None:
            # Kept when a replica is lost, so that nobody else takes its GPUs; Ray moves it when the node is lost.
            bundle = {"CPU": spec.engine.cpus} | ({"GPU": spec.gpus} if spec.gpus else {})
            self._group = placement_group([bundle], strategy="STRICT_PACK")
        options = ray.remote(ReplicaActor).options(
            num_cpus=spec.engine.cpus,
            num_gpus=spec.gpus,
            max_restarts=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=0),
        )
        self._ended_because = ""
        self._actor = options.remote(spec)
        self._place = await answer(self._actor.place.remote())
        # It may have waited for its place into a turn of the candidates, who measure on its GPUs now.
        while not self._awake.is_set():
            await self._awake.wait()
        self._become(ReplicaState.STARTING)
        announced: Announcement = await answer(self._actor.start.remote())
        self._announced = announced
        self._id = f"{spec.model}-{spec.number}-{secrets.token_hex(4)}"
        self.server = Server(self._id, announced.base_url)
        self.failed_first = False
        self._become(ReplicaState.UP)
        return time.monotonic()

    def _forget(self) -> None:
        actor, self._actor = self._actor, None
        if actor is not None:
            ray.kill(actor)
        self.server = self._place = self._announced = self._told = None
        self._rates = EngineRates()

    def _become(self, state: ReplicaState) -> None:
        if state is not self.state:
            self._since = time.monotonic()
        self.state = state
        self._on_change()
