"""A task with stages on the command line: run, stopped, resumed, replayed; its fidelity; one stage judged alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.runs import events_of
from tests.staged_task import CHEAP, DEAR, JUDGE, write_staged_task
from tests.tiny import write_tiny_task

GPU = {"CUDA_VISIBLE_DEVICES": "0"}
"""Shown to candidates; nothing looks for it."""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The task's folder and a run that was stopped after 30 candidates and went on to 60."""
    path = tmp_path_factory.mktemp("staged")
    task, run, config = write_staged_task(path / "staged").folder, path / "run", path / "config.yaml"
    config.write_text("evaluator: {cascade: {open_until: 8, chance: 0.3, random_pass: 0.3}}\n")
    options = ["--local", "--config", config, "--islands", 1, "--slots", 1, "--out", run, "--no-baselines"]
    done = adrs("run", task, *options, "--max-candidates", 30, env=GPU)
    assert done.returncode == 0, done.stderr
    more = adrs("resume", run, "--max-candidates", 60, "--no-baselines", env=GPU)
    assert more.returncode == 0, more.stderr
    return task, run


def test_a_run_measures_stage_by_stage_and_judges_held_out_splits_in_the_last(searched):
    _, run = searched
    events = events_of(run)
    admitted = [event for event in events if event.kind is EventKind.ADMITTED]
    assert admitted
    assert all(list(event.body["stages"]) == [CHEAP, DEAR] for event in admitted)
    held_out = [e for e in events if e.kind is EventKind.MEASURED and e.body["split"] != "train"]
    assert {event.body["stage"] for event in held_out} == {DEAR}
    verdicts = [(e.candidate, e.body["stage"], e.body["split"]) for e in events if e.kind is EventKind.MEASURED]
    assert len(set(verdicts)) == len(verdicts)


def test_fidelity_is_told_as_a_table_and_as_json(searched):
    _, run = searched
    told = adrs("fidelity", run)
    assert told.returncode == 0, told.stderr
    for words in (f"{CHEAP} against {DEAR}", "Spearman", "bias", "regret", "gate"):
        assert words in told.stdout
    (stage,) = json.loads(adrs("fidelity", run, "--json").stdout)["stages"]
    assert stage["cheap"] == CHEAP
    assert stage["pairs"] == sum(event.kind is EventKind.ADMITTED for event in events_of(run))
    assert stage["spearman"]["low"] <= stage["spearman"]["value"] <= stage["spearman"]["high"]
    assert sum(stage["gate"].values()) >= stage["pairs"]


def test_fidelity_of_a_task_without_stages_is_refused_in_one_line(tmp_path):
    run = tmp_path / "run"
    adrs("run", write_tiny_task(tmp_path), "--local", "--max-candidates", 2, "--slots", 1, "--out", run)
    told = adrs("fidelity", run)
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "has no stages" in told.stderr


def test_a_run_without_its_gpu_is_refused_in_one_line(searched, tmp_path):
    task, _ = searched
    told = adrs("run", task, "--local", "--out", tmp_path / "run", env={"CUDA_VISIBLE_DEVICES": ""})
    assert told.returncode == 2
    assert told.stderr.count("\n") == 1
    assert "stage measured of task staged needs 1 GPU, this machine shows none" in told.stderr
    assert not (tmp_path / "run").exists()


def test_a_run_may_end_with_the_stage_for_which_there_is_a_machine(searched, tmp_path):
    task, _ = searched
    none = {"CUDA_VISIBLE_DEVICES": ""}
    options = ["--local", "--slots", 1, "--last-stage", CHEAP, "--out", tmp_path / "run"]
    done = adrs("run", task, *options, "--max-candidates", 8, env=none)
    assert done.returncode == 0, done.stderr
    more = adrs("resume", tmp_path / "run", "--max-candidates", 12, "--no-baselines", env=none)
    assert more.returncode == 0, more.stderr
    measured = [event for event in events_of(tmp_path / "run") if event.kind is EventKind.MEASURED]
    assert {event.body["stage"] for event in measured} == {CHEAP}
    assert {event.body["split"] for event in measured} >= {"train", "validation", "test"}
    unknown = adrs("run", task, "--local", "--last-stage", "other", "--out", tmp_path / "other")
    assert (unknown.returncode, (tmp_path / "other").exists()) == (2, False)
    assert "it has simulated, measured" in unknown.stderr


def test_one_stage_is_judged_alone(searched):
    task, _ = searched
    cheap = json.loads(adrs("eval", task, "seed", "--stage", CHEAP, "--json", env={"CUDA_VISIBLE_DEVICES": ""}).stdout)
    assert (cheap["stage"], cheap["score"]) == (CHEAP, 1.0)
    dear = json.loads(adrs("eval", task, "seed", "--json", env=GPU).stdout)
    assert (dear["stage"], dear["artifacts"]["devices"]) == (DEAR, "0|0|PCI_BUS_ID")
    assert f"stage {DEAR}: score 1" in adrs("eval", task, "seed", env=GPU).stdout
    unknown = adrs("eval", task, "seed", "--stage", "other")
    assert unknown.returncode == 2
    assert "it has simulated, measured" in unknown.stderr


def test_the_table_of_cases_shows_what_is_declared_where_cases_differ(tmp_path):
    changed = JUDGE.replace(
        'return {"value": float(real)}', 'return {"value": float(real), **({"aside": 7.5} if case.seed == 0 else {})}'
    )
    assert changed != JUDGE
    task = write_staged_task(tmp_path / "staged", gpus=0, judge=changed)
    told = adrs("eval", task.folder, "seed", "--stage", CHEAP)
    assert told.returncode == 0, told.stderr
    assert "aside" not in told.stdout
    assert sum("simulated-" in line and " 1 " in line for line in told.stdout.splitlines()) == 2
