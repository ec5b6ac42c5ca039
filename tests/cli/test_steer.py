"""`adrs steer` against real runs, and what is wrong with a command in one line."""

from __future__ import annotations

import json
import signal
import time

import pytest

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.runs import events_of, start, terminal, wait_for
from tests.tiny import FILES, write_tiny_task

BETTER = FILES["seed.py"].replace("    return total", "    return limit")
"""The best there is."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("steer")
    task, run = write_tiny_task(folder), folder / "run"
    done = adrs("run", task, "--local", "--islands", 2, "--max-candidates", 12, "--out", run)
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ((), "nothing to do: give --hint"),
        (("--island", 0), "--island goes with --hint"),
        (("--hint", "x", "--island", 7), "has no island 7: it has 0, 1"),
        (("--hint", ""), "command hint: text is ''"),
        (("--pin", "0-9999"), "has no valid candidate '0-9999'"),
        (("--ban", "nobody"), "has no valid candidate 'nobody'"),
        (("--inject", "nowhere.py"), "cannot read program nowhere.py"),
        (("--budget", "max_usd"), "expected KEY=VALUE"),
        (("--budget", "max_usd=much"), "'much' is no number"),
        (("--budget", "max_dollars=1"), "unknown limit 'max_dollars': accepted are max_candidates"),
        (("--budget", "max_candidates=none"), "budget.max_candidates cannot be taken away"),
        (("--budget", "max_candidates=1"), "below islands.count"),
        (("--pause", "first"), "expected an island's number, or all"),
        (("--restart", 9), "has no island 9"),
        (("--retire", 9), "has no island 9"),
    ],
)
def test_a_wrong_command_is_one_line_and_nothing_is_posted(finished, arguments, wanted):
    done = adrs("steer", finished, *arguments)
    assert done.returncode == 2, done.stdout
    assert wanted in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((finished / "commands").glob("*.json"))


def test_a_program_that_is_none_is_refused_before_it_is_posted(finished, tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("def f(:\n")
    done = adrs("steer", finished, "--inject", broken)
    assert done.returncode == 2
    assert "no Python program that can be evolved: line 1" in done.stderr


def test_commands_are_obeyed_within_seconds_and_hold_after_a_resume(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--islands", 2, "--max-candidates", 100_000, "--out", run, log=log)
    wait_for(run, 15, process, log)
    (tmp_path / "better.py").write_text(BETTER)
    done = adrs("steer", run, "--pause", "all", "--inject", tmp_path / "better.py", "--ban", "seed-0")
    assert done.returncode == 0, done.stderr
    assert "taken in: ban, inject, pause" in done.stdout
    deadline = time.monotonic() + 30
    while not any(str(e.candidate).startswith("inject-") and e.kind is EventKind.ADMITTED for e in events_of(run)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(2.0)
    before = terminal(run)
    time.sleep(2.0)
    assert terminal(run) == before, "it went on though it was paused"
    process.send_signal(signal.SIGKILL)
    process.wait()

    process = start("resume", run, log=log)
    time.sleep(6.0)
    assert terminal(run) <= before + 4, "a pause does not end with the process"
    assert process.poll() is None, log.read_text()
    done = adrs("steer", run, "--continue", "all", "--budget", f"max_candidates={before + 40}")
    assert done.returncode == 0, done.stderr
    assert process.wait(90) == 0, log.read_text()
    status = json.loads(adrs("status", run, "--json").stdout)
    assert status["candidates"] == status["max_candidates"] == before + 40
    events = events_of(run)
    banned_at = next(e.at for e in events if e.kind is EventKind.COMMAND and e.body["kind"] == "ban")
    parents = {p for e in events if e.kind is EventKind.GENERATED and e.at > banned_at + 3 for p in e.body["parents"]}
    assert parents
    assert "seed-0" not in parents
    injected = [e for e in events if str(e.candidate).startswith("inject-")]
    assert [e.kind for e in injected] == [EventKind.GENERATED, EventKind.MEASURED, EventKind.ADMITTED]


def test_a_command_to_a_run_that_is_down_waits_for_it(finished):
    done = adrs("steer", finished, "--hint", "patience")
    assert done.returncode == 0
    assert "will be obeyed when it is resumed" in done.stdout
    again = adrs("resume", finished, "--max-candidates", 16)
    assert again.returncode == 0, again.stderr
    hints = [e for e in events_of(finished) if e.kind is EventKind.COMMAND and e.body["kind"] == "hint"]
    assert [e.body["body"]["text"] for e in hints] == ["patience"]
