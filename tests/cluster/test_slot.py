"""One slot without Ray: what it does about its device, and about the devices it is shown."""

from __future__ import annotations

import asyncio

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.isomorphic import disguised
from adrs_ray.task import load_task
from cluster import slot
from cluster.devices import GOOD_CHECKS
from cluster.node_cache import TaskParcel, parcel_task
from cluster.slot import EvaluatorActor, own_devices
from tests.staged_task import CHEAP, DEAR, JUDGE, program, write_staged_task
from tests.test_isomorphic import tiny
from tests.test_openevolve import EVALUATE, PROGRAM, write_folder

WELL = "0, GPU-a, 10, 81559, 41, 0, 0x0"
SLOW = "0, GPU-a, 10, 81559, 41, 0, 0x40"
BREAKS = JUDGE.replace('answer = raw["answer"]', 'answer = raw["answer"]\n        assert answer != 7')


@pytest.fixture
def device(tmp_path, monkeypatch):
    """Say what nvidia-smi prints from now on."""
    monkeypatch.setattr(slot, "CHECK_EVERY_S", 0.01)
    monkeypatch.setattr(slot, "RECHECK_S", 0.01)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    said = tmp_path / "said"
    said.write_text(WELL)
    (tmp_path / "bin").mkdir()
    smi = tmp_path / "bin" / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat {said}\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{smi.parent}:/usr/bin:/bin")
    return said.write_text


def gpu_slot(folder, judge: str = JUDGE) -> EvaluatorActor:
    task = write_staged_task(folder, judge=judge)
    config = EvaluatorConfig(slots=1, retries=0)
    return EvaluatorActor(TaskParcel(str(task.folder)), config, False, (DEAR,), 1.0, "0")


async def judged(actor: EvaluatorActor, value: float) -> Evaluation | Failure | None:
    """Stand in line as a client does; None when the slot wants the job to go elsewhere."""
    await actor.stand_in_line("me")
    return (await actor.evaluate("me", EvaluationJob("c", program(value), stage=DEAR))).verdict


def test_a_device_that_misbehaves_puts_its_slot_out_until_it_is_well(tmp_path, device):
    async def main() -> None:
        actor = gpu_slot(tmp_path / "task")
        # Starts the evaluator; the device is looked at first.
        answer = await actor.evaluate("me", EvaluationJob("c", program(2), stage=DEAR))
        assert answer.verdict is None
        assert not answer.spoilt
        first = await judged(actor, 2)
        assert isinstance(first, Evaluation)
        assert first.artifacts["devices"].startswith("0|0|")
        device(SLOW)
        waiting = asyncio.create_task(judged(actor, 2))
        while await actor.refusal() is None:
            await asyncio.sleep(0.01)
            if waiting.done():
                waiting = asyncio.create_task(judged(actor, 2))
        assert (await actor.status()).refuses == "quarantined: GPU 0 is slowed down: hardware thermal slowdown"
        assert (await actor.evaluate("other", EvaluationJob("c", program(2), stage=DEAR))).verdict is None
        assert not waiting.done()
        device(WELL)
        assert isinstance(await waiting, Evaluation)
        assert await actor.refusal() is None
        status = await actor.status()
        assert status.devices == "0"
        assert status.verdicts >= 2
        assert 0 < status.busy_share <= 1
        await actor.close()

    # status() asks Ray for the node.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot.ray, "get_runtime_context", lambda: type("Here", (), {"get_node_id": lambda self: "n"})())
        asyncio.run(asyncio.wait_for(main(), 120))
    assert GOOD_CHECKS > 1


def test_a_failure_of_ours_on_a_device_in_trouble_is_not_the_candidates(tmp_path, device):
    async def main() -> None:
        actor = gpu_slot(tmp_path / "task", BREAKS)
        await actor.evaluate("me", EvaluationJob("c", program(2), stage=DEAR))
        broken = await judged(actor, 7)
        assert isinstance(broken, Failure)
        assert broken.kind is FailureKind.INFRASTRUCTURE
        await actor.stand_in_line("me")
        device(SLOW)
        answer = await actor.evaluate("me", EvaluationJob("c", program(7), stage=DEAR))
        assert answer.verdict is None
        assert answer.spoilt
        assert not answer.free
        await actor.close()

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_slot_on_cpus_shows_its_candidates_no_device_and_checks_none(tmp_path, device):
    device(SLOW)

    async def main() -> None:
        task = write_staged_task(tmp_path / "task")
        actor = EvaluatorActor(TaskParcel(str(task.folder)), EvaluatorConfig(slots=1), False, (CHEAP,))
        answer = await actor.evaluate("me", EvaluationJob("c", program(2), stage=CHEAP))
        assert isinstance(answer.verdict, Evaluation)
        assert answer.free
        assert answer.verdict.artifacts["devices"].startswith("||")
        assert await actor.refusal() is None
        await actor.close()
        await actor.close()

    asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize("shared", [True, False])
def test_no_process_waits_on_a_device_that_engines_have_between_two_turns(tmp_path, monkeypatch, device, shared):
    kept = []

    class Noted(slot.LocalEvaluator):
        def __init__(self, *args):
            super().__init__(*args)
            kept.append(self._task.spec.spares)

    async def main() -> None:
        task = write_staged_task(tmp_path / "task")
        with (task.folder / "task.yaml").open("a") as file:
            file.write("spares: 1\n")
        stage, devices = (DEAR, "0") if shared else (CHEAP, None)
        parcel = TaskParcel(str(task.folder))
        actor = EvaluatorActor(parcel, EvaluatorConfig(slots=1), False, (stage,), 1.0 if shared else 0.0, devices)
        await actor._evaluator()
        await actor.close()

    monkeypatch.setattr(slot, "LocalEvaluator", Noted)
    asyncio.run(asyncio.wait_for(main(), 120))
    assert kept == [0 if shared else 1]


def test_a_folder_of_another_style_that_was_brought_and_a_disguised_task_are_judged_as_ever(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "style").mkdir()
    folder = write_folder(tmp_path / "style", EVALUATE)
    store: list[object] = []
    parcel = parcel_task(load_task(folder), str(folder), lambda value: store.append(value) or len(store) - 1)
    folder.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(slot.ray, "get", store.__getitem__)
    told = disguised(tiny(tmp_path / "native"))

    async def main() -> None:
        actor = EvaluatorActor(parcel, EvaluatorConfig(slots=1), False, ("full",))
        answer = await actor.evaluate("me", EvaluationJob("c", PROGRAM))
        assert isinstance(answer.verdict, Evaluation)
        assert answer.verdict.metrics["right"] == 1.0
        assert answer.verdict.trust == "candidate-side"
        await actor.close()
        actor = EvaluatorActor(TaskParcel(str(told.folder)), EvaluatorConfig(slots=1), True, ("full",))
        answer = await actor.evaluate("me", EvaluationJob("c", told.seed_source))
        assert isinstance(answer.verdict, Evaluation)
        await actor.close()

    asyncio.run(asyncio.wait_for(main(), 120))


def test_what_was_wrong_with_a_node_may_be_mended(tmp_path):
    async def main() -> None:
        actor = EvaluatorActor(TaskParcel(str(tmp_path / "task")), EvaluatorConfig(slots=1), False, (CHEAP,))
        with pytest.raises(UsageError, match="no task"):
            await actor.evaluate("me", EvaluationJob("c", program(2), stage=CHEAP))
        write_staged_task(tmp_path / "task")
        assert (await actor.evaluate("me", EvaluationJob("c", program(2), stage=CHEAP))).verdict is not None
        await actor.close()

    asyncio.run(asyncio.wait_for(main(), 120))


def test_no_error_of_a_start_is_kept_and_one_caller_s_end_is_not_the_others(tmp_path, monkeypatch):
    listens = slot.WireServer.start

    async def main() -> None:
        task = write_staged_task(tmp_path / "task")
        actor = EvaluatorActor(TaskParcel(str(task.folder)), EvaluatorConfig(slots=1), False, (CHEAP,))
        make = actor._make
        failing = [OSError(28, "No space left on device"), RunError("cannot listen")]

        async def full() -> None:
            raise failing[0]

        async def deaf(*_: object) -> None:
            raise failing[1]

        monkeypatch.setattr(actor, "_make", full)
        monkeypatch.setattr(slot.WireServer, "start", deaf)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                await actor.whereabouts()
        await actor.close()
        monkeypatch.setattr(actor, "_make", make)
        gone = asyncio.create_task(actor.whereabouts())
        await asyncio.sleep(0)
        gone.cancel()
        for _ in range(2):
            with pytest.raises(RunError, match="cannot listen"):
                await actor.whereabouts()
        monkeypatch.setattr(slot.WireServer, "start", listens)
        assert (await actor.whereabouts()).address.host == "127.0.0.1"
        await actor.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slot.ray, "get_runtime_context", lambda: type("Here", (), {"get_node_id": lambda self: "n"})())
        patch.setattr(slot.ray, "nodes", list)
        patch.setattr(slot.ray.util, "get_node_ip_address", lambda: "127.0.0.1")
        asyncio.run(asyncio.wait_for(main(), 120))


@pytest.mark.parametrize(
    ("given", "visible", "part"),
    [
        ([], "0", "given none"),
        ([0], None, "NOSET"),
        ([0], "0,1", "NOSET"),
        ([0], "1", "NOSET"),
        ([0, 1], "1,0", "NOSET"),
        (["GPU-a"], "", "NOSET"),
    ],
)
def test_a_slot_that_sees_other_devices_than_its_own_refuses(given, visible, part):
    with pytest.raises(UsageError, match=part) as caught:
        own_devices(given, visible)
    assert "\n" not in str(caught.value)


def test_its_own_devices_are_named_as_cuda_does():
    assert own_devices([2, 3], "2,3") == "2,3"
    assert own_devices(["GPU-a"], "GPU-a") == "GPU-a"
