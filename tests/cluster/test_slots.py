"""Slots on a Ray cluster of two nodes whose GPUs are only counted: stages, losses, folders that nodes lack."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.task import Task
from cluster.evaluator import RayEvaluator, SlotDirectory, end_slots, slot_source, start_slots
from cluster.node_cache import cache
from cluster.slot import SlotStatus
from tests.cluster.nodes import SmallCluster
from tests.staged_task import CHEAP, DEAR, JUDGE, program, write_staged_task

pytestmark = [pytest.mark.ray, pytest.mark.slow]

POISON = JUDGE.replace(
    'answer = raw["answer"]',
    'answer = raw["answer"]\n        import os, time\n'
    "        if answer == 666: os.kill(os.getpid(), 9)\n"
    "        if answer == 999: time.sleep(3)",
)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory) -> Iterator[SmallCluster]:
    """Two nodes, this process joined to them; their caches are a folder of ours."""
    import ray

    with pytest.MonkeyPatch.context() as patch, SmallCluster([(3, 0), (2, 2)]) as small:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        env = {"env_vars": {"XDG_CACHE_HOME": os.environ["XDG_CACHE_HOME"]}}
        ray.init(address=small.address, log_to_driver=False, logging_level="ERROR", runtime_env=env)
        yield small
        ray.shutdown()


@pytest.fixture
def task(tmp_path) -> Task:
    return write_staged_task(tmp_path / "staged", judge=POISON)


def joined() -> RunConfig:
    return override(RunConfig(), {"cluster.address": "auto", "evaluator.sandbox": "unsafe", "evaluator.retries": 0})


def job(name: str, value: float, stage: str = "") -> EvaluationJob:
    return EvaluationJob(name, program(value), stage=stage)


def with_slots(directory: SlotDirectory, use) -> None:
    """Start them, use them as one process does, end them."""

    async def main() -> None:
        evaluator = RayEvaluator(directory)
        try:
            await evaluator.start()
            await use(evaluator)
        finally:
            await evaluator.close()
            await end_slots(directory.actors)

    asyncio.run(asyncio.wait_for(main(), 240))


async def slot_that_runs(evaluator: RayEvaluator, stage: str) -> SlotStatus:
    while True:
        for status in await evaluator.slot_stats():
            if status.running and stage in status.stages:
                return status
        await asyncio.sleep(0.02)


def test_each_stage_has_its_slots_and_no_device_is_in_two_of_them(nodes, task):
    async def use(evaluator: RayEvaluator) -> None:
        assert evaluator.slots == 2
        verdicts = await asyncio.gather(*(evaluator.evaluate(job(f"g{n}", 999, "")) for n in range(2)))
        shown = sorted(verdict.artifacts["devices"].split("|")[1] for verdict in verdicts)
        assert shown == ["0", "1"]
        assert {verdict.artifacts["stage"] for verdict in verdicts} == {DEAR}
        cheap = await evaluator.evaluate(job("c", 1, CHEAP))
        assert isinstance(cheap, Evaluation)
        assert cheap.artifacts == {"stage": CHEAP, "devices": cheap.artifacts["devices"]}
        assert cheap.artifacts["devices"].startswith("||")
        stats = await evaluator.slot_stats()
        assert sorted((status.stages, status.devices) for status in stats) == [
            ((DEAR,), "0"), ((DEAR,), "1"), ((CHEAP,), ""), ((CHEAP,), "")
        ]  # fmt: skip
        assert sum(status.verdicts for status in stats) == 3
        assert all(status.refuses is None and status.node for status in stats)
        # Another process begins with what this one knows of the slots, and shares them.
        other = RayEvaluator(evaluator.directory)
        both = [one.evaluate(job(f"b{n}", n, CHEAP)) for n in range(10) for one in (evaluator, other)]
        assert all(isinstance(verdict, Evaluation) for verdict in await asyncio.gather(*both))
        await other.close()

    with_slots(start_slots(task, str(task.folder), joined(), 2, 2), use)


def test_a_killed_worker_costs_its_candidate_an_attempt_and_two_quarantine_it(nodes, task):
    async def use(evaluator: RayEvaluator) -> None:
        slow = asyncio.create_task(evaluator.evaluate(job("slow", 999, CHEAP)))
        os.kill((await slot_that_runs(evaluator, CHEAP)).pid, signal.SIGKILL)
        verdict = await slow
        assert isinstance(verdict, Evaluation)
        assert verdict.attempts == 2
        poison, *others = await asyncio.gather(
            evaluator.evaluate(job("poison", 666, CHEAP)),
            *(evaluator.evaluate(job(f"o{n}", n, CHEAP)) for n in range(10)),
        )
        assert isinstance(poison, Failure)
        assert poison.kind is FailureKind.INFRASTRUCTURE
        assert poison.detail == "quarantined: 2 evaluator processes died while they judged it"
        assert poison.attempts == 2
        assert all(isinstance(other, Evaluation) for other in others)
        deadline = time.monotonic() + 60
        while any(status.refuses for status in await evaluator.slot_stats()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)

    with_slots(start_slots(task, str(task.folder), joined(), 2), use)


def test_a_node_that_lacks_the_task_s_folder_is_brought_it(nodes, task, tmp_path):
    directory = start_slots(task, str(task.folder), joined(), 1)
    task.folder.rename(tmp_path / "elsewhere")

    async def use(evaluator: RayEvaluator) -> None:
        assert isinstance(await evaluator.evaluate(job("a", 2, CHEAP)), Evaluation)
        # The slot that is started in its place is on a node that lacks it again.
        shutil.rmtree(cache())
        gc.collect()
        os.kill((await evaluator.slot_stats())[0].pid, signal.SIGKILL)
        assert isinstance(await evaluator.evaluate(job("b", 2, CHEAP)), Evaluation)

    with_slots(directory, use)
    assert not Path(task.folder).exists()


def test_slots_on_devices_that_ray_gave_to_others_are_shown_those(nodes, task):
    import ray

    from cluster.shared_slots import SharedSlots

    gpu_node = next(node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU"))

    async def main() -> None:
        shared = SharedSlots(slot_source(task, str(task.folder), joined()))
        verdict = await shared.evaluate(job("a", 2), [(gpu_node, ("1",))])
        assert verdict.artifacts["devices"].split("|")[:2] == ["1", "1"]
        verdict = await shared.evaluate(job("a", 2), [(gpu_node, ("0",))])
        assert verdict.artifacts["devices"].split("|")[:2] == ["0", "0"]
        assert [status.devices for status in await shared.slot_stats()] == ["0"]
        await shared.close()

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_node_s_death_is_not_the_candidate_s_and_a_new_node_takes_the_job(nodes, task):
    async def use(evaluator: RayEvaluator) -> None:
        slow = asyncio.create_task(evaluator.evaluate(job("slow", 999, DEAR)))
        await slot_that_runs(evaluator, DEAR)
        await asyncio.to_thread(nodes.kill_node, 1)
        again = EvaluationJob("again", program(2), stage=DEAR, attempts=1)
        waiting = asyncio.create_task(evaluator.evaluate(again))
        nodes.add_node(2, 2)  # of the main thread, as Ray wants it
        verdict, other = await slow, await waiting
        assert isinstance(verdict, Evaluation)
        assert verdict.attempts >= 2
        assert isinstance(other, Evaluation)

    with_slots(start_slots(task, str(task.folder), joined(), 1, 2), use)
