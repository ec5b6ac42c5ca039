"""Runs that ask a model server, as real processes: what is paid for is counted once, `kill -9` or not."""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path

import yaml

from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import Event, EventKind
from tests.cli.command import adrs
from tests.fake_evolver import evolve
from tests.fake_openai import FakeServer, Reply
from tests.processes import descendants, kill, wait_gone
from tests.runs import check_exact, events_of, start, wait_for
from tests.tiny import write_tiny_task

KEY = "canary-key-that-stands-nowhere"


def write_config(path: Path, server: FakeServer, **sections: object) -> Path:
    model = {
        "base_url": server.base_url,
        "api_key_env": "ADRS_TEST_KEY",
        "usd_per_mtok_in": 1.0,
        "usd_per_mtok_out": 4.0,
        "max_tokens": 2000,
    }
    config = {
        "islands": {"count": 2, "in_flight": 3, "migration_interval": 5},
        "generator": {"kind": "openai", "summarize_every": 10},
        "models": {"small": {"model": "fake-small", **model}, "strong": {"model": "fake-strong", **model}},
        **sections,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def answered(events: list[Event]) -> dict[str, Event]:
    """By request; every request that was journaled is answered or written off, once."""
    requested = [e.body["request"] for e in events if e.kind is EventKind.REQUESTED]
    ends = [e for e in events if e.kind in (EventKind.COMPLETED, EventKind.LOST)]
    assert max(Counter(requested).values()) == 1
    assert Counter(e.body["request"] for e in ends) == Counter(requested)
    return {e.body["request"]: e for e in ends}


def test_killed_again_and_again_it_pays_for_each_completion_once(tmp_path, monkeypatch):
    monkeypatch.setenv("ADRS_TEST_KEY", KEY)
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    with FakeServer(lambda body: Reply(evolve(body), latency_s=0.05), api_key=KEY) as server:
        config = write_config(tmp_path / "config.yaml", server)
        process = start("run", task, "--local", "--config", config, "--max-candidates", 60, "--out", run, log=log)
        for goal in (8, 20, 33):
            wait_for(run, goal, process, log)
            family = set(descendants(process.pid))
            kill([process.pid])
            process.wait()
            assert wait_gone(family, 5) == {}
            process = start("resume", run, log=log)
        assert process.wait(120) == 0, log.read_text()
        events = check_exact(run, 60)
        ends = answered(events)
        completed = [e for e in ends.values() if e.kind is EventKind.COMPLETED]
        billed = server.billed_in + server.billed_out
    told = sum(e.body["usage"]["tokens_in"] + e.body["usage"]["tokens_out"] for e in completed)
    lost = [e for e in ends.values() if e.kind is EventKind.LOST]
    assert len(completed) <= len(server.received) <= len(ends)
    assert told <= billed
    assert lost, "no request was in flight at any of three kills"
    status = json.loads(adrs("status", run, "--json").stdout)
    assert sum(model["tokens_in"] + model["tokens_out"] for model in status["models"].values()) == told + sum(
        e.body["usage"]["tokens_in"] + e.body["usage"]["tokens_out"] for e in lost
    )
    used = {e.body["source"] for e in events if e.kind is EventKind.GENERATED}
    assert len(used) > 20
    assert KEY not in run.joinpath("run.yaml").read_text() + log.read_text()
    for file in run.rglob("*"):
        if file.is_file():
            assert KEY.encode() not in file.read_bytes(), file


def test_a_completion_that_was_paid_for_is_used_after_a_kill_and_not_bought_again(tmp_path, monkeypatch):
    monkeypatch.setenv("ADRS_TEST_KEY", KEY)
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    # Evaluations never end until the marker is there: whatever is journaled as generated waits for a verdict.
    marker = tmp_path / "go"
    (task / "judge.py").write_text(
        (task / "judge.py")
        .read_text()
        .replace(
            "def score(case, raw):",
            "import os, time\n\n\ndef score(case, raw):\n"
            f"    while raw != 25 and not os.path.exists({str(marker)!r}):\n        time.sleep(0.05)",
        )
    )
    with FakeServer(lambda body: Reply(evolve(body)), api_key=KEY) as server:
        config = write_config(tmp_path / "config.yaml", server, islands={"count": 1, "in_flight": 2})
        process = start("run", task, "--local", "--config", config, "--max-candidates", 12, "--out", run, log=log)
        deadline = time.monotonic() + 60
        while sum(e.kind is EventKind.GENERATED for e in _events(run)) < 2:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        family = set(descendants(process.pid))
        kill([process.pid])
        process.wait()
        assert wait_gone(family, 5) == {}
        before = {e.body["request"]: e.body["text"] for e in _events(run) if e.kind is EventKind.COMPLETED}
        generated = {e.candidate: e.body["source"] for e in _events(run) if e.kind is EventKind.GENERATED}
        asked = len(server.received)
        marker.touch()
        done = adrs("resume", run, "--json")
        assert done.returncode == 0, done.stderr
        events = check_exact(run, 12)
        ends = answered(events)
        again = {request: ends[request].body["text"] for request in before}
        assert again == before
        assert (
            generated.items()
            <= {e.candidate: e.body["source"] for e in events if e.kind is EventKind.GENERATED}.items()
        )
        lost = sum(e.kind is EventKind.LOST for e in ends.values())
        bought = sum(e.kind is EventKind.COMPLETED for e in ends.values())
        assert asked >= len(before)
        assert bought <= len(server.received) <= bought + lost


def _events(run: Path) -> list[Event]:
    try:
        return events_of(run)
    except UsageError:  # the journal is just being made
        return []


def test_a_dollar_budget_is_never_exceeded_and_ends_the_run_with_a_champion(tmp_path, monkeypatch):
    monkeypatch.setenv("ADRS_TEST_KEY", KEY)
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    with FakeServer(lambda body: Reply(evolve(body)), api_key=KEY) as server:
        config = write_config(tmp_path / "config.yaml", server, budget={"max_candidates": 500, "max_usd": 0.2})
        done = adrs("run", task, "--local", "--config", config, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert "max_usd" in report["reason"]
    assert report["best"] is not None
    open_usd: dict[str, float] = {}
    spent = 0.0
    for event in events_of(run):
        if event.kind is EventKind.REQUESTED:
            open_usd[event.body["request"]] = event.body["worst"]["usd"]
        elif event.kind in (EventKind.COMPLETED, EventKind.LOST):
            spent += event.body["usage"]["usd"]
            del open_usd[event.body["request"]]
        assert spent + sum(open_usd.values()) <= 0.2 + 1e-12
    assert spent > 0.1


def test_a_dollar_budget_without_prices_is_refused(tmp_path):
    config = tmp_path / "config.yaml"
    model = {"base_url": "http://127.0.0.1:9/v1", "model": "m"}
    config.write_text(
        yaml.safe_dump({"generator": {"kind": "openai"}, "models": {"small": model}, "budget": {"max_usd": 1.0}})
    )
    done = adrs("run", write_tiny_task(tmp_path), "--local", "--config", config, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "models.small has no usd_per_mtok_in" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_key_is_named_before_a_folder_is_made(tmp_path):
    with FakeServer(lambda body: Reply(evolve(body))) as server:
        config = write_config(tmp_path / "config.yaml", server)
        done = adrs(
            "run",
            write_tiny_task(tmp_path),
            "--local",
            "--config",
            config,
            "--out",
            tmp_path / "run",
            env={"ADRS_TEST_KEY": ""},
        )
    assert done.returncode == 2
    assert "ADRS_TEST_KEY" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()
