"""A run whose generator is a mailbox, as real processes: a scripted answerer, two islands, a kill between question and
answer."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import yaml

from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.fake_evolver import evolve
from tests.processes import descendants, kill, wait_gone
from tests.runs import check_exact, events_of, start
from tests.tiny import write_tiny_task


def write_config(path: Path, lease_s: float = 600.0, candidates: int = 7) -> Path:
    config = {
        "budget": {"max_candidates": candidates},
        "islands": {"count": 2, "in_flight": 1},
        "generator": {"kind": "mailbox", "lease_s": lease_s},
    }
    path.write_text(yaml.safe_dump(config))
    return path


def wait_open(run: Path, count: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            asked = {e.body["request"] for e in events_of(run) if e.kind is EventKind.REQUESTED}
            if len(asked) >= count:
                return
        except UsageError:  # the journal is just being made
            pass
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def claimed(run: Path) -> dict[str, object]:
    done = adrs("inbox", "next", run, "--wait", 60, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def answered(run: Path, request: dict[str, object], tmp_path: Path) -> None:
    """What a scripted answerer does: it changes a number of the program it is shown."""
    file = tmp_path / "answer.md"
    file.write_text(evolve({"messages": request["messages"], "seed": str(request["id"])}))
    done = adrs("inbox", "answer", run, request["id"], "--file", file)
    assert done.returncode == 0, done.stderr


def test_people_answer_two_islands_and_a_kill_between_question_and_answer_loses_nothing(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    config = write_config(tmp_path / "config.yaml")
    process = start("run", task, "--local", "--config", config, "--out", run, log=log)
    wait_open(run, 2, process, log)
    listed = adrs("inbox", run)
    assert listed.returncode == 0, listed.stderr
    assert listed.stdout.count(" free") == 2
    first, second = claimed(run), claimed(run)
    assert {str(first["id"]).split("-")[0], str(second["id"]).split("-")[0]} == {"0", "1"}
    answered(run, first, tmp_path)
    wait_open(run, 3, process, log)

    family = set(descendants(process.pid))
    kill([process.pid])
    process.wait()
    assert wait_gone(family, 5) == {}
    # Answered while nobody runs: it counts when the run goes on. The same request again is refused.
    answered(run, second, tmp_path)
    again = adrs("inbox", "answer", run, second["id"], "--file", tmp_path / "answer.md")
    assert again.returncode == 2
    assert "answered already" in again.stderr

    process = start("resume", run, log=log)
    for _ in range(4):
        answered(run, claimed(run), tmp_path)
    deadline = time.monotonic() + 60
    while process.poll() is None:
        # A duplicate is asked for again: such requests are answered, too.
        more = adrs("inbox", "next", run, "--wait", 1, "--json")
        if more.returncode == 0:
            answered(run, json.loads(more.stdout), tmp_path)
        assert time.monotonic() < deadline, log.read_text()
    assert process.wait() == 0, log.read_text()
    events = check_exact(run, 7)
    requested = {e.body["request"] for e in events if e.kind is EventKind.REQUESTED}
    completed = [e.body["request"] for e in events if e.kind is EventKind.COMPLETED]
    assert sorted(completed) == sorted(requested)
    assert not [e for e in events if e.kind is EventKind.LOST]
    assert {str(first["id"]), str(second["id"])} <= requested


def test_a_lease_expires_and_the_request_is_offered_again(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    config = write_config(tmp_path / "config.yaml", lease_s=2.0, candidates=2)
    process = start("run", task, "--local", "--config", config, "--islands", 1, "--out", run, log=log)
    try:
        wait_open(run, 1, process, log)
        first = claimed(run)
        assert adrs("inbox", "next", run).returncode == 1
        second = claimed(run)
        assert second["id"] == first["id"]
        answered(run, second, tmp_path)
        assert process.wait(60) == 0, log.read_text()
        check_exact(run, 2)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def test_a_stop_leaves_questions_open_and_what_is_wrong_is_one_line(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--config", write_config(tmp_path / "c.yaml"), "--out", run, log=log)
    wait_open(run, 2, process, log)
    assert adrs("stop", run).returncode == 0
    assert process.wait(30) == 0, log.read_text()
    assert adrs("inbox", run).stdout.count(" free") == 2
    (tmp_path / "empty").write_text("  \n")
    (tmp_path / "long").write_text("x" * 1_000_001)
    for arguments, word in (
        (("answer", run, "9-9/0", "--file", tmp_path / "empty"), "no request '9-9/0'; open are: "),
        (
            (
                "answer",
                run,
                json.loads(adrs("inbox", "list", run, "--json").stdout)[0]["id"],
                "--file",
                tmp_path / "empty",
            ),
            "empty",
        ),
        (("answer", run, "0-0/0", "--file", tmp_path / "nowhere"), "cannot read the answer"),
        (("answer", run, "0-0/0", "--file", tmp_path / "long"), "at most 1000000 characters"),
        (("list", tmp_path), "is no run"),
    ):
        done = adrs("inbox", *arguments)
        assert done.returncode == 2, done.stdout
        assert word in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
