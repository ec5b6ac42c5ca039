"""What a mirror holds when the head is killed and its disk is gone. Each writer here is a real process."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.storage.journal import Event
from adrs_ray.storage.mirror import mirror_state, restore
from adrs_ray.storage.runfolder import RunFolder
from tests.storage.stores import content, make_run, opened, write
from tests.storage.writer import BATCH


def restored(mirror: Path, folder: Path) -> list[Event]:
    asyncio.run(restore(str(mirror), folder))
    return content(folder)[0]


def is_prefix(events: list[Event], folder: RunFolder) -> bool:
    """Whether these are the first events of the run whose disk is in fact still there."""
    return content(folder.path)[0][: len(events)] == events


@pytest.mark.parametrize("acknowledged", random.Random(5).sample(range(1, 200), 6))
def test_with_ack_mirror_kill_9_loses_nothing_that_was_acknowledged(
    acknowledged: int, tmp_path: Path, start: Any
) -> None:
    folder, mirror = make_run(tmp_path / "run"), tmp_path / "mirror"
    writer = start(folder.journal, str(mirror), "ack")
    writer.tell("stream 4")
    said = [writer.line() for _ in range(acknowledged)]
    said += writer.end()
    events = restored(mirror, tmp_path / "again")
    recorded = {event.id: event.seq for event in events}
    for line in said:
        word, name, seq = line.split()
        assert word == "ok"
        assert recorded[name] == int(seq)
    assert len(events) >= BATCH * acknowledged
    assert is_prefix(events, folder)
    # Texts are there, too, and the run goes on where it was.
    again = RunFolder.open(tmp_path / "again")
    write(again, str(mirror), [])
    assert content(again.path)[0] == events


def test_with_ack_local_kill_9_loses_the_last_moments_alone(tmp_path: Path, start: Any) -> None:
    folder, mirror = make_run(tmp_path / "run"), tmp_path / "mirror"
    writer = start(folder.journal, str(mirror))
    for number in range(10):
        writer.tell(f"append {number}")
        assert writer.line().startswith("ok ")
    give_up = time.monotonic() + 60
    # Nothing more arrives that could push them: the mirror has them because time passes.
    while (state := mirror_state(str(mirror))) is None or state.last_seq < 10:
        assert time.monotonic() < give_up
        time.sleep(0.02)
    writer.tell("stream 4")
    for _ in range(40):
        writer.line()
    writer.end()
    events = restored(mirror, tmp_path / "again")
    assert len(events) >= 10
    assert is_prefix(events, folder)


def test_many_heads_killed_one_after_the_other_lose_nothing(tmp_path: Path, start: Any) -> None:
    """Each starts on a new disk, from the mirror alone."""
    mirror, rng = tmp_path / "mirror", random.Random(11)
    folder = make_run(tmp_path / "0")
    acknowledged: dict[str, int] = {}
    for head in range(1, 6):
        writer = start(folder.journal, str(mirror), "ack")
        writer.tell("stream 3")
        said = [writer.line() for _ in range(rng.randrange(1, 60))]
        for line in [*said, *writer.end()]:
            _, name, seq = line.split()
            assert acknowledged.setdefault(name, int(seq)) == int(seq)
        events = restored(mirror, tmp_path / str(head))
        recorded = {event.id: event.seq for event in events}
        assert acknowledged.items() <= recorded.items()
        folder = RunFolder.open(tmp_path / str(head))
    assert len({event.epoch for event in events}) > 1


def test_a_head_that_was_stopped_and_wakes_up_is_fenced(tmp_path: Path, start: Any) -> None:
    folder, mirror = make_run(tmp_path / "run"), tmp_path / "mirror"
    old = start(folder.journal, str(mirror), "ack")
    old.tell("append 1")
    assert old.line().startswith("ok ")
    old.process.send_signal(signal.SIGSTOP)
    restored(mirror, tmp_path / "again")
    new = opened(RunFolder.open(tmp_path / "again"), str(mirror), ack="mirror")
    old.tell("append 2")
    old.process.send_signal(signal.SIGCONT)
    assert old.line().startswith("StaleEpochError ")
    asyncio.run(new.close())
    assert [event.id for event in restored(mirror, tmp_path / "third")] == ["event1"]
