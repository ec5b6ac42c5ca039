"""How a run on Ray begins, and what keeps it from beginning."""

import json
import signal
import socket
import time

import pytest

from tests.cli.command import adrs
from tests.runs import start
from tests.tiny import FILES, write_tiny_task

pytestmark = pytest.mark.ray


def test_an_address_where_nothing_listens_is_one_line(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        done = adrs("run", task, "--address", address, "--max-candidates", 3, "--out", run, timeout_s=60)
    assert done.returncode == 1
    assert f"cannot join Ray at {address}" in done.stderr
    assert "Traceback" not in done.stderr
    again = adrs("resume", run, "--local", "--json")
    assert json.loads(again.stdout)["candidates"] == 3, again.stderr


def test_slots_of_more_than_one_cpu_find_room_on_an_embedded_ray(tmp_path):
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    (task / "task.yaml").write_text(FILES["task.yaml"] + "cpus: 1.5\n")
    done = adrs("run", task, "--slots", 2, "--max-candidates", 10, "--out", run, "--json", timeout_s=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidates"] == 10


def test_the_run_is_held_and_can_be_stopped_while_ray_starts(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--max-candidates", 100_000, "--out", run, log=log)
    try:
        deadline = time.monotonic() + 60
        while not (run / "journal.db").exists():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert json.loads(adrs("status", run, "--json").stdout)["state"] == "running"
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) in (0, 130), log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    assert f"adrs resume {run}" in log.read_text()
    assert "Traceback" not in log.read_text()
