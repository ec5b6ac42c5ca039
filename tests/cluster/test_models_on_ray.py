"""A run on Ray whose islands ask a model server: kills of islands and of everything, and steering from outside."""

import json

import pytest

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.cli.test_models_killed import KEY, answered, write_config
from tests.fake_evolver import evolve
from tests.fake_openai import FakeServer, Reply
from tests.processes import descendants, kill, wait_gone
from tests.runs import check_exact, start, terminal, wait_for
from tests.tiny import write_tiny_task

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_islands_and_whole_runs_are_killed_and_each_completion_is_paid_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ADRS_TEST_KEY", KEY)
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    with FakeServer(lambda body: Reply(evolve(body), latency_s=0.1), api_key=KEY) as server:
        config = write_config(tmp_path / "config.yaml", server)
        process = start("run", task, "--config", config, "--max-candidates", 90, "--out", run, log=log)
        wait_for(run, 15, process, log)
        victims = [pid for pid, command in descendants(process.pid).items() if "IslandActor" in command]
        kill(victims[:1])
        wait_for(run, terminal(run) + 10, process, log)
        hinted = adrs("steer", run, "--hint", "words of a person", "--budget", "max_candidates=80")
        assert hinted.returncode == 0, hinted.stderr
        assert "taken in" in hinted.stdout
        wait_for(run, terminal(run) + 8, process, log)
        family = set(descendants(process.pid))
        kill(sorted(family))
        process.wait()
        done = adrs("resume", run, "--json")
        assert done.returncode == 0, done.stderr + log.read_text()
    assert wait_gone(family, 5) == {}
    events = check_exact(run, 80)
    ends = answered(events)
    lost = sum(event.kind is EventKind.LOST for event in ends.values())
    assert lost >= 1
    assert len(ends) - lost <= len(server.received) <= len(ends)
    told = [json.dumps(received.body) for received in server.received]
    assert any("words of a person" in body for body in told)
    assert "words of a person" in told[-1] or "words of a person" in told[-2]
