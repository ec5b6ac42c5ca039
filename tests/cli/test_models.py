"""`adrs models`, with the real client library against a hub on this machine: what arrives, and errors of one line."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.command import adrs
from tests.fake_hub import COMMIT, LATER, FakeHub, model_files, serving

CANARY = "hf_canary_4711"
REPOSITORY = "tiny/model"
BIG = "tiny/big"
CLOSED = "tiny/closed"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    files = model_files()
    with serving(FakeHub({REPOSITORY: files, BIG: files, CLOSED: files}, gated=frozenset({CLOSED}))) as running:
        yield running


@pytest.fixture
def run(hub: FakeHub, tmp_path: Path) -> Run:
    """`adrs models ...` with a cache of its own."""

    def call(*arguments: object, **env: str) -> subprocess.CompletedProcess[str]:
        place = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = adrs("models", *arguments, cwd=tmp_path, env={**place, "HF_TOKEN": "", **env})
        assert "Traceback" not in done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done

    return call


def config(folder: Path, source: str = REPOSITORY, **engine: object) -> Path:
    data = {
        "generator": {"kind": "openai"},
        "models": {"small": {"model": "small"}},
        "pool": {"models": {"small": {"source": source, "device": "cpu", "cpus": 0.5, **engine}}},
    }
    path = folder / "night.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def one_line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("adrs:")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_pull_fetches_what_engines_need_once_pins_it_and_check_agrees(run: Run, hub: FakeHub, tmp_path: Path):
    night = config(tmp_path)
    before = run("check", "--config", night)
    assert before.returncode == 1
    assert f"{REPOSITORY} at main is not pinned" in before.stdout
    assert "no whole copy" in before.stdout
    assert "can be fetched" in before.stdout

    done = run("pull", "--config", night)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load((tmp_path / "models.lock.yaml").read_text())["models"][REPOSITORY]["commit"] == COMMIT
    fetched = set(hub.downloads)
    assert "original/model-00001-of-00001.safetensors" not in fetched
    assert "modeling_tiny.py" not in fetched
    assert {"config.json", "tokenizer.json", "model-00001-of-00002.safetensors"} <= fetched

    after = run("check", "--config", night, "--json")
    assert after.returncode == 0, after.stdout
    rows = json.loads(after.stdout)
    assert any(row["detail"] == f"{REPOSITORY} pinned to {COMMIT[:10]}" for row in rows)
    assert any(row["detail"].endswith("whole") for row in rows)

    hub.commit, hub.downloads = LATER, []
    assert run("pull", "--config", night, HF_HUB_OFFLINE="1").returncode == 1
    assert run("pull", "--config", night, "--update").returncode == 0
    assert yaml.safe_load((tmp_path / "models.lock.yaml").read_text())["models"][REPOSITORY]["commit"] == LATER
    assert not [name for name in hub.downloads if name.endswith(".safetensors")], "the same content came again"


def test_a_copy_in_a_folder_serves_as_the_source_of_another_machine(run: Run, tmp_path: Path):
    done = run("pull", "--config", config(tmp_path), "--to", tmp_path / "share")
    assert done.returncode == 0, done.stderr
    copy = tmp_path / "share" / REPOSITORY
    assert f"pool.models.<name>.source: {copy}" in done.stdout
    offline = config(tmp_path, str(copy))
    assert "nothing to fetch" in run("pull", "--config", offline, HF_HUB_OFFLINE="1").stdout
    weights = copy / "model-00002-of-00002.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    assert "model-00002-of-00002.safetensors of 100 bytes, its header says" in one_line(
        run("pull", "--config", offline), 1
    )
    check = run("check", "--config", offline)
    assert check.returncode == 1
    assert "its header says" in check.stdout


def test_a_gated_repository_says_how_to_get_in(run: Run, hub: FakeHub, tmp_path: Path):
    night = config(tmp_path, CLOSED)
    line = one_line(run("pull", "--config", night), 1)
    assert f"{CLOSED} is gated: ask for access at {hub.url}/{CLOSED} and set HF_TOKEN" in line
    assert "is gated" in run("check", "--config", night).stdout
    hub.token = CANARY
    assert run("pull", "--config", night, HF_TOKEN=CANARY).returncode == 0


@pytest.mark.parametrize(
    ("source", "engine", "code", "says"),
    [
        ("tiny/absent", {}, 2, "no model tiny/absent at http://127.0.0.1"),
        (REPOSITORY, {"revision": "v9"}, 2, f"{REPOSITORY} has no revision 'v9'"),
        ("no model/../at all", {}, 2, "is neither a folder nor a repository"),
        ("./absent", {}, 1, "absent is no folder"),
    ],
)
def test_what_is_not_there_is_named(run: Run, tmp_path: Path, source, engine, code, says):
    assert says in one_line(run("pull", "--config", config(tmp_path, source, **engine)), code)


def test_what_was_pulled_stays_pinned_when_the_next_model_fails(run: Run, tmp_path: Path):
    night = config(tmp_path)
    data = yaml.safe_load(night.read_text())
    data["models"]["strong"] = {"model": "strong"}
    data["pool"]["models"]["strong"] = {"source": "tiny/absent"}
    night.write_text(yaml.safe_dump(data))
    one_line(run("pull", "--config", night), 2)
    assert list(yaml.safe_load((tmp_path / "models.lock.yaml").read_text())["models"]) == [REPOSITORY]


def test_no_network_says_what_to_do_without(run: Run, tmp_path: Path):
    line = one_line(run("pull", "--config", config(tmp_path), HF_ENDPOINT="http://127.0.0.1:9"), 1)
    assert "cannot fetch tiny/model from http://127.0.0.1:9" in line
    assert "--to FOLDER" in line


def test_too_little_space_is_said_before_anything_is_fetched(run: Run, hub: FakeHub, tmp_path: Path):
    hub.claimed["model-00001-of-00002.safetensors"] = 1 << 60
    line = one_line(run("pull", "--config", config(tmp_path, BIG)), 1)
    assert f"{BIG} needs 1073741824.0 GiB more" in line
    assert "GiB free" in line
    assert not hub.downloads


def test_a_file_that_breaks_off_or_comes_altered_is_not_kept(run: Run, hub: FakeHub, tmp_path: Path):
    night = config(tmp_path)
    hub.cut_off.add("model-00001-of-00002.safetensors")
    assert "cut off" in one_line(run("pull", "--config", night), 1)
    hub.cut_off.clear()
    hub.altered.add("model-00001-of-00002.safetensors")
    line = one_line(run("pull", "--config", night), 1)
    assert "model-00001-of-00002.safetensors has the checksum" in line
    assert "pull again" in line
    hub.altered.clear()
    assert run("pull", "--config", night).returncode == 0


def test_without_the_client_library_the_extra_is_named(run: Run, tmp_path: Path):
    (tmp_path / "huggingface_hub.py").write_text("raise ImportError('not installed')\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for command in ("pull", "check"):
        line = one_line(run(command, "--config", config(tmp_path), PYTHONPATH=path), 2)
        assert "pip install 'adrs-ray[cluster]'" in line


def test_presets_are_listed_with_their_licences(run: Run):
    assert "Apache-2.0" in run("list").stdout
    assert json.loads(run("list", "--json").stdout)["presets"]["8x80gb"]["models"]["small"]["replicas"] == 5


def test_which_models_are_meant_must_be_said(run: Run, tmp_path: Path):
    assert "--config FILE and --preset NAME" in one_line(run("check"), 2)
    assert "8x80gb" in one_line(run("pull", "--preset", "9x80gb"), 2)
