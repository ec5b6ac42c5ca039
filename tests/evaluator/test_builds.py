"""The cache of what programs had built."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from adrs_ray.errors import UsageError
from adrs_ray.evaluator import builds
from adrs_ray.evaluator.builds import BuildCache, UnkeepableError

LIMIT = int(2.5 * builds._ENTRY_BYTES)
"""Two small entries fit."""


@pytest.fixture(params=[0o022, 0o077], autouse=True)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def left_behind(folder: Path, size: int = 10) -> Path:
    (folder / "inner").mkdir(parents=True)
    (folder / "inner/file").write_bytes(b"x" * size)
    return folder


def add(cache: BuildCache, key: str, folder: Path, size: int = 10) -> None:
    cache.publish(cache.take(left_behind(folder / key, size)), key)


def placed(cache: BuildCache, key: str, target: Path) -> bool:
    target.mkdir()
    return cache.place(key, target, linked=True)


def test_an_entry_is_placed_as_it_was_left(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache")
    add(cache, "a", tmp_path)
    assert placed(cache, "a", tmp_path / "target")
    assert (tmp_path / "target/inner/file").read_bytes() == b"x" * 10
    assert (tmp_path / "target/inner/file").samefile(tmp_path / "cache/a/inner/file")
    (tmp_path / "copied").mkdir()
    assert cache.place("a", tmp_path / "copied", linked=False)
    assert not (tmp_path / "copied/inner/file").samefile(tmp_path / "cache/a/inner/file")
    assert not placed(cache, "b", tmp_path / "other")
    assert list((tmp_path / "other").iterdir()) == []
    for path in (tmp_path / "target", tmp_path / "target/inner", tmp_path / "target/inner/file"):
        assert path.stat().st_mode & 0o777 == (0o644 if path.is_file() else 0o755)


def test_the_oldest_entries_go_first_and_take_nothing_from_who_uses_them(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache", LIMIT)
    for age, key in enumerate("abc"):
        add(cache, key, tmp_path / "left", 100)
        if (tmp_path / "cache" / key).exists():
            os.utime(tmp_path / "cache" / key, (age, age))
        if key == "a":
            assert placed(cache, "a", tmp_path / "in-use")
            os.utime(tmp_path / "cache/a", (0, 0))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["b", "c"]
    assert (tmp_path / "in-use/inner/file").read_bytes() == b"x" * 100


def test_using_an_entry_keeps_it(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache", LIMIT)
    for age, key in enumerate("ab"):
        add(cache, key, tmp_path / "left", 100)
        os.utime(tmp_path / "cache" / key, (age, age))
    assert placed(cache, "a", tmp_path / "target")
    add(cache, "c", tmp_path / "left", 100)
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["a", "c"]


def test_two_that_build_the_same_agree_on_the_first(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache")
    copies = [cache.take(left_behind(tmp_path / str(number), number + 1)) for number in range(8)]
    threads = [threading.Thread(target=cache.publish, args=(copy, "k")) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["k"]
    assert 1 <= (tmp_path / "cache/k/inner/file").stat().st_size <= 8


def test_too_much_is_not_kept_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builds, "BUILT_MB", 1)
    monkeypatch.setattr(builds, "_MOST_FILES", 5)
    cache = BuildCache(tmp_path / "cache")
    with pytest.raises(UnkeepableError, match="more than 1 MB"):
        cache.take(left_behind(tmp_path / "large", 2**20 + 1))
    many = left_behind(tmp_path / "many")
    for number in range(6):
        (many / str(number)).touch()
    with pytest.raises(UnkeepableError, match="more than 5 files"):
        cache.take(many)
    with pytest.raises(UnkeepableError, match="cannot be kept"):
        cache.take(tmp_path / "nowhere")
    long = tmp_path / "long"
    long.joinpath(*["n" * 250] * 4).mkdir(parents=True)
    with pytest.raises(UnkeepableError, match="longer than 1000 bytes"):
        cache.take(long)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_link_in_the_place_of_the_folder_leads_nowhere(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache")
    left_behind(tmp_path / "secrets")
    (tmp_path / "link").symlink_to(tmp_path / "secrets")
    with pytest.raises(UnkeepableError, match="cannot be kept"):
        cache.take(tmp_path / "link")
    assert list((tmp_path / "cache").iterdir()) == []


def test_entries_without_files_go_too_and_so_does_what_killed_workers_left(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache", LIMIT)
    for name, age in ((".partial-1-old", 2 * builds._ABANDONED_S), (".partial-1-new", 1.0)):
        (tmp_path / "cache" / name).mkdir()
        os.utime(tmp_path / "cache" / name, (0, time.time() - age))
    for age, key in enumerate("abc"):
        (tmp_path / key).mkdir()
        cache.publish(cache.take(tmp_path / key), key)
        os.utime(tmp_path / "cache" / key, (age, age))
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == [".partial-1-new", "b", "c"]


def test_reading_what_is_kept_leaves_no_mark(tmp_path: Path) -> None:
    cache = BuildCache(tmp_path / "cache")
    add(cache, "a", tmp_path)
    assert placed(cache, "a", tmp_path / "target")
    paths = [tmp_path / "target", tmp_path / "target/inner", tmp_path / "target/inner/file"]
    before = [path.stat() for path in paths]
    assert os.listdir(paths[0]) == ["inner"]
    assert os.listdir(paths[1]) == ["file"]
    assert paths[2].read_bytes()
    assert [path.stat() for path in paths] == before


def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("open", "link"):
        with pytest.raises(PermissionError, match="this user alone"):
            BuildCache(tmp_path / name)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / f"adrs-builds-{os.geteuid()}").write_text("somebody's file")
    with pytest.raises(UsageError, match=r"adrs-builds-.*: File exists$"):
        BuildCache.of_this_user()
