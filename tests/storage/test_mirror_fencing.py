"""Two heads and one mirror: only one of them goes on, and what is restored is never a mixture."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from pathlib import Path

import pytest

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import Journal, StaleEpochError
from adrs_ray.storage.mirror import open_files, open_mirrored, restore
from adrs_ray.storage.mirror_batch import batch_name
from adrs_ray.storage.mirror_files import LocalFiles, RemoteFiles
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from tests.storage.stores import STORES, append, close, content, make_run, numbered, opened, write


@pytest.fixture(params=["folder", "memory", "conditional", "unconditional", "old library"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A mirror on each kind of store."""
    if request.param == "folder":
        return str(tmp_path / "mirror")
    if request.param == "memory":
        return f"memory://{tmp_path.name}/mirror"
    store = STORES[f"{tmp_path.name}-{request.param}"]
    store.conditional = request.param == "conditional"
    store.knows_mode = request.param != "old library"
    return f"moody://{tmp_path.name}-{request.param}/mirror"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


def keep_appending(journal: Journal) -> None:
    for n in range(10_000):
        append(journal, [numbered(f"old{n}", "old")])


@pytest.mark.parametrize("ack", ["local", "mirror"])
def test_a_head_that_was_taken_over_is_refused(
    ack: str, url: str, folder: RunFolder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = opened(folder, url, ack=ack)
    append(old, [numbered(1, "one")])
    # The new head has no disk in common with the old one.
    give_up = time.monotonic() + 60
    while ack == "local" and old.lag().events:  # type: ignore[attr-defined]
        assert time.monotonic() < give_up
        time.sleep(0.01)
    asyncio.run(restore(url, tmp_path / "again"))
    new = opened(RunFolder.open(tmp_path / "again"), url, ack=ack)
    assert new.epoch > old.epoch
    with caplog.at_level(logging.WARNING), pytest.raises(StaleEpochError, match="taken this run over") as refused:
        keep_appending(old)
    assert "\n" not in str(refused.value)
    append(new, [numbered("new", "new")])
    close(new)
    close(old)
    asyncio.run(restore(url, tmp_path / "third"))
    assert [event.id for event in content(tmp_path / "third")[0]] == ["event1", "eventnew"]
    assert content(tmp_path / "third") == content(tmp_path / "again")


def test_the_old_head_cannot_start_again(url: str, folder: RunFolder, tmp_path: Path) -> None:
    write(folder, url, [numbered(1)])
    asyncio.run(restore(url, tmp_path / "again"))
    again = RunFolder.open(tmp_path / "again")
    for n in range(3):
        write(again, url, [numbered(f"new{n}")])
    with pytest.raises(StaleEpochError, match="epoch 4, ours is 2"):
        opened(folder, url)
    for _ in range(3):
        # With epochs as high as the new head's it is refused all the same: the events are others.
        close(SqliteJournal.open(folder.journal))
    with pytest.raises(UsageError, match="holds 4 events and this journal 1"):
        opened(folder, url)


def test_a_restarted_process_of_one_epoch_goes_on_beside_its_predecessor(url: str, folder: RunFolder) -> None:
    """Both write one journal, so what either uploads is true for the other."""
    first = opened(folder, url, ack="mirror")
    append(first, [numbered(1)])
    joined = SqliteJournal.join(folder.journal, first.epoch)
    second = asyncio.run(open_mirrored(joined, MirrorConfig(url=url, ack="mirror"), folder.run_yaml))

    async def both() -> None:
        for n in range(10):
            await asyncio.gather(
                *(
                    j.append([numbered(f"{name}{n}", f"{name}{n}")], j.epoch)
                    for name, j in (("a", first), ("b", second))
                )
            )

    asyncio.run(both())
    close(first)
    close(second)
    asyncio.run(restore(url, folder.path.parent / "again"))
    assert content(folder.path.parent / "again") == content(folder.path)


def test_a_successor_on_the_same_disk_fences_in_the_mirror_too(url: str, folder: RunFolder) -> None:
    old = opened(folder, url, lag_s=3600.0)
    append(old, [numbered(1)])
    new = opened(folder, url, fence=True)
    append(new, [numbered(2)])
    with pytest.raises(StaleEpochError):
        append(old, [numbered(3)])
    close(old)
    close(new)
    asyncio.run(restore(url, folder.path.parent / "again"))
    assert [event.id for event in content(folder.path.parent / "again")[0]] == ["event1", "event2"]


def test_a_claim_that_comes_too_late_overwrites_nothing(folder: RunFolder, tmp_path: Path) -> None:
    name = tmp_path.name
    url, store = f"moody://{name}/mirror", STORES[name]
    old = opened(folder, url, ack="mirror")
    append(old, [numbered(1)])
    asyncio.run(restore(url, tmp_path / "again"))

    def the_old_head_goes_on(_: str) -> None:
        append(old, [numbered(2)])

    store.before_write = the_old_head_goes_on
    with pytest.raises(RunError):
        opened(RunFolder.open(tmp_path / "again"), url)
    append(old, [numbered(3)])
    close(old)
    asyncio.run(restore(url, tmp_path / "third"))
    assert content(tmp_path / "third") == content(folder.path)


@pytest.mark.parametrize("conditional", [True, False])
def test_an_upload_between_our_look_and_our_write_is_noticed(
    conditional: bool, folder: RunFolder, tmp_path: Path
) -> None:
    """The store is written by another head after we looked and before our bytes arrive, or after them."""
    store = STORES[tmp_path.name]
    store.conditional = conditional
    url = f"moody://{tmp_path.name}/mirror"
    first = opened(folder, url, ack="mirror")
    append(first, [numbered(1)])
    asyncio.run(restore(url, tmp_path / "again"))
    other = opened(RunFolder.open(tmp_path / "again"), f"{url}-copy")
    append(other, [numbered("other")])
    close(other)
    theirs = [data for name, data in store.files.items() if "-copy/" in name and name.endswith(".gz")][-1]

    def another_head_writes(path: str) -> None:
        store.files[path] = theirs

    store.before_write = another_head_writes
    if conditional:
        with pytest.raises(StaleEpochError):
            append(first, [numbered(2)])
        assert store.files[f"{tmp_path.name}/mirror/{batch_name(3)}"] == theirs
    else:
        # It was written over: the window that such stores have. What stands there now is ours, and whole.
        append(first, [numbered(2)])
    close(first)


def test_what_replaced_our_batch_is_noticed_by_the_look_after(folder: RunFolder, tmp_path: Path) -> None:
    store = STORES[tmp_path.name]
    store.conditional = False
    url = f"moody://{tmp_path.name}/mirror"
    journal = opened(folder, url, ack="mirror")
    written = store.write

    def write_and_be_replaced(path: str, data: bytes, create: bool) -> None:
        written(path, data, create)
        store.files[path] = b"of another head"

    store.write = write_and_be_replaced  # type: ignore[method-assign]
    with pytest.raises(StaleEpochError):
        append(journal, [numbered(1)])
    close(journal)


def test_a_local_name_is_given_once_and_whole(tmp_path: Path) -> None:
    files = LocalFiles(tmp_path / "a" / "b")
    files.create("000001.jsonl.gz", b"first")
    with pytest.raises(FileExistsError):
        files.create("000001.jsonl.gz", b"second")
    assert files.read("000001.jsonl.gz") == b"first"
    assert os.listdir(tmp_path / "a" / "b") == ["000001.jsonl.gz"]


def test_a_folder_without_links_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files = LocalFiles(tmp_path)
    files.create("x", b"first")
    assert not files.exclusive
    with pytest.raises(FileExistsError):
        files.create("x", b"second")
    assert os.listdir(tmp_path) == ["x"]


def test_what_a_store_can_do_is_found_out_by_trying(tmp_path: Path) -> None:
    for name, able in (("able", True), ("unable", False)):
        STORES[f"{tmp_path.name}-{name}"].conditional = able
        files = open_files(f"moody://{tmp_path.name}-{name}/x")
        assert isinstance(files, RemoteFiles)
        assert not files.exclusive
        files.create("one", b"1")
        assert files.exclusive == able
        with pytest.raises(FileExistsError):
            files.create("one", b"2")
        assert files.read("one") == b"1"
