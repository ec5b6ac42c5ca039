"""The run that `adrs bench throughput` measures: a stub model in the islands' processes, a task of next to nothing.

It goes on until so many candidates have ended, and is then cut off: what is measured is a run at work, not its end.
Everything else is what every run has: islands, journal with fsync, health, a driver that supervises.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from adrs_ray.candidate import CaseResult, Completion, Evaluation, Usage
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest, Models
from adrs_ray.generator.routing import Router
from adrs_ray.ledger import RunStatus
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task, load_task
from cluster.dispatch import Answer
from cluster.evaluator import RayEvaluator, end_slots, start_slots
from cluster.island import RayHost
from cluster.ledger import RayLedger, start_ledger
from cluster.runtime import connect
from cluster.slot import METHODS, Whereabouts
from cluster.wire import Address, WireServer

TASK = Path(__file__).with_name("throughput_task")
KINDS = {"IslandActor": "islands", "LedgerActor": "journal", "EvaluatorActor": "evaluator", "ConstantSlot": "evaluator"}
"""Names of actors' classes, and what their processes are called in tables."""
ISLANDS = 2
JAILED_SLOTS = 2
CONSTANT_ACTORS = 2
JOBS_PER_CONSTANT_ACTOR = 16


@dataclass(frozen=True, slots=True)
class Latency:
    """How long the stub takes to answer: `median_s` always, or log-normal with that median and 99th percentile."""

    median_s: float
    p99_s: float | None = None

    def draw(self, rng: np.random.Generator) -> float:
        """Seconds."""
        if self.p99_s is None:
            return self.median_s
        # The 99th percentile of the standard normal distribution is 2.3263.
        return float(rng.lognormal(np.log(self.median_s), np.log(self.p99_s / self.median_s) / 2.3263))


class StubModel:
    """Answers after a while with a program that nobody has had; the answer's detail says how long it took, and how
    many seconds all requests of this process together have waited so far (`read_detail`)."""

    name = "mutate"
    paid = False
    durable = False
    redraws = 0

    def __init__(self, latency: Latency) -> None:
        self._latency = latency
        self._waiting = 0
        self._waited_s = 0.0
        self._at = time.time()

    def worst(self, request: GenerationRequest) -> Usage:
        return Usage()

    async def complete(self, request: GenerationRequest) -> Completion:
        begun = self._change(1)
        delay = self._latency.draw(np.random.default_rng(request.rng_key))
        if delay:
            await asyncio.sleep(delay)
        ended = self._change(-1)
        _, island, decision = request.rng_key[:3]
        source = _SEED.replace("x + 1", f"x + 1{decision}{island}{len(request.rng_key)}")
        told = f"{ended - begun:.6f} {self._waited_s:.6f} {ended:.6f}"
        return Completion(source, self.name, "literal", detail=told)

    async def close(self) -> None: ...

    def _change(self, by: int) -> float:
        now = time.time()
        self._waited_s += self._waiting * (now - self._at)
        self._waiting += by
        self._at = now
        return now


@dataclass(frozen=True, slots=True)
class Told:
    """What an answer of the stub says."""

    latency_s: float
    waited_s: float
    """By all requests of its process up to `at`."""
    at: float
    """Seconds since 1970."""


def read_detail(detail: str) -> Told:
    """From the detail of a GENERATED event."""
    latency, waited, at = map(float, detail.split())
    return Told(latency, waited, at)


@dataclass(frozen=True, slots=True)
class StubModels:
    """The islands' model factory."""

    latency: Latency

    def __call__(
        self, config: RunConfig, limiter: Any, routers: Mapping[str, Router], answered: Collection[str]
    ) -> Models:
        return {"mutate": StubModel(self.latency)}


def constant_verdict(job: EvaluationJob) -> Evaluation:
    """What the task would say, more or less, in no time: scores differ from candidate to candidate."""
    value = float(zlib.crc32(job.source.encode()) % 10007)
    return Evaluation(value, {}, (CaseResult("one", {"value": value}, 0.0, 0.0),), "unsafe", 0.0)


class ConstantSlot:
    """An evaluation slot that runs nothing and is never taken."""

    def __init__(self) -> None:
        self._server = WireServer(self, METHODS)
        self._listening: asyncio.Task[Address] | None = None

    async def whereabouts(self) -> Whereabouts:
        if self._listening is None:
            host: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            self._listening = asyncio.create_task(self._server.start(host))
        return Whereabouts(await self._listening, ray.get_runtime_context().get_node_id(), ("", 0))

    async def evaluate(self, client: str, job: EvaluationJob) -> Answer:
        return Answer(constant_verdict(job), True)

    async def stand_in_line(self, client: str) -> None: ...

    async def leave(self, client: str) -> None: ...

    async def refusal(self) -> None: ...

    async def status(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Load:
    """One run to be measured."""

    latency: Latency
    in_flight: int
    """Of all islands together."""
    candidates: int
    """After so many it is cut off."""
    jailed: bool
    """Every candidate is run in the jail, in a process of its own; else nothing is run."""


def config_of(load: Load) -> RunConfig:
    """The run's config: more budget than is used, so that islands are never short of grants."""
    values = {
        "budget.max_candidates": 2 * load.candidates + 64 * load.in_flight,
        "islands.count": ISLANDS,
        "islands.in_flight": load.in_flight // ISLANDS,
        "evaluator.slots": JAILED_SLOTS,
    }
    return override(RunConfig(), values)


def run_load(load: Load, folder: Path) -> None:
    """Run it on an embedded Ray, in a process that has none; `folder` is the run's.

    Raises RunError and UsageError as a run does.
    """
    config = config_of(load)
    task = load_task(str(TASK))
    run = RunFolder.create(folder, config, str(TASK), local=False)
    journal = SqliteJournal.open(run.journal)
    asyncio.run(journal.close())
    connect(None, JAILED_SLOTS)
    try:
        asyncio.run(_run(load, config, task, run, journal.epoch))
    finally:
        ray.shutdown()


async def _run(load: Load, config: RunConfig, task: Task, run: RunFolder, epoch: int) -> None:
    actor = start_ledger(run.journal, epoch, config)
    ledger = RayLedger(actor, epoch)
    await ledger.start_epoch()
    jailed = start_slots(task, str(TASK), config, JAILED_SLOTS) if load.jailed else None
    slots = jailed or constant_slots()
    evaluator = RayEvaluator(slots)
    brief, models = brief_of(task, config), StubModels(load.latency)
    enough = asyncio.Event()

    def look(status: RunStatus) -> None:
        if status.candidates >= load.candidates:
            enough.set()

    try:
        await evaluator.start()
        host = RayHost(config, brief, actor, epoch, slots, None, models)
        parts = IslandParts(config, brief, models(config, None, {}, ()), evaluator, ledger)
        search = Search(task, parts, run, ledger, host, look, StopSwitch())
        await _until(search.run([Seed(task.seed_source, "seed")], baselines=False), enough)
        await ledger.close()
    finally:
        await evaluator.close()
        if jailed is not None:
            await end_slots(jailed.actors)


async def _until(searching: Any, enough: asyncio.Event) -> None:
    """Cut the search off once there is enough. Raises what it raises before."""
    search, cut = asyncio.create_task(searching), asyncio.create_task(enough.wait())
    await asyncio.wait([search, cut], return_when=asyncio.FIRST_COMPLETED)
    cut.cancel()
    if search.done():
        search.result()
    search.cancel()
    await asyncio.gather(search, return_exceptions=True)


def constant_slots() -> list[Any]:
    """Constant evaluator actors, each as many slots; nothing of theirs is measured but the way to them."""
    one = ray.remote(ConstantSlot).options(num_cpus=0, max_concurrency=1000)
    return [one.remote() for _ in range(CONSTANT_ACTORS)] * JOBS_PER_CONSTANT_ACTOR


_SEED = (TASK / "seed.py").read_text(encoding="utf-8")
