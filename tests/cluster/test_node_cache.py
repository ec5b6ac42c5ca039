"""A task folder and its data on nodes that lack them: two folders on one disk stand in for two nodes."""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.errors import UsageError
from adrs_ray.task import load_task
from cluster import folder, node_cache
from cluster.node_cache import cache, parcel_task, unpack_task
from tests.tiny import FILES, write_tiny_task

DATA = b"recorded\n" * 100


class Store:
    """An object store that counts."""

    def __init__(self) -> None:
        self.held: list[Any] = []
        self.gets = 0

    def put(self, value: Any) -> int:
        self.held.append(value)
        return len(self.held) - 1

    def get(self, reference: int) -> Any:
        self.gets += 1
        return self.held[reference]


@pytest.fixture
def on_node(tmp_path, monkeypatch) -> Callable[[str], None]:
    """From now on the data cache is that of another node."""

    def go(name: str) -> None:
        monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / name))

    go("driver")
    return go


def task_with_data(where: Path) -> Path:
    made = write_tiny_task(where)
    name = hashlib.sha256(DATA).hexdigest()
    line = f"data: [{{file: sub/rec.txt, sha256: {name}, url: 'http://x/', provides: rows}}]\n"
    (made / "task.yaml").write_text(FILES["task.yaml"] + line)
    return made


def test_a_folder_and_its_data_reach_a_node_that_has_neither(tmp_path, on_node):
    made = task_with_data(tmp_path / "there")
    data = node_cache.data_dirs()[-1] / "sub" / "rec.txt"
    data.parent.mkdir(parents=True)
    data.write_bytes(DATA)
    store = Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    made.rename(tmp_path / "gone")
    on_node("other")
    unpacked = unpack_task(parcel, store.get)
    loaded = load_task(unpacked.reference)
    assert loaded.spec.name == "tiny"
    assert Path(unpacked.reference).is_relative_to(cache())
    assert Path(unpacked.reference).name == "tiny"
    assert (node_cache.data_dirs()[-1] / "sub" / "rec.txt").read_bytes() == DATA
    gets = store.gets
    again = unpack_task(parcel, store.get)
    assert again.reference == unpacked.reference
    assert store.gets == gets == 2


def test_where_the_driver_s_folder_is_seen_with_the_same_content_it_is_used_in_place(tmp_path, on_node):
    made, store = write_tiny_task(tmp_path), Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    assert unpack_task(parcel, store.get).reference == str(made)
    assert store.gets == 0
    (made / "seed.py").write_text("# somebody edits it while the run goes on\n")
    unpacked = unpack_task(parcel, store.get)
    assert unpacked.reference != str(made)
    assert (Path(unpacked.reference) / "seed.py").read_text() == FILES["seed.py"]


def test_what_was_damaged_in_the_cache_is_written_anew(tmp_path, on_node):
    made, store = write_tiny_task(tmp_path), Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    made.rename(tmp_path / "gone")
    unpacked = unpack_task(parcel, store.get)
    (Path(unpacked.reference) / "judge.py").write_text("broken")
    again = unpack_task(parcel, store.get)
    assert (Path(again.reference) / "judge.py").read_text() == FILES["judge.py"]


def test_a_built_in_task_is_not_packed(on_node):
    store = Store()
    parcel = parcel_task(load_task("txn_offline"), "txn_offline", store.put)
    assert parcel.digest is None
    assert unpack_task(parcel, store.get).reference == "txn_offline"


def test_a_file_of_the_wrong_content_is_one_line(tmp_path, on_node):
    made = task_with_data(tmp_path / "there")
    data = node_cache.data_dirs()[-1] / "sub" / "rec.txt"
    data.parent.mkdir(parents=True)
    data.write_bytes(DATA)
    store = Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    store.held[0] = b"torn on the way"
    on_node("other")
    with pytest.raises(UsageError, match="came with sha256") as caught:
        unpack_task(parcel, store.get)
    assert "\n" not in str(caught.value)
    data = node_cache.data_dirs()[-1] / "sub" / "rec.txt"
    assert not data.exists()
    data.write_bytes(b"somebody else's")
    with pytest.raises(UsageError, match="not the expected file"):
        unpack_task(parcel, store.get)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, on_node, monkeypatch):
    made, store = write_tiny_task(tmp_path), Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    made.rename(tmp_path / "gone")
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(UsageError, match=r"cannot keep task .* on this node") as caught:
        unpack_task(parcel, store.get)
    assert "\n" not in str(caught.value)


def test_many_processes_of_one_node_write_it_once(tmp_path, on_node):
    made = write_tiny_task(tmp_path)
    (made / "large.bin").write_bytes(os.urandom(2_000_000))
    store = Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    (tmp_path / "parcel").write_bytes(pickle.dumps((parcel, store.held)))
    made.rename(tmp_path / "gone")
    code = (
        "import pickle, sys, os\n"
        "from cluster.node_cache import unpack_task\n"
        "parcel, held = pickle.load(open(sys.argv[1], 'rb'))\n"
        "gets = []\n"
        "print(unpack_task(parcel, lambda r: gets.append(r) or held[r]).reference, len(gets))\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "parcel")]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [worker.communicate()[0].split() for worker in workers]
    assert len({place for place, _ in said}) == 1
    assert sorted(gets for _, gets in said) == ["0", "0", "0", "1"]
    assert not list(cache().glob(".partial-*"))


def test_folders_that_nobody_uses_make_room_the_oldest_first(tmp_path, on_node, monkeypatch):
    monkeypatch.setattr(node_cache, "KEEP_BYTES", 2_500_000)
    store, held = Store(), []
    for number in range(5):
        made = write_tiny_task(tmp_path / f"t{number}")
        (made / "large.bin").write_bytes(os.urandom(1_000_000))
        parcel = parcel_task(load_task(made), str(made), store.put)
        made.rename(tmp_path / f"gone{number}")
        unpacked = unpack_task(parcel, store.get)
        os.utime(Path(unpacked.reference).parent.with_suffix(".used"), (number, number))
        if number == 0:
            held.append(unpacked)  # in use all the time
        elif unpacked.in_use is not None:
            unpacked.in_use.close()
    there = [path for path in cache().iterdir() if path.is_dir()]
    assert Path(held[0].reference).is_dir()
    assert len(there) == 3
    assert len(list(cache().glob("*.lock"))) == 3


def test_what_a_killed_process_left_half_written_is_removed_in_time(tmp_path, on_node):
    made, store = write_tiny_task(tmp_path), Store()
    parcel = parcel_task(load_task(made), str(made), store.put)
    made.rename(tmp_path / "gone")
    old, young = cache() / ".partial-old", cache() / ".partial-young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (1, 1))
    os.utime(young, (time.time(), time.time()))
    unpack_task(parcel, store.get)
    assert not old.exists()
    assert young.exists()


def test_links_are_followed_within_limits_and_circles_end(tmp_path):
    made, beside = tmp_path / "task", tmp_path / "beside"
    made.mkdir()
    beside.mkdir()
    (beside / "shared.py").write_text("shared")
    (made / "own.py").write_text("own")
    (made / "linked.py").symlink_to(beside / "shared.py")
    (made / "more").symlink_to(beside)
    (made / "up").symlink_to(made)
    (beside / "back").symlink_to(made)
    (made / "nowhere").symlink_to(tmp_path / "none")
    os.mkfifo(made / "pipe")
    (made / "__pycache__").mkdir()
    (made / "__pycache__" / "x.pyc").write_text("x")
    packed = folder.pack(made)
    contents = {file.path: file.content for file in packed}
    assert contents == {"own.py": b"own", "linked.py": b"shared", "more/shared.py": b"shared"}
    folder.unpack(packed, tmp_path / "copy")
    assert folder.digest_of(tmp_path / "copy") == folder.digest(packed) == folder.digest_of(made)


def test_a_folder_that_is_too_large_is_refused_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "LARGEST_BYTES", 100 * 2**20)
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(101 * 2**20)
    with pytest.raises(UsageError, match="more than 100 MB") as caught:
        folder.pack(tmp_path)
    assert "\n" not in str(caught.value)
    assert folder.digest_of(tmp_path) is None
    (tmp_path / "sparse").unlink()
    monkeypatch.setattr(folder, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number)).write_text("")
    with pytest.raises(UsageError, match="more than 3 files"):
        folder.pack(tmp_path)


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and name not in folder.LEFT_OUT and len(name.encode()) < 200
)


@given(st.dictionaries(names, st.tuples(st.binary(max_size=50), st.booleans()), max_size=6))
def test_a_folder_is_the_same_value_whatever_its_times_and_made_again_it_is_equal(tmp_path_factory, files):
    one = tmp_path_factory.mktemp("one")
    for name, (content, executable) in files.items():
        (one / name).write_bytes(content)
        (one / name).chmod(0o755 if executable else 0o644)
        os.utime(one / name, (1, 1))
    packed = folder.pack(one)
    folder.unpack(packed, one / "sub" / "copy")
    again = folder.pack(one / "sub" / "copy")
    assert again == packed
    assert folder.digest(again) == folder.digest(packed) == folder.digest_of(one / "sub" / "copy")
    if files:
        name = min(files)
        (one / "sub" / "copy" / name).write_bytes(files[name][0] + b"!")
        assert folder.digest_of(one / "sub" / "copy") != folder.digest(packed)
