"""A run from its mirror: what was mirrored comes back, whatever happened to the files a prefix of it."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gzip
import hashlib
import json
import logging
import os
import shlex
import shutil
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.cli.restore import restore as restore_command
from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage import mirror_batch, mirror_files
from adrs_ray.storage.importing import JournalImport
from adrs_ray.storage.journal import Event, EventKind, JournalRefusedError
from adrs_ray.storage.mirror import mirror_state, restore
from adrs_ray.storage.mirror_batch import Header, batch_name, digest_of, header_line
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from tests.storage.stores import STORES, append, close, content, make_run, numbered, opened, write

BATCHES = 6
"""Of `mirrored`: the claim, and one event in each of the others."""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


@pytest.fixture
def mirrored(folder: RunFolder, tmp_path: Path) -> Path:
    """The mirror of a run with five events."""
    mirror = tmp_path / "mirror"
    write(folder, str(mirror), [numbered(n, f"text {n}", "shared") for n in range(1, BATCHES)], ack="mirror")
    return mirror


def names(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(path / "journal.db")) as connection:
        return [row[0] for row in connection.execute("SELECT id FROM events ORDER BY seq")]


def test_a_restored_run_is_the_run(folder: RunFolder, tmp_path: Path) -> None:
    url = str(tmp_path / "mirror")
    for start in range(3):
        write(folder, url, [numbered(f"{start}.{n}", f"{n}", f"{start}.{n}", "\udcff é\x00") for n in range(5)])
    restored = asyncio.run(restore(url, tmp_path / "again"))
    assert (restored.events, restored.last_seq, restored.epoch, restored.lost) == (15, 15, 3, None)
    assert sorted(os.listdir(tmp_path / "again")) == ["best", "commands", "journal.db", "run.yaml"]
    assert sorted(os.listdir(tmp_path)) == ["again", "mirror", "run"]
    again = RunFolder.open(tmp_path / "again")
    assert again.reference == folder.reference
    assert content(again.path) == content(folder.path)
    assert {event.epoch for event in content(again.path)[0]} == {1, 2, 3}


def test_the_next_writer_of_a_restored_run_has_a_higher_epoch(folder: RunFolder, tmp_path: Path) -> None:
    url = str(tmp_path / "mirror")
    write(folder, url, [numbered(1)])
    close(opened(folder, url))
    asyncio.run(restore(url, tmp_path / "again"))
    journal = SqliteJournal.open(tmp_path / "again" / "journal.db")
    assert journal.epoch == 3
    close(journal)


def test_a_restored_run_goes_on_and_is_mirrored_on(mirrored: Path, tmp_path: Path) -> None:
    asyncio.run(restore(str(mirrored), tmp_path / "again"))
    again = RunFolder.open(tmp_path / "again")
    write(again, str(mirrored), [numbered("new", "shared", "a new text")])
    asyncio.run(restore(str(mirrored), tmp_path / "third"))
    assert content(tmp_path / "third") == content(again.path)
    assert names(tmp_path / "third")[-1] == "eventnew"


def test_a_run_that_recorded_nothing_yet_is_restored(folder: RunFolder, tmp_path: Path) -> None:
    close(opened(folder, str(tmp_path / "mirror")))
    restored = asyncio.run(restore(str(tmp_path / "mirror"), tmp_path / "again"))
    assert (restored.events, restored.epoch) == (0, 1)
    close(SqliteJournal.open(tmp_path / "again" / "journal.db"))


def cut(mirror: Path, number: int) -> None:
    file = mirror / batch_name(number)
    file.write_bytes(file.read_bytes()[:-9])


def flip(mirror: Path, number: int) -> None:
    file = mirror / batch_name(number)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    file.write_bytes(data)


def empty(mirror: Path, number: int) -> None:
    (mirror / batch_name(number)).write_bytes(b"")


def noise(mirror: Path, number: int) -> None:
    (mirror / batch_name(number)).write_bytes(os.urandom(500))


def lose(mirror: Path, number: int) -> None:
    (mirror / batch_name(number)).unlink()


def repeat(mirror: Path, number: int) -> None:
    shutil.copy(mirror / batch_name(number - 1), mirror / batch_name(number))


def reword(mirror: Path, number: int) -> None:
    """Another text under a header that fits it, as who knows the format would do."""
    file = mirror / batch_name(number)
    line, lines = gzip.decompress(file.read_bytes()).split(b"\n", 1)
    lines = lines.replace(b"shared", b"s.ared").replace(f'"is":"text {number - 1}"'.encode(), b'"is":"forged"')
    header = json.loads(line) | {"sha256": hashlib.sha256(lines).hexdigest()}
    file.write_bytes(gzip.compress(json.dumps(header).encode() + b"\n" + lines))


def swell(mirror: Path, number: int) -> None:
    (mirror / batch_name(number)).write_bytes(gzip.compress(bytes(3_000_000)))


@pytest.mark.parametrize("damage", [cut, flip, empty, noise, lose, repeat, swell])
@pytest.mark.parametrize("number", [3, BATCHES - 1])
def test_a_restore_stops_before_the_first_damaged_batch(
    damage: Any,
    number: int,
    mirrored: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mirror_batch, "MAX_UNPACKED", 1_000_000)
    damage(mirrored, number)
    with caplog.at_level(logging.WARNING):
        restored = asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert names(tmp_path / "again") == [f"event{n}" for n in range(1, number - 1)]
    assert restored.last_seq == restored.events == number - 2
    (said,) = caplog.messages
    beyond = BATCHES - number + (1 if damage is repeat else 0)
    assert batch_name(number) in said
    assert f"restored the {number - 2} events before it, {beyond} in later batches are lost" in said
    assert "\n" not in said


def test_a_rewritten_batch_breaks_the_chain_behind_it(mirrored: Path, tmp_path: Path) -> None:
    reword(mirrored, 3)
    restored = asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert names(tmp_path / "again") == ["event1", "event2"]
    assert restored.lost is not None
    assert "does not continue the batch before" in restored.lost


def test_batches_in_another_order_and_of_another_run_are_not_taken(mirrored: Path, tmp_path: Path) -> None:
    four, five = mirrored / batch_name(4), mirrored / batch_name(5)
    contents = four.read_bytes(), five.read_bytes()
    four.write_bytes(contents[1])
    five.write_bytes(contents[0])
    asyncio.run(restore(str(mirrored), tmp_path / "swapped"))
    assert names(tmp_path / "swapped") == ["event1", "event2"]
    other = make_run(tmp_path / "other")
    write(other, str(tmp_path / "foreign"), [numbered(n) for n in range(1, BATCHES)], ack="mirror")
    shutil.copy(tmp_path / "foreign" / batch_name(4), four)
    asyncio.run(restore(str(mirrored), tmp_path / "mixed"))
    assert names(tmp_path / "mixed") == ["event1", "event2"]


def test_any_one_damaged_bit_or_cut_leaves_a_prefix(mirrored: Path, tmp_path: Path) -> None:
    file = mirrored / batch_name(4)
    good = file.read_bytes()
    seen = set()
    for offset in range(0, len(good), 29):
        flipped = bytearray(good)
        flipped[offset] ^= 1 << offset % 8
        for bad in (bytes(flipped), good[:offset]):
            file.write_bytes(bad)
            asyncio.run(restore(str(mirrored), tmp_path / "again"))
            found = names(tmp_path / "again")
            assert found == [f"event{n}" for n in range(1, len(found) + 1)]
            seen.add(len(found))
            shutil.rmtree(tmp_path / "again")
    # A bit of a gzip header that nobody reads (its time) may change without harm.
    assert 2 in seen
    assert seen <= {2, 5}


def test_a_damaged_mirror_is_written_on_from_what_could_be_restored(mirrored: Path, tmp_path: Path) -> None:
    cut(mirrored, 4)
    asyncio.run(restore(str(mirrored), tmp_path / "again"))
    again = RunFolder.open(tmp_path / "again")
    write(again, str(mirrored), [numbered("new")])
    assert len(os.listdir(mirrored / "lost")) == 3
    restored = asyncio.run(restore(str(mirrored), tmp_path / "third"))
    assert restored.lost is None
    assert names(tmp_path / "third") == ["event1", "event2", "eventnew"]


@pytest.mark.parametrize("damage", [cut, lose, noise])
def test_a_run_that_still_has_its_journal_mends_its_mirror(
    damage: Any, folder: RunFolder, mirrored: Path, tmp_path: Path
) -> None:
    damage(mirrored, BATCHES if damage is not lose else 3)
    write(folder, str(mirrored), [numbered("new")])
    restored = asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert restored.lost is None
    assert content(tmp_path / "again") == content(folder.path)


def test_the_state_of_a_damaged_mirror_is_what_can_be_restored(mirrored: Path) -> None:
    before = mirror_state(str(mirrored))
    assert before is not None
    assert before.last_seq == BATCHES - 1
    cut(mirrored, BATCHES)
    state = mirror_state(str(mirrored))
    assert state is not None
    assert (state.last_seq, state.epoch, state.run) == (BATCHES - 2, 1, "run")
    lose(mirrored, 2)
    state = mirror_state(str(mirrored))
    assert state is not None
    assert state.last_seq == 0
    cut(mirrored, 1)
    assert mirror_state(str(mirrored)) is None


def test_where_nothing_is_there_is_no_state_and_no_restore(tmp_path: Path) -> None:
    for url in (str(tmp_path / "nowhere"), f"memory://{tmp_path.name}/nowhere"):
        assert mirror_state(url) is None
        with pytest.raises(UsageError, match=r"no mirror at .*run\.yaml"):
            asyncio.run(restore(url, tmp_path / "again"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [("", "section `run` is missing"), ("seed: [", "cannot read"), ("\udcff", "cannot read")],
)
def test_a_run_yaml_that_does_not_hold_is_one_line(text: str, said: str, mirrored: Path, tmp_path: Path) -> None:
    (mirrored / "run.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UsageError, match=said) as refused:
        asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert str(mirrored) in str(refused.value)
    assert ".restoring" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "again").exists()


def test_a_mirror_whose_first_batch_is_damaged_holds_nothing(mirrored: Path, tmp_path: Path) -> None:
    noise(mirrored, 1)
    with pytest.raises(UsageError, match=r"can be used: 000001\.jsonl\.gz is damaged"):
        asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert sorted(os.listdir(tmp_path)) == ["mirror", "run"]


def test_another_versions_mirror_is_one_line(folder: RunFolder, mirrored: Path, tmp_path: Path) -> None:
    file = mirrored / batch_name(BATCHES)
    unpacked = gzip.decompress(file.read_bytes()).replace(b'"version":1', b'"version":2,"more":[]')
    file.write_bytes(gzip.compress(unpacked))
    for attempt in (
        lambda: asyncio.run(restore(str(mirrored), tmp_path / "again")),
        lambda: mirror_state(str(mirrored)),
        lambda: opened(folder, str(mirrored)),
    ):
        with pytest.raises(UsageError, match="format 2, this adrs reads format 1"):
            attempt()


@pytest.mark.parametrize("there", ["file", "folder", "run"])
def test_a_restore_takes_no_place_that_is_taken(there: str, folder: RunFolder, mirrored: Path, tmp_path: Path) -> None:
    path = folder.path if there == "run" else tmp_path / "again"
    if there == "file":
        path.write_text("precious")
    elif there == "folder":
        path.mkdir()
        (path / "thesis.tex").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match="new folder"):
        asyncio.run(restore(str(mirrored), path))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_empty_folder_and_what_a_crashed_restore_left_are_no_obstacle(mirrored: Path, tmp_path: Path) -> None:
    path = tmp_path / "a" / "again"
    path.mkdir(parents=True)
    left = tmp_path / "a" / ".again.restoring"
    (left / "best").mkdir(parents=True)
    (left / "journal.db").write_bytes(b"half")
    (left / "journal.db-wal").write_bytes(b"half")
    asyncio.run(restore(str(mirrored), path))
    assert len(names(path)) == BATCHES - 1
    assert os.listdir(tmp_path / "a") == ["again"]


def test_two_restores_into_one_folder_do_not_mix(mirrored: Path, tmp_path: Path) -> None:
    building = tmp_path / ".again.restoring"
    building.mkdir()
    other = os.open(building, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(UsageError, match="another process"):
        asyncio.run(restore(str(mirrored), tmp_path / "again"))
    os.close(other)
    asyncio.run(restore(str(mirrored), tmp_path / "again"))


def test_an_outage_is_no_damage(folder: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_files, "PAUSE_S", 0.01)
    url, store = f"moody://{tmp_path.name}/m", STORES[tmp_path.name]
    write(folder, url, [numbered(1)])
    store.down = True
    with pytest.raises(RunError, match="the store is away") as refused:
        asyncio.run(restore(url, tmp_path / "again"))
    assert "\n" not in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == ["run"]


def test_a_disk_that_does_not_take_it_leaves_nothing(
    mirrored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> int:
        raise JournalRefusedError("the disk is full")

    monkeypatch.setattr(JournalImport, "add", full)
    with pytest.raises(JournalRefusedError):
        asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert sorted(os.listdir(tmp_path)) == ["mirror", "run"]


EVENT = {
    "seq": 6,
    "id": "late",
    "kind": "lost",
    "candidate": None,
    "island": 0,
    "epoch": 1,
    "at": 1.5,
    "body": {},
}


@pytest.mark.parametrize(
    "lines",
    [
        ["[1]"],
        ["{"],
        ["NaN"],
        ["\udcff"],
        ["[" * 100_000],
        [json.dumps(EVENT | {"body": []})],
        [json.dumps(EVENT | {"seq": 7})],
        [json.dumps(EVENT | {"seq": True})],
        [json.dumps(EVENT | {"island": 2**70})],
        [json.dumps(EVENT | {"epoch": 2})],
        [json.dumps(EVENT | {"at": "now"})],
        [json.dumps(EVENT | {"at": float("nan")})],
        [json.dumps(EVENT | {"kind": "unheard of"})],
        [json.dumps(EVENT | {"kind": []})],
        [json.dumps(EVENT | {"candidate": 3})],
        [json.dumps(EVENT | {"id": "\udcff"})],
        [json.dumps(EVENT | {"id": "event1"})],
        [json.dumps(EVENT | {"more": 1})],
        [json.dumps(EVENT), json.dumps(EVENT | {"seq": 7, "id": "later"})],
        [],
        [json.dumps({"text": 1, "is": "another"}), json.dumps(EVENT)],
        [json.dumps({"text": 99, "is": "shared"}), json.dumps(EVENT)],
        [json.dumps({"text": 2**70, "is": "x"}), json.dumps(EVENT)],
        [json.dumps({"text": 99, "is": 3}), json.dumps(EVENT)],
        ['{"text": 99, "is": 1' + "0" * 5000 + "}", json.dumps(EVENT)],
    ],
)
def test_lines_that_no_journal_writes_are_damage(lines: list[str], mirrored: Path, tmp_path: Path) -> None:
    """Each in a batch whose header and sums are right."""
    last = Header.model_validate_json(gzip.decompress((mirrored / batch_name(BATCHES)).read_bytes()).split(b"\n")[0])
    rest = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
    header = last.model_copy(
        update={
            "batch": BATCHES + 1,
            "first_seq": 6,
            "last_seq": 6,
            "count": 1,
            "previous": digest_of(header_line(last)),
            "sha256": hashlib.sha256(rest).hexdigest(),
        }
    )
    (mirrored / batch_name(BATCHES + 1)).write_bytes(gzip.compress(header_line(header) + rest))
    restored = asyncio.run(restore(str(mirrored), tmp_path / "again"))
    assert restored.events == BATCHES - 1
    assert restored.lost is not None
    assert batch_name(BATCHES + 1) in restored.lost
    assert names(tmp_path / "again") == [f"event{n}" for n in range(1, BATCHES)]


bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
texts = st.text(st.characters(), max_size=40) | st.sampled_from(["", "shared", "\udcff", "y" * 5000])
batches = st.lists(
    st.tuples(
        st.integers(0, 40),
        st.sampled_from(list(EventKind)),
        st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
        st.integers(-1, 3),
        st.dictionaries(st.text(max_size=5), bodies, max_size=3),
        st.lists(texts, max_size=3),
    ),
    max_size=4,
)


@settings(max_examples=25)
@given(starts=st.lists(st.lists(batches, max_size=4), min_size=1, max_size=3), ack=st.sampled_from(["local", "mirror"]))
def test_whatever_is_appended_is_restored(starts: list[list[list[Any]]], ack: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder, url = make_run(Path(name) / "run"), f"{name}/mirror"
        for start in starts:
            journal = opened(folder, url, ack=ack)
            for batch in start:
                append(
                    journal,
                    [
                        Event(f"event{n}", kind, candidate, island, {**body, "n": n}, tuple(own))
                        for n, kind, candidate, island, body, own in batch
                    ],
                )
            close(journal)
        asyncio.run(restore(url, Path(name) / "again"))
        assert dump(Path(name) / "again") == dump(folder.path)


def dump(folder: Path) -> list[list[tuple[Any, ...]]]:
    """All that a journal's file holds."""
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as connection:
        queries = (
            "SELECT * FROM events ORDER BY seq",
            "SELECT rowid, * FROM texts ORDER BY rowid",
            "SELECT * FROM meta",
        )
        return [connection.execute(query).fetchall() for query in queries]


def test_the_command_makes_a_run_folder(mirrored: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    restore_command(str(mirrored), tmp_path / "it's here")
    said = capsys.readouterr().out
    assert "restored 5 events; go on with: adrs resume" in said
    assert shlex.split(said)[-1] == str(tmp_path / "it's here")
    assert len(names(tmp_path / "it's here")) == 5
    with pytest.raises(UsageError, match="not empty"):
        restore_command(str(mirrored), tmp_path / "it's here")
