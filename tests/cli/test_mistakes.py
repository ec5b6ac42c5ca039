"""What users and their files get wrong: one line that says so, the right exit code, and nothing lost."""

import json
import os
from pathlib import Path

import pytest

from adrs_ray.config import RunConfig, override
from adrs_ray.storage.runfolder import RunFolder
from tests.cli.command import adrs
from tests.runs import start, terminal, wait_for
from tests.tiny import FILES, write_tiny_task

SMALL = ("--local", "--slots", 1, "--islands", 1, "--max-candidates", 3)


def one_line(done, code: int) -> str:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("file", "text", "wanted"),
    [
        ("judge.py", b"def (", "judge.py does not import"),
        ("judge.py", FILES["judge.py"].encode() + b"\ndef split_note(s): return 1 / 0\n", "split_note('train') raised"),
        ("seed.py", b"x = '\xff'", "cannot read program"),
        ("seed.py", b"def (", "seed is no Python program: line 1"),
        ("seed.py", b"# EVOLVE-BLOCK-END\n", "line 1: EVOLVE-BLOCK-END without"),
        ("task.yaml", b"name: [", "task.yaml is not YAML"),
    ],
)
def test_a_broken_task_is_one_line_and_leaves_no_run_behind(tmp_path, file, text, wanted):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    (task / file).write_bytes(text)
    assert wanted in one_line(adrs("run", task, *SMALL, "--out", run), 2)
    assert not run.exists()


def test_a_warm_start_that_is_no_program_leaves_no_run_behind(tmp_path):
    task, run, program = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "p.py"
    program.write_text("def (")
    done = adrs("run", task, *SMALL, "--out", run, "--warm-start", program)
    assert "no Python program" in one_line(done, 2)
    assert not run.exists()


def test_more_programs_to_start_from_than_the_budget_holds_are_refused(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    starts = []
    for number in range(4):
        program = tmp_path / f"{number}.py"
        program.write_text(FILES["seed.py"].replace("STEP = 3", f"STEP = {30 + number}"))
        starts += ["--warm-start", program]
    assert "below the 5 programs to start from" in one_line(adrs("run", task, *SMALL, "--out", run, *starts), 2)
    assert not run.exists()


def test_a_run_that_was_killed_before_its_first_event_is_resumed_with_all_it_was_to_start_from(tmp_path):
    task, program = write_tiny_task(tmp_path), tmp_path / "warm.py"
    program.write_text(FILES["seed.py"].replace("STEP = 3", "STEP = 30"))
    config = override(RunConfig(), {"budget.max_candidates": 4, "evaluator.slots": 1})
    run = RunFolder.create(tmp_path / "run", config, str(task), True, warm_start=[str(program)])
    done = adrs("resume", run.path, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidates"] == 4
    assert "STEP = 30" in adrs("show", run.path, "seed-1").stdout


def test_odd_names_and_odd_programs_are_printed_as_they_are(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "r\u00fc [/n] :x:"
    (task / "baselines").mkdir()
    (task / "baselines" / "[b].py").write_text("def answer(limit):\n    raise ValueError('\\ud800')\n")
    done = adrs("run", task, *SMALL, "--out", run)
    assert done.returncode == 0, done.stderr
    assert f"program: {run}/best/program.py" in done.stdout
    assert "[b]" in done.stdout
    assert f"adrs resume '{run}'" in done.stdout
    assert adrs("best", run).returncode == 0
    failed = adrs("eval", task, "[b]")
    assert failed.returncode == 1
    assert "\\ud800" in failed.stdout
    assert "Traceback (most recent call last)" not in failed.stderr


def test_a_baseline_that_cannot_be_read_is_one_line(tmp_path):
    task = write_tiny_task(tmp_path)
    (task / "baselines").mkdir()
    (task / "baselines" / "b.py").write_bytes(b"x = '\xff'")
    assert "b.py" in one_line(adrs("run", task, *SMALL, "--out", tmp_path / "run"), 2)


@pytest.mark.parametrize("arguments", [("run", "x" * 300), ("status", "x" * 300), ("stop", "x" * 300)])
def test_a_name_that_is_too_long_is_one_line(tmp_path, arguments):
    one_line(adrs(*arguments, cwd=tmp_path), 2)


def test_a_judge_that_prints_does_not_disturb_the_json(tmp_path):
    task = write_tiny_task(tmp_path)
    (task / "judge.py").write_text(
        FILES["judge.py"].replace("def score(case, raw):", "def score(case, raw):\n    print(1)")
    )
    assert json.loads(adrs("eval", task, "seed", "--json").stdout)["valid"]
    done = adrs("run", task, *SMALL, "--out", tmp_path / "run", "--json")
    assert json.loads(done.stdout)["candidates"] == 3


def test_stopping_what_does_not_run_says_so_and_the_next_start_goes_on(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    assert adrs("run", task, *SMALL, "--out", run).returncode == 0
    assert "is not running" in one_line(adrs("stop", run), 2)
    assert json.loads(adrs("status", run, "--json").stdout)["state"].startswith("ended")
    again = json.loads(adrs("resume", run, "--max-candidates", 6, "--json").stdout)
    assert (again["candidates"], again["finished"]) == (6, True)


def test_a_resume_that_is_refused_changes_nothing(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 100_000, "--out", run, log=log)
    try:
        wait_for(run, 3, process, log)
        before = (run / "run.yaml").read_bytes()
        assert "another process" in one_line(adrs("resume", run, "--max-candidates", 200_000), 1)
        assert (run / "run.yaml").read_bytes() == before
        assert json.loads(adrs("status", run, "--json").stdout)["state"] == "running"
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert terminal(run) < 100_000


def test_a_run_that_was_on_a_cluster_goes_on_in_one_process(tmp_path):
    task = write_tiny_task(tmp_path)
    config = override(
        RunConfig(), {"cluster.address": "10.0.0.1:6379", "budget.max_candidates": 3, "evaluator.slots": 1}
    )
    run = RunFolder.create(tmp_path / "run", config, str(task), False)
    assert "exclude each other" in one_line(adrs("resume", run.path, "--local", "--address", "auto"), 2)
    done = adrs("resume", run.path, "--local", "--json")
    assert json.loads(done.stdout)["candidates"] == 3, done.stderr


def test_a_run_that_ended_by_patience_goes_on_with_more_of_it(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    first = adrs("run", task, *SMALL[:-1], 400, "--patience", 20, "--out", run, "--json")
    assert "no better candidate" in json.loads(first.stdout)["reason"]
    again = adrs("resume", run, "--patience", 100_000, "--json")
    assert json.loads(again.stdout)["candidates"] == 400, again.stderr


def test_a_task_folder_that_is_gone_is_one_line(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    assert adrs("run", task, *SMALL, "--out", run).returncode == 0
    os.rename(task, tmp_path / "moved")
    assert str(task) in one_line(adrs("resume", run, "--max-candidates", 6), 2)
    assert Path(run, "run.yaml").read_text().count("max_candidates: 3") == 1
