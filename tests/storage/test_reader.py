"""Reading beside a writer."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import EventKind, JournalRefusedError, text_ref
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.sqlite import SqliteJournal


def test_a_reader_sees_every_acknowledged_append_and_whole_batches(tmp_path: Path, event: Any) -> None:
    path = tmp_path / "journal.db"

    async def write_and_read() -> None:
        journal = SqliteJournal.open(path)
        done = asyncio.Event()
        acknowledged = 0

        async def write() -> None:
            nonlocal acknowledged
            for number in range(100):
                batch = [event(f"{number}.{part}", text=f"{number}.{part}") for part in range(3)]
                await journal.append(batch, journal.epoch)
                acknowledged += 3
            done.set()

        async def read() -> None:
            with JournalReader(path) as reader:
                while not done.is_set():
                    before = acknowledged
                    events = await asyncio.to_thread(reader.read)
                    assert len(events) >= before
                    assert len(events) % 3 == 0
                    refs = [e.body["source"] for e in events[-3:]]
                    assert len(await asyncio.to_thread(reader.texts, refs)) == len(refs)
                assert len(reader.read()) == 300

        await asyncio.gather(write(), read())
        await journal.close()

    asyncio.run(write_and_read())


def test_a_reader_does_not_hold_up_the_writer(tmp_path: Path, event: Any) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    asyncio.run(journal.append([event(i) for i in range(10)], journal.epoch))
    with JournalReader(path) as reader:
        replay = reader.replay(block=2)
        first = next(replay)
        asyncio.run(journal.append([event(10)], journal.epoch))
        assert [first.seq, *(e.seq for e in replay)] == list(range(1, 12))
    asyncio.run(journal.close())


def test_a_reader_filters_as_the_journal_does(tmp_path: Path, event: Any) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    kinds = [EventKind.GENERATED, EventKind.LOST]
    asyncio.run(journal.append([event(i, i % 3, kinds[i % 2], text=f"t{i}") for i in range(30)], journal.epoch))
    with JournalReader(path) as reader:
        for arguments in [(), (5,), (0, [EventKind.LOST]), (0, None, 2), (3, kinds, 1, 4), (0, [])]:
            assert reader.read(*arguments) == asyncio.run(journal.read(*arguments))
        assert reader.texts([text_ref("t3")]) == {text_ref("t3"): "t3"}
        with pytest.raises(KeyError, match=text_ref("no")):
            reader.texts([text_ref("no")])
        assert list(reader.replay(7, block=4)) == reader.read(7)
    asyncio.run(journal.close())


def test_a_reader_takes_no_lock_and_writes_nothing(tmp_path: Path, event: Any) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    asyncio.run(journal.append([event(1)], journal.epoch))
    asyncio.run(journal.close())
    before = path.read_bytes()
    with JournalReader(path) as reader:
        assert len(reader.read()) == 1
    assert path.read_bytes() == before
    with JournalReader(path) as reader:
        assert len(reader.read()) == 1
        again = SqliteJournal.open(path, wait_s=0)
        asyncio.run(again.close())


def test_no_journal_and_an_empty_one_are_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no journal at"):
        JournalReader(tmp_path / "journal.db")
    (tmp_path / "empty.db").touch()
    with pytest.raises(UsageError, match="no run has started"):
        JournalReader(tmp_path / "empty.db")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE events SET body = '{'",
        "UPDATE events SET kind = 'unheard of'",
        "UPDATE texts SET zlib = x'00'",
        "UPDATE texts SET zlib = 1",
    ],
)
def test_damage_that_sqlite_does_not_see_is_one_line(tmp_path: Path, event: Any, damage: str) -> None:
    path = tmp_path / "journal.db"
    journal = SqliteJournal.open(path)
    asyncio.run(journal.append([event(1, text="t")], journal.epoch))
    asyncio.run(journal.close())
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(damage)
    again = SqliteJournal.open(path)

    async def write_side() -> None:
        await again.read()
        await again.texts([text_ref("t")])

    def read_side() -> None:
        with JournalReader(path) as reader:
            reader.read()
            reader.texts([text_ref("t")])

    with pytest.raises(JournalRefusedError, match="it is damaged"):
        read_side()
    with pytest.raises(JournalRefusedError, match="it is damaged"):
        asyncio.run(write_side())
    asyncio.run(again.close())
