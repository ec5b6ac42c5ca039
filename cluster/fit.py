"""What of a run fits on a cluster, before anything queues: engines, evaluators, and what the run would take.

Pure. Replicas are packed by GPUs: the widest first, each on the node that it leaves the fewest GPUs on, which wastes
nothing where every width divides the next and the nodes are alike. An engine needs its share of the weights on each
GPU, `RESERVE_GIB` for activations and graphs, and a cache for at least one request of full length. Estimates follow
`docs/models.md`; they are no measurements.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.stages_here import way_out
from adrs_ray.task_spec import Stage

RESERVE_GIB = 3.0
"""Of each GPU, for activations, CUDA graphs and the runtime: an assumption."""
_GIB = 2.0**30


@dataclass(frozen=True, slots=True)
class Footprint:
    """GPU memory that a model takes."""

    weights_gib: float
    cache_bytes_per_token: int
    kv_heads: int

    def cache_bytes_per_gpu(self, tensor_parallel: int) -> float:
        """Of one token on one GPU: heads are split, and repeated once there are more GPUs than heads."""
        return self.cache_bytes_per_token / min(tensor_parallel, self.kv_heads)


@dataclass(frozen=True, slots=True)
class NodeRoom:
    """What a node has, all of it."""

    node_id: str
    cpus: float
    gpus: float = 0.0
    gpu_memory_gib: float | None = None
    """Of one GPU; None: not known, nothing is refused for it."""
    memory_gib: float | None = None
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class EngineNeed:
    """Replicas of one model."""

    name: str
    replicas: int
    gpus: int
    """Of one replica, on one node."""
    cpus: float
    gpu_share: float
    context_tokens: int
    footprint: Footprint | None = None

    def cache_tokens(self, gpu_memory_gib: float) -> float:
        """Tokens that one replica's cache holds on such GPUs; negative when not even the weights fit."""
        if self.footprint is None or not self.gpus:
            return math.inf
        free = gpu_memory_gib * self.gpu_share - RESERVE_GIB - self.footprint.weights_gib / self.gpus
        return free * _GIB / self.footprint.cache_bytes_per_gpu(self.gpus)

    def fits_memory(self, node: NodeRoom) -> bool:
        """Whether the node's GPUs hold weights and the cache of one request of full length, as far as is known."""
        return node.gpu_memory_gib is None or self.cache_tokens(node.gpu_memory_gib) >= self.context_tokens

    def describe(self) -> str:
        """One replica's need."""
        if not self.gpus:
            return f"{self.cpus:g} CPUs"
        return f"{self.gpus} GPU{'s on one node' if self.gpus > 1 else ''}"


@dataclass(slots=True)
class _Room:
    """What is left of a node while things are placed on it."""

    node: NodeRoom
    cpus: float
    gpus: float
    memory_gib: float

    def take(self, cpus: float, gpus: float, memory_gib: float = 0.0) -> bool:
        if not self.holds(cpus, gpus, memory_gib):
            return False
        self.cpus -= cpus
        self.gpus -= gpus
        self.memory_gib -= memory_gib
        return True

    def holds(self, cpus: float, gpus: float, memory_gib: float = 0.0) -> bool:
        # Ray counts resources in ten-thousandths.
        return self.cpus >= cpus - 1e-4 and self.gpus >= gpus - 1e-4 and self.memory_gib >= memory_gib - 1e-4


@dataclass(frozen=True, slots=True)
class Fit:
    """A split that the cluster hosts."""

    replicas: Mapping[str, int]
    """By model, in the config's order."""
    gpu_slots_on: Mapping[str, int]
    """Slots that measure on GPUs of their own, by node."""
    in_turns: bool
    """Whether the engines sleep while a GPU stage runs, since they hold every GPU."""
    cpu_slots_on: Mapping[str, int]
    """By node: placed elsewhere, slots may take the room of an engine."""
    gpus_held: float
    """By engines and GPU slots, all the time."""
    left: tuple[NodeRoom, ...]
    """What remains of each node, CPU slots not counted."""
    resident: Mapping[str, int] = field(default_factory=dict)
    """By model: requests of full length that the cache of one replica holds, where memory and model are known."""

    @property
    def gpu_slots(self) -> int:
        """Evaluations on GPUs at once; 0 for a task without a GPU stage."""
        return 1 if self.in_turns else sum(self.gpu_slots_on.values())

    @property
    def cpu_slots(self) -> int:
        return sum(self.cpu_slots_on.values())

    def describe(self) -> str:
        """Such as `5 x small, 2 x strong, 1 evaluator on GPUs, 96 on CPUs`."""
        parts = [f"{count} x {name}" for name, count in self.replicas.items()]
        if self.gpu_slots:
            turns = ", in turns with the engines" if self.in_turns else ""
            parts.append(f"{self.gpu_slots} evaluator{'s' * (self.gpu_slots > 1)} on GPUs{turns}")
        if self.cpu_slots:
            parts.append(f"{self.cpu_slots} on CPUs" if self.gpu_slots else f"{self.cpu_slots} evaluators on CPUs")
        return ", ".join(parts)


def fit(
    nodes: Sequence[NodeRoom],
    config: RunConfig,
    stages: Sequence[Stage],
    footprints: Mapping[str, Footprint] | None = None,
) -> Fit:
    """Place a run's engines, then its evaluators.

    `footprints` is what is known of models' memory. Raises UsageError, one line with needs and what there is, when the
    cluster cannot host what the config asks for: every replica, `evaluator.slots` and `evaluator.gpu_slots` (without
    them one of each that the task's stages need).
    """
    needs = engine_needs(config, footprints or {})
    rooms = [_Room(n, n.cpus, n.gpus, math.inf if n.memory_gib is None else n.memory_gib) for n in nodes]
    placed = _place_engines(rooms, needs)
    if any(placed[need.name] < need.replicas for need in needs):
        raise UsageError(_refusal(nodes, needs, placed))
    gpu_slots, in_turns = _gpu_slots(rooms, config, stages, needs)
    left = tuple(_remainder(room) for room in rooms)
    cpu_slots = _cpu_slots(rooms, config, [stage for stage in stages if not stage.gpus])
    held = sum(node.gpus for node in nodes) - sum(node.gpus for node in left)
    return Fit(placed, gpu_slots, in_turns, cpu_slots, held, left, _resident(nodes, needs))


def engine_needs(config: RunConfig, footprints: Mapping[str, Footprint]) -> list[EngineNeed]:
    """What the config's engines need, in its order; nothing where no model is asked, since none is started."""
    if config.generator.kind != "openai":
        return []
    return [
        EngineNeed(
            name,
            engine.replicas,
            engine.tensor_parallel if engine.device == "cuda" else 0,
            engine.cpus,
            engine.gpu_memory,
            config.models[name].context_tokens,
            footprints.get(name),
        )
        for name, engine in config.pool.models.items()
    ]


def lacks(found: Fit, need: EngineNeed) -> str | None:
    """Why one more replica does not fit, such as `4 GPUs on one node: at most 1 is free on one`; None: it fits."""
    large = [node for node in found.left if need.fits_memory(node)]
    if not large:
        return _memory_refusal(found.left, need)
    most = max(node.gpus for node in large)
    if most < need.gpus - 1e-4:
        free = "none is free" if most < 1 else f"at most {most:g} {'is' if most == 1 else 'are'} free on one"
        return f"{need.describe()}: {free}"
    with_gpus = [node for node in large if node.gpus >= need.gpus - 1e-4]
    most = max(node.cpus for node in with_gpus)
    if most < need.cpus - 1e-4:
        beside = f" beside its {need.describe()}" if need.gpus else ""
        return f"{need.cpus:g} CPUs{beside}: at most {most:g} are free on one node"
    return None


def hardware(nodes: Sequence[NodeRoom]) -> str:
    """Such as `24 GPUs on 3 nodes (8 + 8 + 8) of 80 GiB, 288 CPUs`."""
    with_gpus = [node for node in nodes if node.gpus]
    cpus = f"{sum(node.cpus for node in nodes):g} CPUs on {len(nodes)} node{'s' * (len(nodes) != 1)}"
    if not with_gpus:
        return f"no GPU, {cpus}"
    total = sum(node.gpus for node in with_gpus)
    shape = f" ({' + '.join(f'{node.gpus:g}' for node in with_gpus)})" if len(with_gpus) > 1 else ""
    sizes = sorted({round(node.gpu_memory_gib) for node in with_gpus if node.gpu_memory_gib is not None})
    memory = f" of {' and '.join(map(str, sizes))} GiB" if sizes else ""
    plural = "s" * (total != 1)
    return f"{total:g} GPU{plural} on {len(with_gpus)} node{'s' * (len(with_gpus) != 1)}{shape}{memory}, {cpus}"


def _place_engines(rooms: Sequence[_Room], needs: Sequence[EngineNeed]) -> dict[str, int]:
    placed = dict.fromkeys((need.name for need in needs), 0)
    for need in sorted(needs, key=lambda need: -need.gpus):
        for _ in range(need.replicas):
            able = [r for r in rooms if need.fits_memory(r.node) and r.holds(need.cpus, need.gpus)]
            if not able:
                break
            # An engine without GPUs goes where GPUs are fewest, too: it must not take the CPUs of those that need them.
            min(able, key=lambda room: room.gpus).take(need.cpus, need.gpus)
            placed[need.name] += 1
    return placed


def _gpu_slots(
    rooms: Sequence[_Room], config: RunConfig, all_stages: Sequence[Stage], needs: Sequence[EngineNeed]
) -> tuple[dict[str, int], bool]:
    """Slots that serve every GPU stage, by node, and whether one takes turns with the engines instead."""
    stages = [stage for stage in all_stages if stage.gpus]
    if not stages:
        return {}, False
    gpus, cpus = max(stage.gpus for stage in stages), max(stage.cpus for stage in stages)
    memory = max(stage.memory_mb for stage in stages) / 1024
    wanted = config.evaluator.gpu_slots
    found = _fill(rooms, wanted, cpus, gpus, memory)
    slots = sum(found.values())
    if slots >= (wanted or 1):
        return found, False
    held = [need for need in needs if need.gpus >= gpus]
    if slots == 0 and wanted in (None, 1) and held and config.pool.one_gpu == "auto":
        # On the devices of an engine, so beside it.
        if any(room.node.gpus - room.gpus >= gpus - 1e-4 and room.take(cpus, 0, memory) for room in rooms):
            return {}, True
        raise UsageError(f"no node has {_slot(cpus, 0, memory)} left for stage {stages[-1].name}, beside the engines")
    asked = f"{wanted or 1} slot{'s' * ((wanted or 1) > 1)} of {_slot(cpus, gpus, memory)}"
    turns = " and pool.one_gpu is never" if held and config.pool.one_gpu == "never" else ""
    if not any(room.node.gpus for room in rooms):
        raise UsageError(f"stage {stages[-1].name} needs {asked}, this cluster has no GPU{way_out(all_stages)}")
    raise UsageError(
        f"stage {stages[-1].name} needs {asked}, the engines ({_listed(needs)}) leave room for {slots}{turns}: "
        "lower replicas in pool.models or evaluator.gpu_slots, or add GPUs"
    )


def _cpu_slots(rooms: Sequence[_Room], config: RunConfig, stages: Sequence[Stage]) -> dict[str, int]:
    if not stages:
        return {}
    cpus, memory = max(stage.cpus for stage in stages), max(stage.memory_mb for stage in stages) / 1024
    wanted = config.evaluator.slots
    found = _fill(rooms, wanted, cpus, 0.0, memory)
    slots = sum(found.values())
    if slots < (wanted or 1):
        raise UsageError(
            f"evaluator.slots: {wanted or 1} of {_slot(cpus, 0, memory)} each do not fit, the cluster has room for "
            f"{slots} beside the engines and GPU slots"
        )
    return found


def _fill(rooms: Sequence[_Room], wanted: int | None, cpus: float, gpus: float, memory_gib: float) -> dict[str, int]:
    """Take as many slots as wanted, or as there are: how many on each node that has any."""
    found: dict[str, int] = {}
    slots = 0
    for room in rooms:
        while (wanted is None or slots < wanted) and room.take(cpus, gpus, memory_gib):
            slots += 1
            found[room.node.node_id] = found.get(room.node.node_id, 0) + 1
    return found


def _refusal(nodes: Sequence[NodeRoom], needs: Sequence[EngineNeed], placed: Mapping[str, int]) -> str:
    for need in needs:
        if not any(need.fits_memory(node) for node in nodes):
            return f"pool.models.{need.name}: {_memory_refusal(nodes, need)}"
    short = next(need for need in needs if placed[need.name] < need.replicas)
    held = ", ".join(f"{placed[need.name]} x {need.name}" for need in needs)
    return (
        f"the pool needs {_listed(needs)}; the cluster has {hardware(nodes)} and holds {held}: lower "
        f"pool.models.{short.name}.replicas, take another pool.preset (`adrs models list`) or add nodes"
    )


def _memory_refusal(nodes: Sequence[NodeRoom], need: EngineNeed) -> str:
    """Why no node's GPUs are large enough."""
    assert need.footprint is not None
    largest = max(node.gpu_memory_gib or 0.0 for node in nodes)
    cache = need.context_tokens * need.footprint.cache_bytes_per_gpu(need.gpus) / _GIB
    each = f"each of its {need.gpus} GPUs" if need.gpus > 1 else "its GPU"
    return (
        f"{each} needs {need.footprint.weights_gib / need.gpus:.1f} GiB of weights, {RESERVE_GIB:g} GiB of reserve and "
        f"{cache:.1f} GiB of cache for one request of {need.context_tokens} tokens, and gpu_memory "
        f"{need.gpu_share:g} of {largest:.0f} GiB is {need.gpu_share * largest:.1f}"
    )


def _listed(needs: Iterable[EngineNeed]) -> str:
    return ", ".join(f"{need.replicas} x {need.name} ({need.describe()} each)" for need in needs) or "none"


def _slot(cpus: float, gpus: float, memory_gib: float) -> str:
    parts = [f"{gpus:g} GPU{'s' * (gpus > 1)}"] * bool(gpus) + [f"{cpus:g} CPU{'s' * (cpus != 1)}"]
    return " and ".join(parts + [f"{memory_gib:.1f} GiB"] * bool(memory_gib))


def _resident(nodes: Sequence[NodeRoom], needs: Sequence[EngineNeed]) -> dict[str, int]:
    found: dict[str, int] = {}
    for need in needs:
        able = [n for n in nodes if n.gpus >= need.gpus > 0 and n.gpu_memory_gib is not None and need.fits_memory(n)]
        if able and need.footprint is not None:
            tokens = min(need.cache_tokens(node.gpu_memory_gib or 0.0) for node in able)
            found[need.name] = int(tokens // need.context_tokens)
    return found


def _remainder(room: _Room) -> NodeRoom:
    memory = room.memory_gib if math.isfinite(room.memory_gib) else None
    return replace(room.node, cpus=room.cpus, gpus=room.gpus, memory_gib=memory)
