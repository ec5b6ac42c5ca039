"""`adrs data pull` and `adrs data list`: a source served on this machine, a changed one, none at all."""

from __future__ import annotations

import functools
import hashlib
import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from adrs_ray import data
from adrs_ray.errors import UsageError
from adrs_ray.private_import import import_private
from adrs_ray.task import builtin_tasks, data_file, read_spec

FOLDER = builtin_tasks()["txn_offline"]
WORKLOADS = {f"WORKLOAD_{i}": {"txn0": f"w-{i} * r-2", "txn1": f"r-{i}"} for i in (1, 2, 3)}
CONVERTED = json.dumps(WORKLOADS, indent=0).encode()
DICTS = "".join(f"{name} = {texts!r}\n" for name, texts in WORKLOADS.items())
STRINGS = "".join(f'{name} = """{json.dumps(texts, indent=1)}\n"""\n' for name, texts in WORKLOADS.items())


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the URL under which it is served."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "adrs-ray" / "data"


def task_fetching_from(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes = CONVERTED) -> Path:
    """A task of ours like txn_offline, whose recorded file comes from `url`."""
    folder = tmp_path / "task"
    folder.mkdir()
    shutil.copy(FOLDER / "convert.py", folder)
    file = {"file": "some.json", "sha256": hashlib.sha256(content).hexdigest(), "url": url, "provides": "a split"}
    (folder / "task.yaml").write_text(yaml.safe_dump({"name": "some", "summary": "a task", "data": [file]}))
    monkeypatch.setattr(data, "builtin_tasks", lambda: {"some": folder})
    return folder


@pytest.mark.parametrize("source", [DICTS, STRINGS])
def test_pull_fetches_converts_and_places(source, served, cache, tmp_path, monkeypatch) -> None:
    folder, url = served
    (folder / "workloads.py").write_text(source)
    task = task_fetching_from(f"{url}/workloads.py", tmp_path, monkeypatch)
    assert data.pull() == [("some.json", f"fetched to {cache / 'some.json'}")]
    assert (cache / "some.json").read_bytes() == CONVERTED
    assert [path.name for path in cache.iterdir()] == ["some.json"]
    assert data_file(read_spec(task / "task.yaml").data[0]) == cache / "some.json"
    (folder / "workloads.py").unlink()
    assert data.pull(["some"]) == [("some.json", f"already at {cache / 'some.json'}")]


def test_pull_places_a_file_as_it_is_when_the_task_converts_nothing(served, cache, tmp_path, monkeypatch) -> None:
    folder, url = served
    (folder / "some.json").write_bytes(b"\x00raw")
    task = task_fetching_from(f"{url}/some.json", tmp_path, monkeypatch, content=b"\x00raw")
    (task / "convert.py").unlink()
    data.pull()
    assert (cache / "some.json").read_bytes() == b"\x00raw"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (DICTS.replace("w-1", "w-9"), "has changed: it gives sha256"),
        (DICTS.replace("WORKLOAD_2", "OTHER"), "does not assign WORKLOAD_2"),
        ("WORKLOAD_1 = open('/etc/passwd').read()\n", "is not what was expected"),
        ("WORKLOAD_1 = {1: 2}\n", "WORKLOAD_1 is no mapping"),
        ("<html>", "is not what was expected"),
    ],
)
def test_a_changed_source_is_refused_and_leaves_nothing(source, message, served, cache, tmp_path, monkeypatch) -> None:
    folder, url = served
    (folder / "workloads.py").write_text(source)
    task_fetching_from(f"{url}/workloads.py", tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=message) as caught:
        data.pull()
    assert "\n" not in str(caught.value)
    assert not cache.exists()


def test_a_source_is_never_executed(tmp_path) -> None:
    convert = import_private(FOLDER, "convert").convert
    trap = f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    assert convert("txn_workloads.json", (trap + DICTS).encode()) == CONVERTED
    assert not (tmp_path / "ran").exists()


def test_without_a_server_one_line_says_what_to_place_where(served, cache, tmp_path, monkeypatch) -> None:
    task_fetching_from("http://127.0.0.1:9/workloads.py", tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"cannot fetch http://127.0.0.1:9/workloads.py") as caught:
        data.pull()
    line = str(caught.value)
    assert "\n" not in line
    assert str(cache / "some.json") in line
    assert hashlib.sha256(CONVERTED).hexdigest() in line
    assert "ADRS_DATA_DIR" in line


def test_a_missing_page_is_a_source_that_cannot_be_fetched(served, cache, tmp_path, monkeypatch) -> None:
    task_fetching_from(f"{served[1]}/nothing.py", tmp_path, monkeypatch)
    with pytest.raises(UsageError, match=r"cannot fetch .*404"):
        data.pull()


def test_a_wrong_file_placed_by_hand_is_named_and_kept(served, cache, tmp_path, monkeypatch) -> None:
    task_fetching_from(f"{served[1]}/workloads.py", tmp_path, monkeypatch)
    cache.mkdir(parents=True)
    (cache / "some.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the expected file: sha256"):
        data.pull()
    assert (cache / "some.json").read_text() == "{}"
    (state,) = data.status()
    assert state.path is None
    assert "is not the expected file" in str(state)


def test_a_cache_that_cannot_be_written_is_one_line(served, cache, tmp_path, monkeypatch) -> None:
    folder, url = served
    (folder / "workloads.py").write_text(DICTS)
    task_fetching_from(f"{url}/workloads.py", tmp_path, monkeypatch)
    (tmp_path / "cache").write_text("a file where a folder is needed")
    with pytest.raises(UsageError, match=r"cannot write .*some.json"):
        data.pull()


def test_an_unknown_task_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"no built-in task 'nope': there are .*txn_offline"):
        data.pull(["nope"])


def test_status_names_every_file_and_where_it_is(cache, tmp_path, monkeypatch) -> None:
    task_fetching_from("http://127.0.0.1:9/workloads.py", tmp_path, monkeypatch)
    (missing,) = data.status()
    assert missing.path is None
    assert str(missing) == "some  some.json  missing (adrs data pull some)  # a split"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "some.json").write_bytes(CONVERTED)
    monkeypatch.setenv("ADRS_DATA_DIR", str(elsewhere))
    (present,) = data.status()
    assert present.path == elsewhere / "some.json"


def test_the_recorded_file_is_in_the_form_that_convert_writes() -> None:
    path = data_file(read_spec(FOLDER / "task.yaml").data[0])
    if path is None:
        pytest.skip("needs txn_workloads.json: set ADRS_DATA_DIR or run `adrs data pull txn_offline`")
    source = "".join(f"{name} = {json.dumps(texts)!r}\n" for name, texts in json.loads(path.read_bytes()).items())
    assert import_private(FOLDER, "convert").convert("txn_workloads.json", source.encode()) == path.read_bytes()
