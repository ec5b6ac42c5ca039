"""What of the evaluator on Ray can be told without Ray: needs, stages, and what is said when slots are gone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.task_spec import Stage
from cluster import evaluator
from cluster.evaluator import RayEvaluator, SlotDirectory, SlotGroup, SlotNeed, SlotSource, slot_need
from cluster.fit import NodeRoom
from cluster.node_cache import TaskParcel
from cluster.wire import Address, ConnectionLostError


def test_a_slot_reserves_the_most_that_any_of_its_stages_needs():
    stages = [Stage(name="quick", cpus=0.5, memory_mb=4000), Stage(name="whole", cpus=4, memory_mb=100)]
    assert slot_need(stages) == SlotNeed(("quick", "whole"), 4.0, 4000, 0.0)
    assert str(slot_need([Stage(name="device", cpus=2, gpus=1)])) == "1 GPU and 2 CPUs"


def test_when_slots_are_gone_it_is_said_what_they_need_and_what_there_is(monkeypatch):
    group = SlotGroup(SlotNeed(("device",), 2.0, 0, 1.0), (object(),) * 3)
    kind = evaluator._Kind(group)
    monkeypatch.setattr(evaluator, "nodes_of_cluster", lambda: [NodeRoom("a", 8.0), NodeRoom("b", 8.0)])
    said = asyncio.run(kind._missing())
    assert said == "3 slots of 1 GPU and 2 CPUs each are gone, and the cluster now has no GPU, 16 CPUs on 2 nodes"

    def broken() -> list[NodeRoom]:
        raise ConnectionError("no head")

    monkeypatch.setattr(evaluator, "nodes_of_cluster", broken)
    assert "cannot be asked (ConnectionError)" in asyncio.run(kind._missing())


def test_a_job_of_a_stage_without_slots_is_one_line():
    slots = RayEvaluator(SlotDirectory((SlotGroup(SlotNeed(("quick",))),), last="device"))
    with pytest.raises(RunError, match="no slots were started for stage device, only for quick"):
        asyncio.run(slots.evaluate(EvaluationJob("a", "")))


class Placed:
    """A class of actors as `ray.remote` gives it: its actors are the options they were made with."""

    def __init__(self, _: type) -> None: ...

    def options(self, **options: Any) -> Placed:
        self.made = options
        return self

    def remote(self, *_: Any) -> dict[str, Any]:
        return self.made


def placing(directory: SlotDirectory | SlotGroup) -> list[tuple[str, bool] | None]:
    found = [made.get("scheduling_strategy") for made in directory.actors]
    return [None if where is None else (where.node_id[0], where.soft) for where in found]


def test_slots_go_to_the_nodes_they_were_counted_on_and_may_leave_them(monkeypatch):
    monkeypatch.setattr(evaluator.ray, "remote", Placed)
    quick, device = SlotNeed(("quick",)), SlotNeed(("device",), 1.0, 0, 1.0)
    source = SlotSource(TaskParcel("task"), RunConfig(), quick, device, "device")
    a, b = "a" * 56, "b" * 56
    directory = source.start({a: 2, b: 1}, {b: 1})
    assert placing(directory) == [("a", True), ("a", True), ("b", True), ("b", True)]
    assert [len(group.actors) for group in directory.groups] == [3, 1]
    assert placing(source.start(2, 1)) == [None] * 3
    assert placing(source.start({a: 1}, {}, Address("h", 1, b""))) == [("a", True)]
    # Devices do not move.
    assert placing(source.start_on(a, "0")) == [("a", False)]


class Driver:
    """Out of reach for some calls."""

    def __init__(self, losses: int) -> None:
        self.losses = losses
        self.calls = 0

    async def call(self, method: str, job: EvaluationJob) -> str:
        self.calls += 1
        if self.calls <= self.losses:
            raise ConnectionLostError("the connection to 10.0.0.1:1 was lost")
        return f"{method} {job.candidate}"


def test_a_driver_that_is_out_of_reach_for_a_while_is_asked_again(monkeypatch):
    monkeypatch.setattr(evaluator, "TURNS_PAUSE_S", 0.001)
    kind = evaluator._Kind(SlotGroup(SlotNeed(("device",), gpus=1.0), turns=Address("10.0.0.1", 1, b"")))
    kind._turns = driver = Driver(5)
    assert asyncio.run(kind.evaluate(EvaluationJob("a", ""))) == "evaluate a"
    assert driver.calls == 6
    monkeypatch.setattr(evaluator, "TURNS_GONE_S", 0.02)
    kind._turns = Driver(10**6)
    with pytest.raises(RunError, match=r"stage device: the driver.* out of reach for 0\.02 s: .*was lost") as caught:
        asyncio.run(kind.evaluate(EvaluationJob("a", "")))
    assert "\n" not in str(caught.value)


def test_jobs_of_a_turn_wait_only_so_long_for_slots_that_are_gone(monkeypatch):
    monkeypatch.setattr(evaluator, "nodes_of_cluster", list)
    slots = RayEvaluator(SlotDirectory((SlotGroup(SlotNeed(("device",))),), last="device"), gone_s=0.05)
    with pytest.raises(RunError, match="no slot for stage device has taken a job for 0 s"):
        asyncio.run(asyncio.wait_for(slots.evaluate(EvaluationJob("a", "")), 20))
