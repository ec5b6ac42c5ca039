"""What only the durable journal has: its file, its lock, and what it says when the disk does not play along."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError, StaleEpochError
from adrs_ray.storage.lock import WriterLock, read_holder
from adrs_ray.storage.mounts import filesystem_type, require_local
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.sqlite import SqliteJournal


def numbered(number: int, text: str | None = None) -> Event:
    return Event(f"event{number}", EventKind.LOST, None, 0, {"n": number}, () if text is None else (text,))


def write(path: Path, *numbers: int) -> None:
    """Append events in a writer that is closed again."""

    async def work() -> None:
        journal = SqliteJournal.open(path)
        await journal.append([numbered(n, f"text {n}") for n in numbers], journal.epoch)
        await journal.close()

    asyncio.run(work())


def read(path: Path) -> list[str]:
    with JournalReader(path) as reader:
        return [event.id for event in reader.read()]


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_each_opening_has_a_higher_epoch_and_sees_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 1)
    write(path, 2)
    journal = SqliteJournal.open(path)
    assert journal.epoch == 3
    assert [event.epoch for event in asyncio.run(journal.read())] == [1, 2]
    asyncio.run(journal.close())


def test_a_commit_is_synced_and_the_file_is_in_wal_mode(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 1)
    journal = SqliteJournal.open(path)
    asyncio.run(journal.append([numbered(2)], journal.epoch))
    assert journal._connection is not None
    assert journal._connection.execute("PRAGMA synchronous").fetchone() == (2,)
    assert journal._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    asyncio.run(journal.close())


def test_join_writes_on_under_the_same_epoch(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 1)
    journal = SqliteJournal.join(path, 1)
    (recorded,) = asyncio.run(journal.append([numbered(2)], 1))
    assert (recorded.seq, recorded.epoch, journal.epoch) == (2, 1, 1)
    asyncio.run(journal.close())


def test_two_handles_of_one_epoch_share_one_numbering(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SqliteJournal.open(path)
    second = SqliteJournal.join(path, first.epoch)

    async def both() -> None:
        for n in range(10):
            await asyncio.gather(
                first.append([numbered(n), numbered(100 + n)], 1), second.append([numbered(n), numbered(200 + n)], 1)
            )

    asyncio.run(both())
    events = asyncio.run(second.read())
    assert [event.seq for event in events] == list(range(1, 31))
    assert {event.id for event in events} == {f"event{n + base}" for n in range(10) for base in (0, 100, 200)}
    asyncio.run(first.close())
    asyncio.run(second.close())


@pytest.mark.parametrize("epoch", [1, 3])
def test_join_refuses_an_epoch_that_is_not_current(epoch: int, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 1)
    write(path, 2)
    with pytest.raises(StaleEpochError) as refused:
        SqliteJournal.join(path, epoch)
    assert "epoch 2" in one_line(refused)
    write(path, 3)


def test_a_second_writer_waits_and_is_told_who_holds_the_journal(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SqliteJournal.open(path)
    with pytest.raises(RunError) as refused:
        SqliteJournal.open(path, wait_s=0.1)
    assert f"pid {os.getpid()} on {socket.gethostname()}" in one_line(refused)
    asyncio.run(first.append([numbered(1)], first.epoch))
    asyncio.run(first.close())
    write(path, 2)
    assert read(path) == ["event1", "event2"]


def test_a_second_writer_gets_the_journal_when_the_first_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SqliteJournal.open(path)

    async def hand_over() -> int:
        waiting = asyncio.create_task(asyncio.to_thread(SqliteJournal.open, path, 60.0))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        await first.close()
        second = await waiting
        await second.close()
        return second.epoch

    assert asyncio.run(hand_over()) == 2


def test_a_writer_that_hangs_in_a_write_cannot_be_fenced_and_stays_named(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    first = SqliteJournal.open(path)
    hanging = sqlite3.connect(path, isolation_level=None)
    hanging.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalRefusedError, match=r"journal\.lock names it") as refused:
        SqliteJournal.open(path, wait_s=0.1, fence=True)
    one_line(refused)
    holder = read_holder(tmp_path / "journal.lock")
    assert holder is not None
    assert holder.pid == os.getpid()
    hanging.execute("ROLLBACK")
    hanging.close()
    asyncio.run(first.append([numbered(1)], first.epoch))
    asyncio.run(first.close())


def test_a_lock_on_a_file_that_was_replaced_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "journal.lock"
    old = WriterLock.acquire(path, 0)
    new = WriterLock.seize(path)
    old.release()
    assert WriterLock.try_acquire(path) is None
    assert read_holder(path) is not None
    new.release()
    third = WriterLock.try_acquire(path)
    assert third is not None
    third.release()


def test_a_lock_file_replaced_while_it_is_being_locked_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.lock"
    WriterLock.acquire(path, 0).release()
    flock = fcntl.flock
    seized: list[WriterLock] = []

    def be_overtaken(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        seized.append(WriterLock.seize(path))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", be_overtaken)
    assert WriterLock.try_acquire(path) is None
    seized[0].release()


def test_a_failed_opening_leaves_no_lock_behind(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    path.write_bytes(b"not a database, but long enough to be looked at" * 50)
    with pytest.raises(UsageError):
        SqliteJournal.open(path)
    path.unlink()
    write(path, 1)


def test_another_programs_files_are_refused_in_one_line(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_bytes(b"not a database, but long enough to be looked at" * 50)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as connection:
        connection.execute("CREATE TABLE events(x)")
    for path, said in ((text, "no SQLite file"), (other, "another program")):
        before = path.read_bytes()
        for opener in (SqliteJournal.open, JournalReader):
            with pytest.raises(UsageError, match=said) as refused:
                opener(path)
            assert str(path) in one_line(refused)
        assert path.read_bytes() == before


def test_another_format_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, 1)
    connection = sqlite3.connect(path)
    connection.execute("UPDATE meta SET schema_version = 0")
    connection.commit()
    connection.close()
    for opener in (SqliteJournal.open, JournalReader):
        with pytest.raises(UsageError, match=r"format 0.*reads format 2") as refused:
            opener(path)
        one_line(refused)


def test_a_damaged_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    write(path, *range(200))
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xa5" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(JournalRefusedError, match="damaged") as refused:
        read(path)
    one_line(refused)
    with pytest.raises(JournalRefusedError, match="damaged"):
        SqliteJournal.open(path)


def test_a_journal_that_was_moved_away_refuses(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    asyncio.run(journal.append([numbered(1)], journal.epoch))
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(JournalRefusedError, match="moved") as refused:
        asyncio.run(journal.append([numbered(2)], journal.epoch))
    one_line(refused)
    (tmp_path / "elsewhere.db").rename(path)
    asyncio.run(journal.append([numbered(3)], journal.epoch))
    assert [event.id for event in asyncio.run(journal.read())] == ["event1", "event3"]
    asyncio.run(journal.close())


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalRefusedError, match="does not exist") as refused:
        SqliteJournal.open(tmp_path / "gone" / "journal.db")
    assert str(tmp_path / "gone") in one_line(refused)
    with pytest.raises(JournalRefusedError, match="does not exist"):
        SqliteJournal.join(tmp_path / "journal.db", 1)
    (tmp_path / "journal.db").touch()
    with pytest.raises(JournalRefusedError, match="empty"):
        SqliteJournal.join(tmp_path / "journal.db", 1)


def test_a_lock_file_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "journal.lock").mkdir()
    write_elsewhere = tmp_path / "other.db"
    write(write_elsewhere, 1)
    write_elsewhere.rename(tmp_path / "journal.db")
    for opener in (SqliteJournal.open, lambda path: SqliteJournal.join(path, 1)):
        with pytest.raises(JournalRefusedError, match="cannot lock") as refused:
            opener(tmp_path / "journal.db")
        one_line(refused)


def test_an_event_the_driver_cannot_bind_fails_alone(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path / "journal.db")
    strange = Event("strange", EventKind.LOST, None, 2**80, {})

    async def together() -> list[Any]:
        batches = ([numbered(1)], [numbered(2), strange], [numbered(3)])
        return await asyncio.gather(*(journal.append(b, journal.epoch) for b in batches), return_exceptions=True)

    outcomes = asyncio.run(together())
    assert isinstance(outcomes[1], OverflowError)
    assert [event.id for event in asyncio.run(journal.read())] == ["event1", "event3"]
    asyncio.run(journal.close())


def test_a_text_is_stored_once(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    text = "the constant part of a prompt\n" * 100
    for number in range(3):
        asyncio.run(journal.append([numbered(number, text), numbered(10 + number, text)], journal.epoch))
    asyncio.run(journal.close())
    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM texts").fetchone() == (1,)
    connection.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_refuses_loses_nothing_and_recovers(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(400_000))
    journal = SqliteJournal.open(path)
    acknowledged: list[str] = []

    async def fill() -> None:
        for number in range(100_000):
            batch = [numbered(number, os.urandom(3000).hex())]
            acknowledged.extend(event.id for event in await journal.append(batch, journal.epoch))

    with pytest.raises(JournalRefusedError, match="the disk is full") as refused:
        asyncio.run(fill())
    assert str(path) in one_line(refused)
    assert acknowledged
    assert [event.id for event in asyncio.run(journal.read())] == acknowledged
    ballast.unlink()
    asyncio.run(journal.append([numbered(-1)], journal.epoch))
    asyncio.run(journal.close())
    assert read(path) == [*acknowledged, "event-1"]


def test_a_finished_run_can_be_read_on_a_read_only_disk_and_not_written(small_disk: Path) -> None:
    path = small_disk / "journal.db"
    write(path, 1, 2)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert read(path) == ["event1", "event2"]
    with pytest.raises(JournalRefusedError, match=r"[Rr]ead-only") as refused:
        SqliteJournal.open(path)
    one_line(refused)


MOUNTS = """\
/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
server:/home /home nfs4 rw 0 0
tmpfs /home/ann/scratch tmpfs rw 0 0
me@host: /mnt/with\\040space fuse.sshfs rw 0 0
/dev/vdb /over ext4 rw 0 0
//server/share /over cifs rw 0 0
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/scratch/runs", "ext4"),
        ("/home/ann/runs", "nfs4"),
        ("/homes/ann", "ext4"),
        ("/home/ann/scratch/run", "tmpfs"),
        ("/mnt/with space/run", "fuse.sshfs"),
        ("/over/run", "cifs"),
    ],
)
def test_the_file_system_of_a_folder_is_found(folder: str, kind: str) -> None:
    assert filesystem_type(Path(folder), MOUNTS) == kind


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "lustre", "9p", "fuse.sshfs", "ceph"])
def test_network_file_systems_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"server / {kind} rw 0 0\n")
    with pytest.raises(UsageError, match="local disk") as refused:
        require_local(tmp_path, mounts)
    assert kind in one_line(refused)


def test_local_file_systems_and_unknown_ones_are_not_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / xfs rw 0 0\n")
    require_local(tmp_path, mounts)
    require_local(tmp_path, tmp_path / "missing")
