"""What survives a killed, stopped or unplugged writer. Each writer here is a real process."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.errors import RunError
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.sqlite import SqliteJournal
from tests.storage.writer import BATCH, Writer


def read_all(journal: SqliteJournal) -> list[Event]:
    async def read_and_close() -> list[Event]:
        try:
            return await journal.read()
        finally:
            await journal.close()

    return asyncio.run(read_and_close())


@pytest.mark.parametrize("acknowledged", [1, 40, 400])
def test_kill_9_loses_nothing_that_was_acknowledged(acknowledged: int, tmp_path: Path, start: Any) -> None:
    path = tmp_path / "journal.db"
    writer = start(path)
    writer.tell("stream 4")
    said = [writer.line() for _ in range(acknowledged)]
    said += writer.end()
    with JournalReader(path) as reader:
        beside = reader.read()
    events = read_all(SqliteJournal.open(path))
    assert beside == events
    recorded = {event.id: event.seq for event in events}
    for line in said:
        word, name, seq = line.split()
        assert word == "ok"
        assert recorded[name] == int(seq)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for appender in range(4):
        own = [event.candidate for event in events if event.island == appender]
        assert own == [f"{appender}-{i // BATCH}.{i % BATCH}" for i in range(len(own))]
        assert len(own) % BATCH == 0


def test_what_a_killed_writer_appended_can_be_appended_again(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "journal.db"
    writer = start(path)
    for number in range(3):
        writer.tell(f"append {number}")
        assert writer.line() == f"ok event{number} {number + 1}\n"
    writer.end()
    again = start(path)
    for number in range(4):
        again.tell(f"append {number}")
        assert again.line() == f"ok event{number} {number + 1}\n"


def test_a_stopped_writer_that_wakes_up_after_a_takeover_is_refused(tmp_path: Path, start: Any) -> None:
    path = tmp_path / "journal.db"
    zombie = start(path)
    zombie.tell("append 1")
    assert zombie.line().startswith("ok ")
    zombie.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RunError, match=f"pid {zombie.process.pid} ") as waited:
        SqliteJournal.open(path, wait_s=0.2)
    assert "--fence" in str(waited.value)
    assert "adrs stop" in str(waited.value)
    assert "\n" not in str(waited.value)

    heir = start(path, "fence")
    heir.tell("append 2")
    assert heir.line() == "ok event2 2\n"
    zombie.tell("append 3")
    zombie.process.send_signal(signal.SIGCONT)
    assert zombie.line().startswith("StaleEpochError ")
    heir.tell("append 4")
    assert heir.line() == "ok event4 3\n"
    with JournalReader(path) as reader:
        assert [event.id for event in reader.read()] == ["event1", "event2", "event4"]

    # The lock is the heir's now: whoever comes next waits for it, not for the zombie.
    zombie.end()
    with pytest.raises(RunError, match=f"pid {heir.process.pid} "):
        SqliteJournal.open(path, wait_s=0.2)
    heir.end()
    assert len(read_all(SqliteJournal.open(path, wait_s=5.0))) == 3


@pytest.fixture(scope="module")
def unplugged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[list[str]]]:
    """A database with all its batches still in the WAL, and the ids of each batch."""
    path = tmp_path_factory.mktemp("unplugged") / "journal.db"
    writer = Writer(path)
    writer.tell("stream 2")
    for _ in range(60):
        writer.line()
    writer.end()
    copy = path.with_name("copy.db")
    shutil.copy(path, copy)
    shutil.copy(f"{path}-wal", f"{copy}-wal")
    ids = [event.id for event in read_all(SqliteJournal.open(copy))]
    assert len(ids) >= 60 * BATCH
    return path, [ids[i : i + BATCH] for i in range(0, len(ids), BATCH)]


@pytest.mark.parametrize("tail", ["cut", "noise", "zeros"])
def test_after_power_loss_the_journal_is_a_prefix_of_its_batches(
    tail: str, unplugged: tuple[Path, list[list[str]]], tmp_path: Path
) -> None:
    """The WAL up to a random offset, and behind it nothing, noise or zeros: what a disk may hold that lost power."""
    path, batches = unplugged
    wal = Path(f"{path}-wal").read_bytes()
    rng = random.Random(f"{tail}-7")
    lengths = set()
    for trial in range(40):
        offset = rng.randrange(len(wal) + 1)
        torn = tmp_path / f"{trial}.db"
        rest = {"cut": b"", "noise": rng.randbytes(len(wal) - offset), "zeros": bytes(len(wal) - offset)}[tail]
        shutil.copy(path, torn)
        Path(f"{torn}-wal").write_bytes(wal[:offset] + rest)
        journal = SqliteJournal.open(torn)
        found = [event.id for event in asyncio.run(journal.read())]
        assert found == [name for batch in batches for name in batch][: len(found)]
        assert len(found) % BATCH == 0
        asyncio.run(journal.append([Event("after", EventKind.LOST, None, 0, {})], journal.epoch))
        assert read_all(journal)[-1].id == "after"
        lengths.add(len(found))
    assert len(lengths) > 10
