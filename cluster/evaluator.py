"""Evaluation slots on Ray, and the `Evaluator` that islands and the driver each have over all of them.

Every actor is one slot (`cluster.slot`): CPU slots serve all stages that need no GPU, GPU slots those that do, with
whole devices that no other slot measures on. Jobs go straight to slots (`cluster.dispatch`). Where engines hold every
GPU, GPU jobs go to the driver instead, which measures them in turns (`cluster.gpu_turns`).
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adrs_ray.candidate import Verdict
from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, one_line
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.task import Task
from adrs_ray.task_spec import Stage
from cluster.calls import answer
from cluster.dispatch import SLOTS_GONE_S, Dispatcher
from cluster.fit import hardware
from cluster.node_cache import TaskParcel, parcel_task
from cluster.nodes import nodes_of_cluster
from cluster.slot import EvaluatorActor, SlotStatus, Whereabouts
from cluster.slot_link import RaySlot, always
from cluster.wire import Address, ConnectionLostError, WireClient

PATIENCE_S = 60.0
"""How long a start waits for the rest of the slots once there is one of each kind."""
STATUS_S = 5.0
"""How long a slot is waited for when it is asked how it is."""
TURNS_GONE_S = 60.0
"""How long the driver, which measures in turns, may be out of reach."""
TURNS_PAUSE_S = 1.0
CLOSE_S = 10.0
"""How long slots are given to end their processes; then they are killed."""

Counts: TypeAlias = int | Mapping[str, int]
"""Slots: how many wherever there is room, or how many on each node, by Ray's id of it."""


@dataclass(frozen=True, slots=True)
class SlotNeed:
    """What one slot reserves: the most that any of its stages needs."""

    stages: tuple[str, ...] = ()
    """None named: all that need no GPU."""
    cpus: float = 1.0
    memory_mb: int = 0
    gpus: float = 0.0

    def __str__(self) -> str:
        parts = [f"{self.gpus:g} GPU{'s' * (self.gpus > 1)}"] if self.gpus else []
        parts.append(f"{self.cpus:g} CPU{'s' * (self.cpus != 1)}")
        return " and ".join(parts + [f"{self.memory_mb} MB"] * bool(self.memory_mb))


def slot_need(stages: Sequence[Stage]) -> SlotNeed:
    """The need of a slot that serves all of these stages."""
    return SlotNeed(
        tuple(stage.name for stage in stages),
        max(stage.cpus for stage in stages),
        max(stage.memory_mb for stage in stages),
        max(stage.gpus for stage in stages),
    )


@dataclass(frozen=True, slots=True)
class SlotGroup:
    """Slots of one kind."""

    need: SlotNeed
    actors: tuple[Any, ...] = ()
    known: tuple[Whereabouts | None, ...] = ()
    """Where each of them was last seen; empty: not looked for yet."""
    turns: Address | None = None
    """Where their jobs go instead, when they share their devices with engines."""


@dataclass(frozen=True, slots=True)
class SlotDirectory:
    """All slots of a run, as it travels to islands."""

    groups: tuple[SlotGroup, ...]
    last: str = ""
    """The stage that is meant where a job names none."""
    parcel: TaskParcel | None = None
    """Held so that it stays in the object store: slots that are started again may be on a node that lacks it."""

    @property
    def actors(self) -> list[Any]:
        return [actor for group in self.groups for actor in group.actors]


@dataclass(frozen=True)
class SlotSource:
    """What slots of one run are made of."""

    parcel: TaskParcel
    config: RunConfig
    cpu: SlotNeed | None
    """None: no stage of the task runs without a GPU."""
    gpu: SlotNeed | None
    last: str

    def start(self, cpu_slots: Counts, gpu_slots: Counts = 0, turns: Address | None = None) -> SlotDirectory:
        """The actors. On a node that is named Ray places one while there is room, and elsewhere when the node is full
        or lost. With `turns` GPU jobs go there."""
        groups = []
        if self.cpu is not None:
            groups.append(SlotGroup(self.cpu, self._actors(self.cpu, cpu_slots)))
        if self.gpu is not None:
            groups.append(SlotGroup(self.gpu, () if turns else self._actors(self.gpu, gpu_slots), turns=turns))
        return SlotDirectory(tuple(groups), self.last, self.parcel)

    def _actors(self, need: SlotNeed, slots: Counts) -> tuple[Any, ...]:
        if isinstance(slots, int):
            return tuple(self._actor(need) for _ in range(slots))
        return tuple(self._actor(need, node) for node, count in slots.items() for _ in range(count))

    def start_on(self, node: str, devices: str) -> SlotGroup:
        """One GPU slot on devices that Ray has given to somebody else."""
        assert self.gpu is not None
        return SlotGroup(self.gpu, (self._actor(self.gpu, node, devices),))

    def _actor(self, need: SlotNeed, node: str | None = None, devices: str | None = None) -> Any:
        options: dict[str, Any] = {
            "num_cpus": need.cpus,
            "num_gpus": 0 if devices else need.gpus,
            "max_restarts": -1,
            "max_concurrency": 1000,
        }
        if need.memory_mb:
            options["memory"] = need.memory_mb * 2**20
        if node is not None:
            # Devices are on their node or nowhere. Without, a node that others fill meanwhile must not keep it waiting.
            free = devices is None
            options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=free, _spill_on_unavailable=free)
        one = self.config.evaluator.model_copy(update={"slots": 1})
        actor = ray.remote(EvaluatorActor).options(**options)
        return actor.remote(self.parcel, one, self.config.isomorphic, need.stages, need.gpus, devices)


def slot_source(task: Task, task_reference: str, config: RunConfig) -> SlotSource:
    """What the slots of a task are made of; on a cluster that was joined, the task's folder and recorded data go into
    the object store, for nodes that lack them.

    Raises UsageError, one line, when the folder is too large to be brought to other nodes.
    """
    joined = config.cluster.address is not None
    parcel = parcel_task(task, task_reference, ray.put) if joined else TaskParcel(task_reference)
    stages = task.native.spec.all_stages
    cpu = [stage for stage in stages if not stage.gpus]
    gpu = [stage for stage in stages if stage.gpus]
    needs = (slot_need(cpu) if cpu else None, slot_need(gpu) if gpu else None)
    return SlotSource(parcel, config, *needs, last=stages[-1].name)


def start_slots(
    task: Task, task_reference: str, config: RunConfig, cpu_slots: Counts, gpu_slots: Counts = 0
) -> SlotDirectory:
    """So many slots of each kind, as `cluster.fit.fit` counts them. Raises as `slot_source`."""
    return slot_source(task, task_reference, config).start(cpu_slots, gpu_slots)


async def end_slots(actors: Sequence[Any]) -> None:
    """Let every slot end its processes, then kill it; one that is away or hangs is not waited for."""
    asked = [asyncio.ensure_future(answer(actor.close.remote())) for actor in actors]
    if asked:
        _, hanging = await asyncio.wait(asked, timeout=CLOSE_S)
        for call in hanging:
            call.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    for actor in actors:
        ray.kill(actor)


class RayEvaluator:
    """An `Evaluator` over slots that others use, too; one per event loop.

    Takes what `start_slots` gives, or a plain sequence of actors that serve every stage.
    """

    def __init__(self, slots: SlotDirectory | Sequence[Any], gone_s: float = SLOTS_GONE_S) -> None:
        """`gone_s`: how long jobs wait when no slot can take any."""
        if not isinstance(slots, SlotDirectory):
            slots = SlotDirectory((SlotGroup(SlotNeed(), tuple(slots)),))
        self._directory = slots
        self._kinds = [_Kind(group, gone_s) for group in slots.groups]
        self._by_stage = {stage: kind for kind in self._kinds for stage in kind.group.need.stages}

    @property
    def slots(self) -> int:
        """How many evaluations of one stage run at once, in the stage that has most slots."""
        return max(max(1, len(kind.group.actors)) for kind in self._kinds)

    @property
    def directory(self) -> SlotDirectory:
        """As it was given, with where the slots are as far as that is known now."""
        return replace(self._directory, groups=tuple(kind.known_group() for kind in self._kinds))

    async def start(self) -> None:
        """Until all slots are ready, or for `PATIENCE_S` once there is one of each kind; others may come later.

        Raises UsageError when a node cannot judge, RunError when no slot of a kind comes up.
        """
        await asyncio.gather(*(kind.ready() for kind in self._kinds))

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """Raises RunError when no slot can take the job for a long time, and for a stage that has no slots."""
        stage = job.stage or self._directory.last
        kind = self._by_stage.get(stage)
        if kind is None:
            if self._by_stage:
                raise RunError(f"no slots were started for stage {stage}, only for {', '.join(self._by_stage)}")
            kind = self._kinds[0]
        return await kind.evaluate(job)

    async def slot_stats(self) -> list[SlotStatus]:
        """Of every slot; those that do not answer say so in `refuses`."""
        return [status for kind in self._kinds for status in await kind.stats()]

    async def close(self) -> None:
        """Of this process only: the actors belong to the driver and end with it."""
        await asyncio.gather(*(kind.close() for kind in self._kinds))


class _Kind:
    """The slots of one group, or the driver's turns in their place."""

    def __init__(self, group: SlotGroup, gone_s: float = SLOTS_GONE_S) -> None:
        self.group = group
        client = secrets.token_hex(8)
        known = group.known or (None,) * len(group.actors)
        self._slots = [RaySlot(actor, client, where) for actor, where in zip(group.actors, known, strict=True)]
        name = f"stage {', '.join(group.need.stages)}" if group.need.stages else "evaluation"
        # Any order will do, as long as it is another one in each process.
        order = sorted(range(len(self._slots)), key=lambda number: secrets.token_bytes(8))
        self._dispatcher = Dispatcher(name, self._slots, self._missing, order, gone_s)
        turns = group.turns
        self._turns = None if turns is None else WireClient(always(turns))

    def known_group(self) -> SlotGroup:
        return replace(self.group, known=tuple(slot.where for slot in self._slots))

    async def ready(self) -> None:
        if self._turns is None:
            await self._dispatcher.ready(PATIENCE_S)

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        if self._turns is None:
            return await self._dispatcher.evaluate(job)
        clock = asyncio.get_running_loop().time
        lost_at: float | None = None
        while True:
            sent = clock()
            try:
                verdict: Verdict = await self._turns.call("evaluate", job)
                return verdict
            except ConnectionLostError as error:
                # Again: the driver finds the job under way. A driver that is lost ends this process, too.
                if lost_at is None or clock() - sent >= TURNS_GONE_S:
                    lost_at = clock()
                if clock() - lost_at >= TURNS_GONE_S:
                    stage = f"stage {', '.join(self.group.need.stages)}"
                    raise RunError(
                        f"{stage}: the driver, which measures it, was out of reach for {TURNS_GONE_S:g} s: {error}"
                    ) from None
            await asyncio.sleep(TURNS_PAUSE_S)

    async def stats(self) -> list[SlotStatus]:
        return list(await asyncio.gather(*(self._status(number) for number in range(len(self._slots)))))

    async def _status(self, number: int) -> SlotStatus:
        stages = self.group.need.stages
        if not self._dispatcher.answers(number):
            return SlotStatus(stages, refuses=self._dispatcher.refusals.get(number, "lost: it does not answer"))
        try:
            async with asyncio.timeout(STATUS_S):
                return await self._slots[number].status()
        except (TimeoutError, ConnectionLostError, RunError) as error:
            return SlotStatus(stages, refuses=f"lost: {one_line(error)}")

    async def close(self) -> None:
        await self._dispatcher.close()
        await asyncio.gather(*(slot.close() for slot in self._slots))
        if self._turns is not None:
            await self._turns.close()

    async def _missing(self) -> str:
        """What the cluster has, beside what the slots need."""
        try:
            there = hardware(await asyncio.to_thread(nodes_of_cluster))
        except Exception as error:  # a cluster that does not answer is no reason to say nothing
            there = f"cannot be asked ({type(error).__name__})"
        return f"{len(self._slots)} slots of {self.group.need} each are gone, and the cluster now has {there}"
