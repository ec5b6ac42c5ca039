"""Slots of a task with stages: what each stage's children see of GPUs, whose turn it is, what is refused."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, gpus
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.gpus import DeviceTurns, groups_of, parse_listing, parse_visible, visible_devices
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.evaluator.processes import descendants, kill
from adrs_ray.evaluator.staged import StagedEvaluator, local_evaluator
from adrs_ray.task import Stage, Task
from tests.evaluator.tiny_task import write_task
from tests.staged_task import ADAPTER, CHEAP, DEAR, program, write_staged_task

ONE = EvaluatorConfig(slots=1, retries=0)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return write_staged_task(tmp_path / "staged")


def shows(monkeypatch: pytest.MonkeyPatch, devices: str) -> None:
    """Let this machine show such GPUs; none is touched."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)


def judge(evaluator: LocalEvaluator | StagedEvaluator, *jobs: EvaluationJob) -> list[Verdict]:
    async def all_of_them() -> list[Verdict]:
        async with evaluator:
            return list(await asyncio.gather(*map(evaluator.evaluate, jobs)))

    return asyncio.run(all_of_them())


def job(value: float = 1, stage: str = "", name: str = "c") -> EvaluationJob:
    return EvaluationJob(name, program(value), stage=stage)


def saw(verdict: Verdict) -> str:
    assert isinstance(verdict, Evaluation), verdict
    return verdict.artifacts["devices"]


def test_cpu_slots_show_no_gpu_and_gpu_slots_theirs_in_import_and_in_the_child(task, monkeypatch):
    shows(monkeypatch, "5,7")
    cheap, dear, default = judge(local_evaluator(task, ONE), job(stage=CHEAP), job(stage=DEAR), job())
    assert saw(cheap) == "||not set"
    assert {saw(dear), saw(default)} == {"5|5|PCI_BUS_ID", "7|7|PCI_BUS_ID"}
    assert [verdict.artifacts["stage"] for verdict in (cheap, dear, default)] == [CHEAP, DEAR, DEAR]


def test_each_stage_has_its_own_cases_scores_and_rules(task):
    everything = LocalEvaluator(task, ONE, [CHEAP, DEAR], "0")
    cheap, dear, thirteen = judge(everything, job(9, CHEAP), job(9, DEAR), job(13, DEAR))
    assert isinstance(cheap, Evaluation)
    assert isinstance(dear, Evaluation)
    assert (cheap.score, dear.score) == (9.0, 7.0)
    assert [case.case for case in dear.cases] == ["measured-0", "measured-1"]
    assert isinstance(thirteen, Failure)
    assert (thirteen.kind, thirteen.case) == (FailureKind.INVALID, "measured-0")


def test_a_slot_serves_its_stages_only(task):
    with pytest.raises(RuntimeError, match="stage measured is not served here, only simulated"):
        judge(LocalEvaluator(task, ONE), job(stage=DEAR))
    with pytest.raises(UsageError, match="no stage 'other': it has simulated, measured"):
        judge(LocalEvaluator(task, ONE), job(stage="other"))
    with pytest.raises(UsageError, match="no stage 'other'"):
        LocalEvaluator(task, ONE, ["other"])


def test_a_stage_without_the_gpus_it_needs_is_refused_in_one_line(tmp_path, monkeypatch):
    shows(monkeypatch, "")
    one, two = write_staged_task(tmp_path / "one"), write_staged_task(tmp_path / "two", gpus=2)
    with pytest.raises(UsageError, match=r"needs 1 GPU, this machine shows none; a .* --last-stage simulated$"):
        local_evaluator(one, ONE)
    shows(monkeypatch, "0")
    with pytest.raises(UsageError, match=r"^stage measured of task staged needs 2 GPUs, this machine shows 1; "):
        local_evaluator(two, ONE)
    cheap = evaluate_once(two, program(3), "train", ONE, CHEAP)
    assert isinstance(cheap, Evaluation)
    assert cheap.score == 3.0


def test_a_task_without_stages_has_the_slots_it_always_had(tmp_path, monkeypatch):
    shows(monkeypatch, "0")
    plain = write_task(tmp_path / "tiny")
    evaluator = local_evaluator(plain, ONE)
    assert isinstance(evaluator, LocalEvaluator)
    (verdict,) = judge(evaluator, EvaluationJob("c", plain.seed_source, stage="full"))
    assert isinstance(verdict, Evaluation)


def test_a_task_of_one_stage_may_need_a_gpu(tmp_path, monkeypatch):
    plain = write_task(tmp_path / "tiny", extra="gpus: 1")
    shows(monkeypatch, "")
    with pytest.raises(UsageError, match=r"^stage full of task tiny needs 1 GPU, this machine shows none$"):
        local_evaluator(plain, ONE)
    shows(monkeypatch, "3")
    assert isinstance(evaluate_once(plain, plain.seed_source, "train", ONE), Evaluation)


def test_an_adapter_that_changes_the_devices_is_found_out_before_a_program_is_loaded(tmp_path):
    changed = ADAPTER.replace("DEVICES =", "os.environ['CUDA_VISIBLE_DEVICES'] = '6'\nDEVICES =")
    folder = write_staged_task(tmp_path / "staged").folder
    (folder / "adapter.py").write_text(changed)
    task = write_staged_task(tmp_path / "again")
    broken = replace(task, folder=folder, adapter_path=folder / "adapter.py")
    with pytest.raises(UsageError, match="CUDA_VISIBLE_DEVICES is '6' in a candidate's process, this slot has '2'"):
        judge(LocalEvaluator(broken, ONE, [DEAR], "2"), job())


def test_devices_that_changed_while_a_run_goes_on_are_ours_not_the_candidates(tmp_path):
    flag = tmp_path / "flag"
    task = write_staged_task(tmp_path / "staged")
    changing = f"import os\nif os.path.exists({str(flag)!r}):\n    del os.environ['CUDA_VISIBLE_DEVICES']\n"
    task.adapter_path.write_text(changing + ADAPTER)
    evaluator = LocalEvaluator(task, ONE, [DEAR], "2")

    async def restarted() -> Verdict:
        before = set(descendants(os.getpid()))
        async with evaluator:
            flag.touch()
            for pid in set(descendants(os.getpid())) - before:
                kill(pid)
            await evaluator.evaluate(job())  # the one that notices the loss
            return await evaluator.evaluate(job())

    verdict = asyncio.run(restarted())
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.INFRASTRUCTURE
    assert "CUDA_VISIBLE_DEVICES is None in a candidate's process, this slot has '2'" in verdict.detail


@pytest.mark.parametrize(
    ("value", "devices"),
    [
        ("", []),
        ("0", ["0"]),
        ("2, 0", ["2", "0"]),
        ("-1", []),
        ("0,-1,2", ["0"]),
        ("NoDevFiles", []),
        ("GPU-12ab-34,MIG-5c", ["GPU-12ab-34", "MIG-5c"]),
        ("1,1", ["1"]),
        ("0;rm", []),
    ],
)
def test_what_cuda_would_make_visible(value, devices):
    assert parse_visible(value) == devices


def test_a_machine_without_the_driver_shows_no_gpu(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert visible_devices({}) == []
    assert visible_devices({"CUDA_VISIBLE_DEVICES": "4"}) == ["4"]


def test_a_listing_names_whole_gpus_and_instances_of_those_that_are_cut():
    text = (
        "GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aaaa-1)\n"
        "GPU 1: NVIDIA H100 80GB HBM3 (UUID: GPU-bbbb-2)\n"
        "  MIG 3g.40gb     Device  0: (UUID: MIG-cccc-3)\n"
        "  MIG 3g.40gb     Device  1: (UUID: MIG-dddd-4)\n"
        "nonsense\n"
    )
    assert parse_listing(text) == ["GPU-aaaa-1", "MIG-cccc-3", "MIG-dddd-4"]


@pytest.mark.parametrize(
    ("needed", "groups"),
    [(1, ["0", "1", "2"]), (2, ["0,1"]), (3, ["0,1,2"]), (4, []), (0.5, ["0", "0", "1", "1", "2", "2"]), (0.4, 6)],
)
def test_slots_hold_whole_devices_alone_and_shares_of_one(needed, groups):
    found = groups_of(["0", "1", "2"], Stage(name="s", gpus=needed))
    assert (len(found) if isinstance(groups, int) else found) == groups


def test_no_device_is_used_beyond_the_whole_of_it_and_everybody_gets_a_turn():
    async def crowd() -> Counter[str]:
        turns, used, served = DeviceTurns(), Counter[str](), Counter[str]()

        async def one(devices: str, share: float) -> None:
            async with turns.on(devices, share):
                for name in devices.split(","):
                    used[name] += int(1000 * share)
                    assert used[name] <= 1000
                await asyncio.sleep(0)
                for name in devices.split(","):
                    used[name] -= int(1000 * share)
                served[devices] += 1

        many = [("0", 1.0), ("1", 0.5), ("0,1", 1.0), ("1", 1.0), ("1", 0.5)] * 20
        jobs = [asyncio.create_task(one(*each)) for each in many]
        for doomed in jobs[3::7]:
            doomed.cancel()
        await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 20)
        assert all(job.cancelled() or job.exception() is None for job in jobs)
        return served

    served = asyncio.run(crowd())
    assert set(served) == {"0", "1", "0,1"}


def test_a_turn_that_is_cancelled_as_it_comes_is_given_back():
    async def cancelled() -> None:
        turns = DeviceTurns()
        async with turns.on("0", 1.0):
            waiting = asyncio.create_task(turns.on("0", 1.0).__aenter__())
            await asyncio.sleep(0)
        waiting.cancel()  # it has the turn, and has not run since
        await asyncio.gather(waiting, return_exceptions=True)
        async with asyncio.timeout(5), turns.on("0", 1.0):
            pass

    asyncio.run(cancelled())


def test_slots_of_two_stages_take_turns_on_one_device(tmp_path, monkeypatch):
    shows(monkeypatch, "0")
    task = write_staged_task(tmp_path / "staged")
    stages = tuple(stage.model_copy(update={"gpus": 1.0}) for stage in task.spec.stages)
    both = replace(task, spec=task.spec.model_copy(update={"stages": stages}))
    running: list[str] = []
    evaluate = LocalEvaluator.evaluate

    async def watched(self: LocalEvaluator, job: EvaluationJob) -> Verdict:
        running.append(job.stage)
        assert len(running) == 1
        try:
            return await evaluate(self, job)
        finally:
            running.pop()

    monkeypatch.setattr(LocalEvaluator, "evaluate", watched)
    verdicts = judge(local_evaluator(both, ONE), *(job(1, stage) for stage in (CHEAP, DEAR) * 3))
    assert all(isinstance(verdict, Evaluation) for verdict in verdicts)


def test_gpu_slots_are_as_many_as_configured_at_the_most(task, monkeypatch):
    shows(monkeypatch, "0,1,2,3")
    evaluator = local_evaluator(task, EvaluatorConfig(slots=1, gpu_slots=2), [DEAR])
    assert evaluator.slots == 2
    assert gpus.visible_devices() == ["0", "1", "2", "3"]
