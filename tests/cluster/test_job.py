"""Start-or-resume without Ray: names, places, what a later start may change."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from adrs_ray.cli.execution import resolved
from adrs_ray.config import RunConfig, override, parse_config
from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.mirror import open_mirrored, restore
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from cluster.detached import driver_environment
from cluster.job import Place, bring_here, continued, parse_settings, place_of, run_name


def test_the_same_command_gives_the_same_name_and_a_given_one_wins():
    assert run_name("txn_offline", None, None) == "txn_offline"
    assert run_name("/tasks/binning", Path("configs/night.yaml"), None) == "binning-night"
    assert run_name("txn_offline", None, "mine") == "mine"


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 101, "with space"])
def test_a_name_that_cannot_be_a_folder_is_refused_in_one_line(name):
    if not name:
        assert run_name("t", None, name) == "t"
        return
    with pytest.raises(UsageError, match="cannot be a run's name") as refused:
        run_name("t", None, name)
    assert "\n" not in str(refused.value)


def test_a_local_out_holds_the_run_and_a_remote_one_its_mirror(tmp_path, monkeypatch):
    config = override(RunConfig(), {"cluster.local_dir": "/var/lib/adrs"})
    assert place_of("r", str(tmp_path / "out"), config).path == tmp_path / "out" / "r"
    assert place_of("r", str(tmp_path / "out"), config).mirror is None
    remote = place_of("r", "s3://bucket/runs", config)
    assert (remote.path, remote.mirror) == (Path("/var/lib/adrs/r"), "s3://bucket/runs/r")
    assert "s3://bucket/runs/r" in remote.note
    monkeypatch.setattr("cluster.job.is_network_folder", lambda folder: folder.is_relative_to(tmp_path))
    shared = place_of("r", str(tmp_path / "nfs"), config)
    assert (shared.path, shared.mirror) == (Path("/var/lib/adrs/r"), str(tmp_path / "nfs" / "r"))
    assert "is on a network" in shared.note


def test_a_relative_out_inside_a_jobs_package_is_refused(tmp_path, monkeypatch):
    package = tmp_path / "_ray_pkg_0123456789abcdef"
    package.mkdir()
    monkeypatch.chdir(package)
    with pytest.raises(UsageError, match="is deleted when it ends"):
        place_of("r", "runs", RunConfig())
    monkeypatch.chdir(tmp_path)
    assert place_of("r", "runs", RunConfig()).path == tmp_path / "runs" / "r"


def test_a_later_start_changes_where_it_runs_and_not_what_it_searches():
    recorded = override(RunConfig(), {"seed": 3, "budget.max_candidates": 500, "evaluator.slots": 2})
    given = override(RunConfig(), {"seed": 3, "budget.max_candidates": 200, "evaluator.slots": 7})
    config, note = continued(recorded, given, {}, "r")
    assert config.evaluator.slots == 7
    assert config.budget.max_candidates == 500
    assert "max_candidates 500" in note
    config, note = continued(recorded, given, {"budget.max_candidates": 900}, "r")
    assert config.budget.max_candidates == 900
    config, note = continued(recorded, recorded, {}, "r")
    assert (config, note) == (recorded, "")


def test_another_search_under_the_same_name_is_refused():
    recorded = override(RunConfig(), {"seed": 3})
    with pytest.raises(UsageError, match="with other 'seed'"):
        continued(recorded, RunConfig(), {}, "r")
    models = {"generator": {"kind": "openai"}, "models": {"small": {"base_url": "http://a/v1", "model": "m"}}}
    moved = {"generator": {"kind": "openai"}, "models": {"small": {"base_url": "http://b/v1", "model": "m"}}}
    other = {"generator": {"kind": "openai"}, "models": {"large": {"base_url": "http://a/v1", "model": "m"}}}
    first = parse_config(models, "a")
    assert continued(first, parse_config(moved, "b"), {}, "r")[0].models["small"].base_url == "http://b/v1"
    with pytest.raises(UsageError, match="with other 'models'"):
        continued(first, parse_config(other, "c"), {}, "r")


def test_settings_are_dotted_keys_with_values_in_yaml():
    assert parse_settings(["seed=4", "budget.max_usd=1.5", "pool.endpoints=[http://a/v1]", "start=weak"]) == {
        "seed": 4,
        "budget.max_usd": 1.5,
        "pool.endpoints": ["http://a/v1"],
        "start": "weak",
    }
    for bad in ("seed", "=3", "a b=3", "x=[1"):
        with pytest.raises(UsageError, match="--set"):
            parse_settings([bad])
    with pytest.raises(UsageError, match=r"unknown key .budget\.nothing."):
        override(RunConfig(), parse_settings(["budget.nothing=1"]))
    with pytest.raises(UsageError, match="seed: Input should be a valid integer"):
        override(RunConfig(), parse_settings(["seed.deeper=1"]))


def test_a_detached_driver_joins_the_same_cluster_with_the_same_packages_and_nothing_else_of_the_worker():
    worker = {"PATH": "/bin", "RAY_JOB_ID": "01", "RAY_AUTH_MODE": "token", "RAY_RAYLET_PID": "7"}
    environment = driver_environment(worker, {"working_dir": "gcs://_ray_pkg_1.zip"})
    assert environment == {
        "PATH": "/bin",
        "RAY_AUTH_MODE": "token",
        "RAY_ADDRESS": "auto",
        "RAY_JOB_CONFIG_JSON_ENV_VAR": '{"runtime_env": {"working_dir": "gcs://_ray_pkg_1.zip"}}',
    }
    assert "RAY_JOB_CONFIG_JSON_ENV_VAR" not in driver_environment(worker, {})


def test_a_mirror_that_this_disk_holds_is_left_alone_and_one_that_it_does_not_is_restored(tmp_path):
    place = Place(tmp_path / "out" / "r", str(tmp_path / "mirror" / "r"))
    assert bring_here(place) is None, "there is no mirror yet"
    config = override(RunConfig(), {"mirror.url": place.mirror, "mirror.ack": "mirror"})

    def append(path: Path, names: list[str], openings: int = 1) -> None:
        """As one start of the run; `openings`: times that the journal was opened, the last one to some effect."""

        async def main() -> None:
            for _ in range(openings - 1):
                await SqliteJournal.open(path / "journal.db").close()
            journal = await open_mirrored(
                SqliteJournal.open(path / "journal.db"), config.mirror, path / "run.yaml", close_wait_s=5
            )
            await journal.append([Event(n, EventKind.GRANT, None, 0, {"count": 1}) for n in names], journal.epoch)
            await journal.close()

        asyncio.run(main())

    RunFolder.create(place.path, config, "txn_offline", False, "r")
    append(place.path, ["a", "b"])
    assert bring_here(place) is None
    # Another head goes on elsewhere; here starts that got nowhere have raised the epoch.
    other = tmp_path / "other"
    asyncio.run(restore(place.mirror, other))
    append(other, ["c"])
    for _ in range(5):
        asyncio.run(SqliteJournal.open(place.path / "journal.db").close())
    line = bring_here(place)
    assert line is not None
    assert "3 events" in line
    assert (tmp_path / "out" / "r.older" / "journal.db").exists()
    with JournalReader(place.path / "journal.db") as reader:
        assert [event.id for event in reader.read()] == ["a", "b", "c"]
    # A folder that was made and never begun has nothing.
    shutil.rmtree(place.path)
    RunFolder.create(place.path, config, "txn_offline", False, "r")
    assert bring_here(place) is not None
    with JournalReader(place.path / "journal.db") as reader:
        assert len(reader.read()) == 3


def test_two_places_for_one_mirror_are_refused_and_so_is_none_for_acknowledgements(tmp_path):
    config = override(RunConfig(), {"mirror.url": "s3://a/b"})
    with pytest.raises(UsageError, match=r"leave out mirror\.url"):
        place_of("r", "s3://bucket/runs", config)
    asked = override(RunConfig(), {"mirror.ack": "mirror"})
    with pytest.raises(UsageError, match=r"needs mirror\.url"):
        resolved(asked, None)
    assert resolved(override(asked, {"mirror.url": str(tmp_path)}), None).mirror.url == str(tmp_path)


def test_journals_of_remote_runs_find_a_disk_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    monkeypatch.setattr("cluster.job.is_network_folder", lambda folder: str(folder).startswith(str(tmp_path)))
    place = place_of("r", "s3://bucket/runs", RunConfig())
    assert str(place.path).startswith("/var/tmp/adrs-ray-")
    with pytest.raises(UsageError, match=r"cluster\.local_dir"):
        place_of("r", "s3://bucket/runs", override(RunConfig(), {"cluster.local_dir": str(tmp_path / "x")}))
