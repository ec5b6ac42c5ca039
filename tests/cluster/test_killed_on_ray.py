"""`kill -9` of every kind of process of a run on an embedded Ray."""

import json
import os
import signal

import pytest

from tests.cli.command import adrs
from tests.processes import descendants, kill, wait_gone
from tests.runs import check_exact, start, terminal, wait_for
from tests.tiny import write_tiny_task

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_lost_evaluators_islands_and_ledgers_are_replaced_while_the_run_goes_on(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--islands", 2, "--max-candidates", 1500, "--seed", 1, "--out", run, log=log)
    family: set[int] = set()
    for number, name in enumerate(("EvaluatorActor", "IslandActor", "LedgerActor", "EvaluatorActor", "IslandActor")):
        wait_for(run, 30 + 60 * number, process, log)
        processes = descendants(process.pid)
        victims = [pid for pid, command in processes.items() if name in command]
        assert victims, sorted(processes.values())
        kill(victims[:1])
        family |= set(descendants(process.pid))
        before = terminal(run)
        wait_for(run, before + 10, process, log)
    family |= set(descendants(process.pid))
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait(60) == 0, log.read_text()
    assert wait_gone(family, 5) == {}
    done = adrs("resume", run, "--local", "--max-candidates", terminal(run) + 20, "--json")
    assert done.returncode == 0, done.stderr
    check_exact(run, json.loads(done.stdout)["candidates"])


@pytest.mark.parametrize("whole", [True, False], ids=["every process at once", "the driver's group alone"])
def test_killed_and_resumed_at_once_it_ends_with_exactly_its_budget(tmp_path, whole):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    process = start("run", task, "--islands", 2, "--max-candidates", 300, "--seed", 1, "--out", run, log=log)
    wait_for(run, 60, process, log)
    family = set(descendants(process.pid))
    if whole:
        kill(sorted(family))
    else:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert terminal(run) < 300
    again = start("resume", run, "--json", log=log)
    assert wait_gone(family, 5) == {}
    assert again.wait(240) == 0, log.read_text()
    report = json.loads(log.read_text().strip().splitlines()[-1])
    assert report["candidates"] == 300
    check_exact(run, 300)
