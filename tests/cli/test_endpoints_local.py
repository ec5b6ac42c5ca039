"""`adrs run --local` over servers that are there already: one dies midway, another knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.cli.test_models_killed import answered
from tests.fake_evolver import evolve
from tests.fake_openai import Reply
from tests.generator.listing_server import ListingServer
from tests.runs import check_exact, start, wait_for
from tests.tiny import write_tiny_task


def write_config(path: Path, endpoints: list[str], **sections: Any) -> Path:
    model = {"max_tokens": 2000}
    config = {
        "islands": {"count": 2, "in_flight": 8, "migration_interval": 5},
        "generator": {"kind": "openai", "summarize_every": 10},
        "models": {"small": {"model": "fake-small", **model}, "strong": {"model": "fake-strong", **model}},
        "pool": {"endpoints": endpoints},
        **sections,
    }
    path.write_text(yaml.safe_dump(config))
    return path


def evolving(latency_s: float) -> Any:
    return lambda body: Reply(evolve(body), latency_s=latency_s)


def test_a_server_that_dies_midway_ends_no_run_and_costs_only_what_it_was_asked_then(tmp_path):
    task, run, log = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "log"
    both = ["fake-small", "fake-strong"]
    mortal = ListingServer(evolving(0.3), both)
    with ListingServer(evolving(0.3), both) as steady:
        with mortal:
            config = write_config(tmp_path / "config.yaml", [mortal.base_url, steady.base_url])
            process = start("run", task, "--local", "--config", config, "--max-candidates", 60, "--out", run, log=log)
            wait_for(run, 20, process, log)
            before = len(steady.received)
        assert process.wait(120) == 0, log.read_text()
    events = check_exact(run, 60)
    ends = answered(events)
    assert all(event.kind is EventKind.COMPLETED for event in ends.values())
    # Sixteen requests at once are more than one server is favoured with.
    assert len(mortal.received) >= 1
    assert len(steady.received) > before
    charged = [event for event in ends.values() if event.body["text"] is None]
    # At most what was under way when it died; no other request reached a server twice, or none.
    assert len(charged) <= 16
    assert len(ends) - len(charged) <= len(mortal.received) + len(steady.received) <= len(ends)


def test_a_model_that_no_endpoint_has_is_one_line_with_what_they_have(tmp_path):
    with ListingServer(models=["fake-small", "llama"]) as server:
        config = write_config(tmp_path / "config.yaml", [server.base_url])
        done = adrs("run", write_tiny_task(tmp_path), "--local", "--config", config, "--out", tmp_path / "run")
    assert done.returncode == 2
    line = done.stderr.strip().splitlines()[-1]
    assert "models.strong: no endpoint has 'fake-strong'" in line
    assert f"127.0.0.1:{server.port} has fake-small, llama" in line
    assert "Traceback" not in done.stderr


def test_engines_of_its_own_are_refused_in_one_process(tmp_path):
    config = write_config(tmp_path / "config.yaml", [], pool={"models": {"small": {}, "strong": {}}})
    done = adrs("run", write_tiny_task(tmp_path), "--local", "--config", config, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "pool.models starts model servers on a cluster's GPUs, which needs Ray" in done.stderr
