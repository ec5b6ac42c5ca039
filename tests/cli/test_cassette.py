"""`adrs cassette` and `adrs replay` as real processes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from adrs_ray.cassette import facts_of
from adrs_ray.storage import cassette_file
from tests.cli.command import adrs
from tests.cli.test_models_killed import KEY, write_config
from tests.fake_evolver import evolve
from tests.fake_openai import FakeServer, Reply
from tests.runs import events_of
from tests.tiny import write_tiny_task


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of the tiny task, and its cassette."""
    path = tmp_path_factory.mktemp("recorded")
    task, run, tape = write_tiny_task(path), path / "run", path / "tape.gz"
    options = ["--local", "--islands", 2, "--max-candidates", 40, "--slots", 2, "--out", run]
    done = adrs("run", task, *options)
    assert done.returncode == 0, done.stderr
    made = adrs("cassette", run, tape)
    assert made.returncode == 0, made.stderr
    assert "40 candidates" in made.stdout
    assert "loose" not in made.stdout
    return run, tape


@pytest.mark.parametrize("slots", [1, 3])
def test_a_run_is_replayed_with_any_number_of_slots(recorded, tmp_path, slots):
    run, tape = recorded
    done = adrs("replay", tape, "--out", tmp_path / "again", "--slots", slots)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "identical to the recording: 40 candidates"
    assert facts_of(events_of(tmp_path / "again")) == facts_of(events_of(run))
    best = [(folder / "best" / "program.py").read_text() for folder in (run, tmp_path / "again")]
    assert best[0] == best[1]
    refused = adrs("resume", tmp_path / "again")
    assert refused.returncode == 2
    assert "it is not resumed" in refused.stderr


def test_a_replay_that_differs_says_where_and_exits_with_1(recorded, tmp_path):
    _, tape = recorded
    changed = tmp_path / "changed.gz"
    lines = [json.loads(line) for line in gzip.decompress(tape.read_bytes()).splitlines()]
    fact = next(line["fact"] for line in lines if line.get("fact", {}).get("kind") == "admitted")
    fact["body"]["note"] = "something else"
    changed.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode()))
    done = adrs("replay", changed, "--out", tmp_path / "again", "--json")
    assert done.returncode == 1, done.stderr
    said = json.loads(done.stdout)
    assert not said["identical"]
    assert said["candidates"] == 40
    assert said["difference"].startswith(f"{fact['id']}: note ")


def test_verdicts_of_a_changed_recording_leave_it_in_one_line(recorded, tmp_path):
    _, tape = recorded
    cassette = cassette_file.read(tape)
    some = next(key for key in cassette.verdicts if key[2] == "train" and key[0] != "seed-0")
    del cassette.verdicts[some]  # type: ignore[attr-defined]
    cassette_file.write(cassette, tmp_path / "less.gz")
    done = adrs("replay", tmp_path / "less.gz", "--out", tmp_path / "again")
    assert done.returncode == 1
    assert "was not measured when it was recorded" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_resumed_run_is_replayed_loosely_alone(recorded, tmp_path):
    run, _ = recorded
    resumed, tape = tmp_path / "resumed", tmp_path / "tape.gz"
    task = run.parent / "tiny"
    assert adrs("run", task, "--local", "--max-candidates", 10, "--slots", 2, "--out", resumed).returncode == 0
    assert adrs("resume", resumed, "--max-candidates", 14).returncode == 0
    made = adrs("cassette", resumed, tape)
    assert made.returncode == 0
    assert "--loose` only: the run was started 2 times" in made.stdout
    refused = adrs("replay", tape, "--out", tmp_path / "again")
    assert refused.returncode == 2
    assert "started 2 times" in refused.stderr
    assert "--loose" in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "again").exists()
    loose = adrs("replay", tape, "--out", tmp_path / "again", "--loose", "--json")
    assert loose.returncode == 0, loose.stderr
    assert json.loads(loose.stdout)["candidates"] == 14


def test_a_run_that_asked_models_is_replayed_without_them_and_without_their_key(tmp_path, monkeypatch):
    task, run, tape = write_tiny_task(tmp_path), tmp_path / "run", tmp_path / "tape.gz"
    with FakeServer(lambda body: Reply(evolve(body), latency_s=0.02), api_key=KEY) as server:
        config = write_config(tmp_path / "config.yaml", server, seeding={"seeds": 2, "variants": 2})
        monkeypatch.setenv("ADRS_TEST_KEY", KEY)
        done = adrs("run", task, "--local", "--config", config, "--max-candidates", 50, "--out", run)
        assert done.returncode == 0, done.stderr
        received = len(server.received)
        monkeypatch.delenv("ADRS_TEST_KEY")
        assert adrs("cassette", run, tape).returncode == 0
        for slots in (1, 3):
            again = adrs("replay", tape, "--out", tmp_path / f"again{slots}", "--slots", slots)
            assert again.returncode == 0, again.stderr
            assert again.stdout.splitlines()[-1] == "identical to the recording: 50 candidates"
        loose = adrs("replay", tape, "--out", tmp_path / "loose", "--loose", "--json")
        assert loose.returncode == 0, loose.stderr
        assert len(server.received) == received
    assert KEY.encode() not in gzip.decompress(tape.read_bytes())
    told = json.loads(loose.stdout)
    assert told["candidates"] == 50
    assert told["models"]["small"]["requests"] > 0


def test_mistakes_are_one_line_and_exit_with_2(recorded, tmp_path):
    run, tape = recorded
    for arguments, said in (
        (("replay", tmp_path / "none.gz", "--out", tmp_path / "x"), "none.gz is no cassette"),
        (("replay", run / "run.yaml", "--out", tmp_path / "x"), "run.yaml is no cassette"),
        (("replay", tape, "--out", run), "holds a run already"),
        (("cassette", tmp_path, tmp_path / "x.gz"), "is no run"),
    ):
        done = adrs(*arguments)
        assert done.returncode == 2, done.stdout
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    assert not (tmp_path / "x").exists()
