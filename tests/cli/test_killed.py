"""`kill -9`, Ctrl-C and stop, on real processes of `adrs run --local`."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from adrs_ray.storage.journal import SETTLED, EventKind
from tests.cli.command import adrs
from tests.processes import descendants, kill, wait_gone
from tests.runs import check_exact, events_of, start, terminal, wait_for
from tests.tiny import write_tiny_task


def test_killed_half_way_and_resumed_it_ends_with_exactly_its_budget(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--islands", 2, "--max-candidates", 150, "--seed", 1, "--out", run, log=log)
    wait_for(run, 60, process, log)
    family = set(descendants(process.pid))
    assert len(family) > 2
    kill([process.pid])
    process.wait()
    assert wait_gone(family, 5) == {}
    generated = {e.candidate: e.body["source"] for e in events_of(run) if e.kind is EventKind.GENERATED}
    done = adrs("resume", run, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["candidates"] == 150
    events = check_exact(run, 150)
    assert report["reexecuted"] == sum(
        e.body["verdict"]["attempts"] - 1 for e in events if e.kind is EventKind.MEASURED
    )
    again = {e.candidate: e.body["source"] for e in events if e.kind is EventKind.GENERATED}
    assert generated.items() <= again.items()


def test_ctrl_c_drains_and_says_how_to_resume(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 100_000, "--out", run, log=log)
    wait_for(run, 20, process, log)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) == 0
    assert f"adrs resume {run}" in log.read_text()
    events = events_of(run)
    generated = {e.candidate for e in events if e.kind is EventKind.GENERATED}
    assert generated <= {e.candidate for e in events if e.kind in SETTLED}
    assert not any(e.kind is EventKind.MEASURED and e.body["split"] == "test" for e in events)


def test_a_second_ctrl_c_stops_at_once_and_nothing_is_lost(tmp_path):
    task = write_tiny_task(tmp_path)
    (task / "adapter.py").write_text(
        "import time\n\n\ndef run(program, public):\n    time.sleep(8)\n    return program.answer(public)\n"
    )
    run, log = tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 50, "--out", run, log=log)
    deadline = time.monotonic() + 60
    while len(descendants(process.pid)) < 3:  # the run, a fork server, a candidate
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(1.0)
    family = set(descendants(process.pid))
    os.kill(process.pid, signal.SIGINT)
    time.sleep(0.5)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(7) == 130
    assert wait_gone(family, 5) == {}
    assert f"adrs resume {run}" in log.read_text()


def test_stop_from_another_process(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 100_000, "--out", run, log=log)
    wait_for(run, 10, process, log)
    assert adrs("stop", run).returncode == 0
    assert process.wait(30) == 0
    status = json.loads(adrs("status", run, "--json").stdout)
    assert "adrs stop" in status["state"]
    assert status["under_way"] == 0


def test_a_run_that_is_held_by_another_process_is_not_taken_by_accident(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--local", "--max-candidates", 100_000, "--out", run, log=log)
    wait_for(run, 10, process, log)
    refused = adrs("resume", run)
    assert refused.returncode == 1
    assert str(process.pid) in refused.stderr
    assert "--fence" in refused.stderr
    taken = adrs("resume", run, "--fence", "--max-candidates", terminal(run) + 200, "--json")
    assert taken.returncode == 0, taken.stderr
    assert process.wait(30) == 1
    assert "taken this run over" in log.read_text()
    check_exact(run, json.loads(taken.stdout)["candidates"])


def fill(path: Path) -> None:
    """Take what is left of a file system."""
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


def test_a_full_disk_ends_the_run_with_one_line_and_it_goes_on_later(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "tmpfs", disk], check=True)
    process = None
    try:
        task, run, log = write_tiny_task(tmp_path), disk / "run", tmp_path / "log"
        process = start("run", task, "--local", "--max-candidates", 200, "--out", run, log=log)
        wait_for(run, 5, process, log)
        fill(disk / "filler")
        assert process.wait(60) == 1, log.read_text()
        last = log.read_text().strip().splitlines()[-1]
        assert "adrs: " in last
        assert "full" in last or "space" in last
        (disk / "filler").unlink()
        done = adrs("resume", run, "--max-candidates", 60, "--json")
        assert done.returncode == 0, done.stderr
        check_exact(run, json.loads(done.stdout)["candidates"])
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        subprocess.run(["umount", "--lazy", disk], check=True)
