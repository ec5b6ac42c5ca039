"""LocalEvaluator: slots of this machine, for the stages of a task that need the same of it.

Each slot is one thread that lives as long as the evaluator, with one fork server that it starts and restarts.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
import traceback
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Self

from adrs_ray.candidate import Failure, FailureKind, Trust, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.candidate_process import measure_idle
from adrs_ray.evaluator.confinement import Confinement, choose_confinement
from adrs_ray.evaluator.device_nodes import device_access
from adrs_ray.evaluator.judging import judge_program
from adrs_ray.evaluator.scratch import sweep_abandoned
from adrs_ray.evaluator.slot import ForkServer, SlotError
from adrs_ray.isomorphic import retold
from adrs_ray.task import Case, Split, Task


@dataclass(frozen=True, slots=True)
class _Order:
    job: EvaluationJob
    answer: Future[Verdict]


class LocalEvaluator:
    """`adrs_ray.evaluator.Evaluator` on this machine: jailed processes, judged in this process.

    `evaluate` raises UsageError when the task has no cases for the split, and RuntimeError before `start`, after
    `close`, and for a job of a stage that is not served here.
    """

    def __init__(
        self,
        task: Task,
        config: EvaluatorConfig,
        stages: Collection[str] | None = None,
        devices: str | None = None,
        spares: int | None = None,
    ) -> None:
        """`stages` are those that it serves, by default all that need no GPU. `devices` are the slot's GPUs, as
        CUDA_VISIBLE_DEVICES names them, by default none; candidates see them if the task's limits give them memory
        there. `spares`: in place of the task's own number. Raises UsageError for a stage that is not the task's."""
        self._told = task
        native = task.native
        served = [stage.name for stage in native.spec.all_stages if not stage.gpus] if stages is None else stages
        self._stages = {name: native.in_stage(name) for name in served}
        cpus = max((each.spec.cpus for each in self._stages.values()), default=native.spec.cpus)
        kept = {"cpus": cpus, "spares": native.spec.spares if spares is None else spares}
        self._task = replace(native, spec=native.spec.model_copy(update=kept))
        """As fork servers see it."""
        self._devices = devices if devices and native.spec.limits.device_memory_mb else ""
        self._config = config
        self._slots = config.slots or len(os.sched_getaffinity(0))
        self._orders: queue.SimpleQueue[_Order | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._closing = threading.Event()
        self._cases: dict[tuple[str, Split], Sequence[Case]] = {}
        self._cases_lock = threading.Lock()
        self._confinement: Confinement | None = None

    @property
    def slots(self) -> int:
        """How many evaluations run at once."""
        return self._slots

    async def start(self) -> None:
        """Start all fork servers. Raises UsageError when this machine cannot jail or the task cannot be served."""
        if self._threads:
            raise RuntimeError("start() was called before: an evaluator starts once")
        await asyncio.to_thread(sweep_abandoned)
        found = await asyncio.to_thread(choose_confinement, self._task, self._config)
        self._confinement = replace(found, devices=await asyncio.to_thread(device_access, self._devices))
        ready: list[Future[None]] = []
        for number in range(self._slots):
            ready.append(Future())
            name = f"evaluator-slot-{number}"
            thread = threading.Thread(target=self._serve, args=(self._confinement, ready[-1]), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()
        outcomes = await asyncio.gather(*map(asyncio.wrap_future, ready), return_exceptions=True)
        problem = next((outcome for outcome in outcomes if isinstance(outcome, BaseException)), None)
        if problem is not None:
            await self.close()
            raise problem

    async def __aenter__(self) -> Self:
        """`start`, for `async with`; what ends the block closes the evaluator."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        """Wait for a free slot and judge there."""
        if not self._threads or self._closing.is_set():
            raise RuntimeError("evaluate() needs a started evaluator: await start() first, and not after close()")
        stage = self._told.stage(job.stage).name
        if stage not in self._stages:
            raise RuntimeError(f"stage {stage} is not served here, only {', '.join(self._stages) or 'none'}")
        order = _Order(replace(job, stage=stage), Future())
        self._orders.put(order)
        return await asyncio.wrap_future(order.answer)

    async def close(self) -> None:
        """End every process of the slots; what is under way or waiting ends as an infrastructure failure."""
        self._closing.set()
        for _ in self._threads:
            self._orders.put(None)
        for thread in self._threads:
            await asyncio.to_thread(thread.join)

    def _serve(self, confinement: Confinement, ready: Future[None]) -> None:
        """A slot's thread."""
        slot = _Slot(self._task, confinement, self._closing)
        try:
            slot.restart()
        except SlotError as error:
            slot.close()
            ready.set_exception(UsageError(f"cannot start the evaluator of task {self._task.name}: {error}"))
            return
        except BaseException as error:  # the boundary of this thread: it is raised where start() is awaited
            slot.close()
            ready.set_exception(error)
            return
        ready.set_result(None)
        try:
            while (order := self._next_order(slot)) is not None:
                if order.answer.set_running_or_notify_cancel():
                    self._answer(slot, order)
        finally:
            slot.close()

    def _next_order(self, slot: _Slot) -> _Order | None:
        """Wait for it; while none waits, spares are made ready, one after the other."""
        while True:
            try:
                return self._orders.get_nowait()
            except queue.Empty:
                if not slot.add_spare():
                    return self._orders.get()

    def _answer(self, slot: _Slot, order: _Order) -> None:
        try:
            order.answer.set_result(retold(self._told, self._judge(slot, order.job)))
        except BaseException as error:  # the boundary of this thread: it is raised where evaluate() is awaited
            order.answer.set_exception(error)

    def _judge(self, slot: _Slot, job: EvaluationJob) -> Verdict:
        trust = self._trust(slot.confinement)
        task = self._stages[job.stage]
        try:
            cases = self._cases_of(job.stage, job.split)
        except UsageError:
            raise
        except Exception as error:
            text = f"judge.py of task {self._task.name} cannot make the cases of {job.split}: {type(error).__name__}"
            artifacts = {"traceback": traceback.format_exc()}
            detail = f"{text}: {' '.join(str(error).split())[:300]}"
            return Failure(FailureKind.INFRASTRUCTURE, detail, trust=trust, artifacts=artifacts)
        attempts = job.attempts
        problem: SlotError | None = None
        for _ in range(1 + self._config.retries):
            attempts += 1
            if self._closing.is_set():
                problem = SlotError("the evaluator was closed")
                break
            try:
                source = self._told.translated(job.source)
                return judge_program(task, cases, source, slot.server(), trust, attempts)
            except SlotError as error:
                problem = error
                slot.close()
        return Failure(FailureKind.INFRASTRUCTURE, str(problem).splitlines()[-1], trust=trust, attempts=attempts)

    def _cases_of(self, stage: str, split: Split) -> Sequence[Case]:
        with self._cases_lock:
            if (stage, split) not in self._cases:
                cases = tuple(self._stages[stage].judge.cases(split))
                if not cases:
                    where = f" in stage {stage}" if self._task.spec.stages else ""
                    raise UsageError(f"task {self._task.name} has no cases for the split {split}{where}")
                self._cases[stage, split] = cases
            return self._cases[stage, split]

    def _trust(self, confinement: Confinement) -> Trust:
        if not confinement.strict:
            return "unsafe"
        return "candidate-side" if self._task.kind == "openevolve" else "verified"


class _Slot:
    """The fork server of a slot, made again when it is lost. Belongs to the slot's thread."""

    def __init__(self, task: Task, confinement: Confinement, closing: threading.Event) -> None:
        self.confinement = confinement
        self._task = task
        self._closing = closing
        self._server: ForkServer | None = None

    def server(self) -> ForkServer:
        """Raises SlotError when none can be started."""
        if self._server is None:
            try:
                self.restart()
            except UsageError as error:  # it could be served before
                raise SlotError(str(error)) from error
        assert self._server is not None
        return self._server

    def restart(self) -> None:
        self.close()
        self._server = ForkServer(self._task, self.confinement, self._closing)
        measure_idle(self._server)

    def add_spare(self) -> bool:
        """Make one spare process ready; False when there are as many as wanted, or it does not work now: whoever needs
        a process then hears why."""
        try:
            return self._server is not None and self._server.add_spare_if_wanted()
        except SlotError:
            self.close()
            return False

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
