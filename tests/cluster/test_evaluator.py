"""What of the evaluator on Ray can be told without Ray: needs, stages, and what is said when slots are gone."""

from __future__ import annotations

import asyncio

import pytest

from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.task_spec import Stage
from cluster import evaluator
from cluster.evaluator import RayEvaluator, SlotDirectory, SlotGroup, SlotNeed, slot_need
from cluster.fit import NodeRoom


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
