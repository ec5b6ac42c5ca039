"""One evaluation slot as a Ray actor: a `LocalEvaluator` of one slot behind a door (`cluster.line`) of its own.

Ray starts it, restarts it and says where it is; jobs come over the wire.
"""

from __future__ import annotations

import asyncio
import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray

from adrs_ray.candidate import Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.isomorphic import disguised
from adrs_ray.task import load_task
from cluster.devices import CHECK_EVERY_S, Health, read_devices
from cluster.dispatch import Answer
from cluster.line import Line
from cluster.node_cache import TaskParcel, unpack_task
from cluster.wire import Address, WireServer

METHODS = ("evaluate", "stand_in_line", "leave", "refusal", "status")
"""What a slot serves over the wire."""
RECHECK_S = 1.0
"""Between two checks of a device that may be in trouble."""


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """Where one start of a slot listens, and where its node's raylet does: it tells whether the node lives."""

    address: Address
    node: str
    raylet: tuple[str, int]


@dataclass(frozen=True, slots=True)
class SlotStatus:
    """What a slot has done since it was started."""

    stages: tuple[str, ...]
    """Those it serves; none named: all that need no GPU."""
    node: str = ""
    """Ray's id of it; empty when the slot does not answer."""
    pid: int = 0
    devices: str = ""
    up_s: float = 0.0
    busy_s: float = 0.0
    verdicts: int = 0
    running: bool = False
    in_line: int = 0
    """Processes that wait for it."""
    refuses: str | None = None
    """One line when it takes no jobs: its device is quarantined, its node cannot judge, or it is lost."""

    @property
    def busy_share(self) -> float:
        return min(1.0, self.busy_s / self.up_s) if self.up_s > 0 else 0.0


class EvaluatorActor:
    """One slot."""

    def __init__(
        self,
        task: TaskParcel,
        config: EvaluatorConfig,
        isomorphic: bool,
        stages: tuple[str, ...] = (),
        gpus: float = 0.0,
        devices: str | None = None,
    ) -> None:
        """`devices`: those it measures on though Ray gave it none; None: what Ray gave it, when `gpus` > 0."""
        self._parcel = task
        self._config = config
        self._isomorphic = isomorphic
        self._stages = stages
        self._gpus = gpus
        self._given = devices
        self._devices: str | None = None
        self._health: Health | None = None
        self._line = Line()
        self._task_in_use: io.FileIO | None = None
        self._started: asyncio.Task[LocalEvaluator] | None = None
        self._listening: asyncio.Task[Address] | None = None
        self._server = WireServer(self, METHODS)
        self._checking: asyncio.Task[None] | None = None
        self._checked_at = 0.0
        self._born = time.monotonic()
        self._busy_s = 0.0
        self._verdicts = 0

    async def whereabouts(self) -> Whereabouts:
        """Once the slot is ready to judge. Raises UsageError when this node cannot jail, has no such task, or shows
        the slot other devices than are its own."""
        await self._evaluator()
        if self._listening is None or _failed(self._listening):
            host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            self._listening = asyncio.create_task(self._server.start(host))
        address = await asyncio.shield(self._listening)
        node: str = ray.get_runtime_context().get_node_id()
        return Whereabouts(address, node, await asyncio.to_thread(_raylet, node))

    async def evaluate(self, client: str, job: EvaluationJob) -> Answer:
        """The verdict, or at once that it is taken. A verdict that its own device spoilt is not given."""
        evaluator = await self._evaluator()
        if not self._line.begin(client):
            return Answer(None, False)
        begun = time.monotonic()
        try:
            verdict = await evaluator.evaluate(job)
            self._verdicts += 1
            given = verdict if self._health is None else await self._after(self._health, verdict)
        finally:
            self._busy_s += time.monotonic() - begun
            free = self._line.end()
        return Answer(given, free, spoilt=given is None)

    async def stand_in_line(self, client: str) -> None:
        await self._line.wait(client)

    async def leave(self, client: str) -> None:
        self._line.leave(client)

    async def refusal(self) -> str | None:
        """Why it takes no jobs; None when it does."""
        return None if self._health is None else self._health.quarantined

    async def status(self) -> SlotStatus:
        return SlotStatus(
            stages=self._stages,
            node=ray.get_runtime_context().get_node_id(),
            pid=os.getpid(),
            devices=self._devices or "",
            up_s=time.monotonic() - self._born,
            busy_s=self._busy_s,
            verdicts=self._verdicts,
            running=self._line.running,
            in_line=self._line.waiting,
            refuses=await self.refusal(),
        )

    async def close(self) -> None:
        """End every process of the slot."""
        self._line.pause()
        if self._checking is not None:
            self._checking.cancel()
        await self._server.close()
        if self._started is not None:
            await asyncio.wait([self._started])
            if not _failed(self._started):
                await self._started.result().close()

    async def _evaluator(self) -> LocalEvaluator:
        # Begun again when it failed: what was wrong may be mended, a full disk or a device that was taken.
        if self._started is None or _failed(self._started):
            self._started = asyncio.create_task(self._make())
        return await asyncio.shield(self._started)

    async def _make(self) -> LocalEvaluator:
        if self._gpus:
            self._devices = self._given or own_devices(ray.get_gpu_ids(), os.environ.get("CUDA_VISIBLE_DEVICES"))
            # For a judge that computes on it, too: Ray shows every device to those that it gave none.
            os.environ["CUDA_VISIBLE_DEVICES"] = self._devices
        unpacked = await asyncio.to_thread(unpack_task, self._parcel, ray.get)
        self._task_in_use = unpacked.in_use
        task = await asyncio.to_thread(load_task, unpacked.reference)
        told = disguised(task) if self._isomorphic else task
        # Where engines have the devices between two turns, nobody may wait there with a share of the memory.
        spares = None if self._given is None else 0
        evaluator = LocalEvaluator(told, self._config, self._stages or None, self._devices, spares)
        await evaluator.start()
        if self._gpus:
            # Where Ray has not given the devices out, the engines that sleep there keep some of the memory.
            self._health = Health(exclusive=self._given is None and self._gpus >= 1)
            self._line.pause()
            self._checking = asyncio.create_task(self._check(self._health))
        return evaluator

    async def _after(self, health: Health, verdict: Verdict) -> Verdict | None:
        """Look after the device between two jobs: at once when the failure is ours, else when it is due."""
        given: Verdict | None = verdict
        if isinstance(verdict, Failure) and verdict.kind is FailureKind.INFRASTRUCTURE:
            await self._look(health)
            if health.trouble is not None:
                given = None
        if health.trouble is not None or time.monotonic() - self._checked_at >= CHECK_EVERY_S:
            self._line.pause()
            self._checking = asyncio.create_task(self._check(health))
        return given

    async def _check(self, health: Health) -> None:
        """Until the device is well, for which the line is paused."""
        while True:
            await self._look(health)
            if health.trouble is None:
                break
            await asyncio.sleep(RECHECK_S if health.quarantined is None else CHECK_EVERY_S)
        self._line.resume()

    async def _look(self, health: Health) -> None:
        health.tell(await asyncio.to_thread(read_devices, self._devices or ""))
        self._checked_at = time.monotonic()


def own_devices(given: Sequence[int | str], visible: str | None) -> str:
    """The devices that Ray gave a slot, as CUDA_VISIBLE_DEVICES names them.

    Raises UsageError when its process sees others: it would measure on somebody else's device.
    """
    names = [str(device) for device in given]
    if not names:
        raise UsageError("a slot that needs a GPU was given none by Ray: report the cluster's GPUs to `ray start`")
    seen = None if visible is None else [name.strip() for name in visible.split(",")]
    if seen != names:
        raise UsageError(
            f"a slot was given GPU {', '.join(names)} by Ray but sees CUDA_VISIBLE_DEVICES={visible}: unset "
            "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES on the GPU nodes"
        )
    return ",".join(names)


def _failed(start: asyncio.Task[Any]) -> bool:
    return start.done() and (start.cancelled() or start.exception() is not None)


def _raylet(node: str) -> tuple[str, int]:
    """Where the raylet of a node listens; port 0 when Ray does not say."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    for known in nodes:
        if known["NodeID"] == node:
            return known["NodeManagerAddress"], int(known["NodeManagerPort"])
    return "", 0
