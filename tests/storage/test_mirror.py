"""What a mirror holds, and how its writer behaves when the store does not."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage import excerpt, mirror_files
from adrs_ray.storage.journal import JournalRefusedError, text_ref
from adrs_ray.storage.mirror import absolute_url, mirror_best, mirror_state, open_files, open_mirrored, restore
from adrs_ray.storage.mirror_batch import batch_name
from adrs_ray.storage.mirror_files import one_line
from adrs_ray.storage.mounts import is_network_folder
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from tests.storage.stores import STORES, Store, append, close, content, make_run, numbered, opened, write

CANARY = "canary-3f9c1d"


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_files, "PAUSE_S", 0.01)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return make_run(tmp_path / "run")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return STORES[tmp_path.name]


@pytest.fixture
def url(tmp_path: Path, store: Store) -> str:
    return f"moody://{tmp_path.name}/runs/night"


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread does."""
    give_up = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def restored(url: str, folder: Path) -> tuple[Any, Any]:
    asyncio.run(restore(url, folder))
    return content(folder)


def test_without_a_url_the_journal_is_its_own(folder: RunFolder) -> None:
    journal = SqliteJournal.open(folder.journal)
    assert asyncio.run(open_mirrored(journal, MirrorConfig(), folder.run_yaml)) is journal
    close(journal)


def test_a_batch_is_a_header_and_lines_as_the_design_says(folder: RunFolder, tmp_path: Path) -> None:
    write(folder, str(tmp_path / "mirror"), [numbered(1, "a text"), numbered(2, "a text", "é\n")], ack="mirror")
    assert (tmp_path / "mirror" / "run.yaml").read_bytes() == folder.run_yaml.read_bytes()
    names = sorted(os.listdir(tmp_path / "mirror"))
    assert names == ["000001.jsonl.gz", "000002.jsonl.gz", "000003.jsonl.gz", "run.yaml"]
    headers, lines = [], []
    for name in names[:-1]:
        first, rest = gzip.decompress((tmp_path / "mirror" / name).read_bytes()).split(b"\n", 1)
        headers.append(json.loads(first))
        assert headers[-1]["sha256"] == hashlib.sha256(rest).hexdigest()
        lines += [json.loads(line) for line in rest.splitlines()]
    assert [(h["epoch"], h["first_seq"], h["last_seq"], h["count"]) for h in headers] == [
        (1, 1, 0, 0),
        (1, 1, 1, 1),
        (1, 2, 2, 1),
    ]
    events, _ = content(folder.path)
    assert lines[0] == {"text": 1, "is": "a text"}
    assert lines[2] == {"text": 2, "is": "é\n"}
    for line, event in zip((lines[1], lines[3]), events, strict=True):
        assert line == {
            key: getattr(event, key) for key in ("seq", "id", "kind", "candidate", "island", "epoch", "at", "body")
        }


def test_each_text_is_there_once_over_all_starts(folder: RunFolder, tmp_path: Path) -> None:
    url = str(tmp_path / "mirror")
    for start in range(3):
        write(folder, url, [numbered(f"{start}.{n}", "shared", f"own {start}.{n}") for n in range(3)])
    files = [gzip.decompress(path.read_bytes()).decode() for path in (tmp_path / "mirror").glob("*.gz")]
    assert sum(text.count('"is":"shared"') for text in files) == 1
    assert sum(text.count('"is":') for text in files) == 10
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_what_the_journal_had_before_is_uploaded(folder: RunFolder, url: str, tmp_path: Path) -> None:
    journal = SqliteJournal.open(folder.journal)
    for n in range(20):
        append(journal, [numbered(n, f"text {n}")])
    close(journal)
    close(opened(folder, url, lag_s=3600.0))
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_with_ack_mirror_the_journals_past_is_there_when_it_opens(folder: RunFolder, url: str) -> None:
    journal = SqliteJournal.open(folder.journal)
    append(journal, [numbered(n) for n in range(20)])
    close(journal)
    mirrored = opened(folder, url, ack="mirror")
    state = mirror_state(url)
    assert state is not None
    assert (state.last_seq, state.epoch, state.run) == (20, 2, "run")
    close(mirrored)


def test_a_backlog_is_uploaded_in_pieces(
    folder: RunFolder, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "MAX_PACKED", 30_000)
    monkeypatch.setattr(excerpt, "_BLOCK", 7)
    journal = SqliteJournal.open(folder.journal)
    append(journal, [numbered(n, os.urandom(900).hex(), "shared") for n in range(400)])
    close(journal)
    close(opened(folder, url))
    sizes = [len(data) for name, data in STORES[tmp_path.name].files.items() if name.endswith(".gz")]
    assert len(sizes) > 6
    assert max(sizes) < 100_000
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_what_packs_well_does_not_make_large_batches(
    folder: RunFolder, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(excerpt, "MAX_LINES", 100_000)
    journal = SqliteJournal.open(folder.journal)
    append(journal, [numbered(n, f"{n}" + "a" * 60_000) for n in range(10)])
    close(journal)
    close(opened(folder, url))
    files = [data for name, data in STORES[tmp_path.name].files.items() if name.endswith(".gz")]
    assert max(len(gzip.decompress(data)) for data in files) < 200_000
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_with_ack_local_appends_go_on_while_the_store_is_away(
    folder: RunFolder, url: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal: Any = opened(folder, url)
    assert journal.lag().events == 0
    store.down = True
    with caplog.at_level(logging.WARNING):
        append(journal, [numbered(0)])
        until(lambda: journal.lag().error is not None)
        append(journal, [numbered(n, f"{n}") for n in range(1, 50)])
        lag = journal.lag()
        assert lag.events == 50
        assert lag.seconds > 0
        assert lag.error == "OSError: the store is away"
        store.down = False
        until(lambda: journal.lag().events == 0)
        until(lambda: journal.lag().error is None)
    assert journal.lag().seconds == 0.0
    assert len([message for message in caplog.messages if "until it is back" in message]) == 1
    assert len([message for message in caplog.messages if message.endswith("is back")]) == 1
    close(journal)
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_with_ack_mirror_nothing_is_acknowledged_before_it_is_there(folder: RunFolder, url: str, store: Store) -> None:
    journal = opened(folder, url, ack="mirror")

    async def while_away() -> None:
        store.down = True
        waiting = [asyncio.create_task(journal.append([numbered(n)], journal.epoch)) for n in range(5)]
        while len(await journal.read()) < 5:
            await asyncio.sleep(0.01)
        done, _ = await asyncio.wait(waiting, timeout=0.3)
        assert not done
        store.down = False
        await asyncio.gather(*waiting)
        state = await asyncio.to_thread(mirror_state, url)
        assert state is not None
        assert state.last_seq == 5

    asyncio.run(while_away())
    close(journal)


def test_who_adopts_an_event_waits_for_it_too(folder: RunFolder, url: str, store: Store) -> None:
    journal = opened(folder, url, ack="mirror")

    async def race() -> None:
        store.down = True
        first = asyncio.create_task(journal.append([numbered(1)], journal.epoch))
        while not await journal.read():
            await asyncio.sleep(0.01)
        second = asyncio.create_task(journal.append([numbered(1)], journal.epoch))
        done, _ = await asyncio.wait([first, second], timeout=0.3)
        assert not done
        store.down = False
        assert await first == await second

    asyncio.run(race())
    close(journal)


def test_what_arrives_during_an_upload_is_one_batch(folder: RunFolder, url: str, store: Store) -> None:
    journal = opened(folder, url, ack="mirror")

    async def burst() -> None:
        held = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hold(_: str) -> None:
            loop.call_soon_threadsafe(held.set)
            time.sleep(0.5)

        store.before_write = hold
        first = asyncio.create_task(journal.append([numbered(0)], journal.epoch))
        await held.wait()
        await asyncio.gather(first, *(journal.append([numbered(n)], journal.epoch) for n in range(1, 200)))

    before = store.writes
    asyncio.run(burst())
    assert store.writes - before < 20
    close(journal)


def test_closing_says_what_is_missing_and_the_next_start_makes_up_for_it(
    folder: RunFolder, url: str, store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = SqliteJournal.open(folder.journal)
    config = MirrorConfig(url=url)
    mirrored = asyncio.run(open_mirrored(journal, config, folder.run_yaml, close_wait_s=0.3))
    append(mirrored, [numbered(1)])
    store.down = True
    append(mirrored, [numbered(2), numbered(3)])
    with caplog.at_level(logging.WARNING):
        close(mirrored)
        close(mirrored)
    (said,) = [message for message in caplog.messages if "lacks" in message]
    assert "lacks the last 3 events" in said
    assert "the store is away" in said
    store.down = False
    close(opened(folder, url))
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_who_waits_for_the_mirror_is_refused_when_it_closes_without(folder: RunFolder, url: str, store: Store) -> None:
    journal = SqliteJournal.open(folder.journal)
    mirrored = asyncio.run(open_mirrored(journal, MirrorConfig(url=url, ack="mirror"), None, close_wait_s=0.3))

    async def close_behind() -> None:
        store.down = True
        waiting = asyncio.create_task(mirrored.append([numbered(1)], mirrored.epoch))
        while not await mirrored.read():
            await asyncio.sleep(0.01)
        await mirrored.close()
        with pytest.raises(JournalRefusedError, match="lacks the last 1 events"):
            await waiting

    asyncio.run(close_behind())


@pytest.mark.parametrize("mood", ["lost_replies", "halves"])
def test_an_upload_that_failed_half_way_is_made_whole(
    mood: str, folder: RunFolder, url: str, store: Store, tmp_path: Path
) -> None:
    journal = opened(folder, url, ack="mirror")
    for n in range(6):
        setattr(store, mood, n % 3)
        append(journal, [numbered(n, f"text {n}")])
    close(journal)
    assert sorted(store.files)[-2].endswith(batch_name(7))
    assert restored(url, tmp_path / "again") == content(folder.path)


@pytest.mark.parametrize("mood", [{"conditional": False}, {"knows_mode": False}, {"unlisted": 3}])
def test_stores_that_can_do_less_serve_too(
    mood: dict[str, Any], folder: RunFolder, url: str, store: Store, tmp_path: Path
) -> None:
    for name, value in mood.items():
        setattr(store, name, value)
    for start in range(3):
        write(folder, url, [numbered(f"{start}.{n}", f"{n}") for n in range(4)], ack="mirror")
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_a_store_that_refuses_what_is_there_is_not_asked_again_after_each_batch(
    folder: RunFolder, url: str, store: Store
) -> None:
    journal = opened(folder, url, ack="mirror")
    before = store.reads
    for n in range(5):
        append(journal, [numbered(n)])
    assert store.reads == before
    close(journal)


def test_a_store_that_is_away_at_the_start_is_one_line(folder: RunFolder, url: str, store: Store) -> None:
    store.down = True
    for attempt in (lambda: opened(folder, url), lambda: mirror_state(url)):
        with pytest.raises(RunError, match="the store is away") as refused:
            attempt()
        assert url in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_mirror_that_is_a_file_is_one_line(folder: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="Not a directory") as refused:
        opened(folder, str(tmp_path / "file"))
    assert "\n" not in str(refused.value)


def test_another_runs_mirror_is_refused_and_left_alone(
    folder: RunFolder, url: str, store: Store, tmp_path: Path
) -> None:
    write(folder, url, [numbered(1)])
    before = dict(store.files)
    other = make_run(tmp_path / "other")
    with pytest.raises(UsageError, match=r"another run \(run, made .*mirror\.url of its own"):
        opened(other, url)
    for events in ([], [numbered(1)], [numbered(2), numbered(3)]):
        # Without run.yaml the events alone tell.
        path = tmp_path / f"{len(events)}.db"
        journal = SqliteJournal.open(path)
        append(journal, events)
        with pytest.raises(UsageError, match="adrs restore"):
            asyncio.run(open_mirrored(journal, MirrorConfig(url=url), None))
        close(journal)
    assert store.files == before


def test_a_journal_that_is_behind_its_mirror_is_refused(folder: RunFolder, url: str, tmp_path: Path) -> None:
    write(folder, url, [numbered(1)])
    asyncio.run(restore(url, tmp_path / "copy"))
    write(folder, url, [numbered(2)])
    with pytest.raises(UsageError, match=r"holds 2 events and this journal 1: .*adrs restore"):
        opened(RunFolder.open(tmp_path / "copy"), url)


def test_the_best_program_is_copied_and_restored(folder: RunFolder, url: str, tmp_path: Path) -> None:
    config = MirrorConfig(url=url)
    asyncio.run(mirror_best(config, folder))
    folder.write_best("x = 'é'\n", {"score": 2.0})
    asyncio.run(mirror_best(MirrorConfig(), folder))
    asyncio.run(mirror_best(config, folder))
    files = open_files(url)
    assert files.read("best/program.py") == folder.best_program.read_bytes()
    write(folder, url, [numbered(1)])
    asyncio.run(restore(url, tmp_path / "again"))
    again = RunFolder.open(tmp_path / "again")
    assert again.best_program.read_text() == "x = 'é'\n"
    assert json.loads(again.best_verdict.read_text()) == {"score": 2.0}


def test_a_best_program_that_cannot_be_copied_is_a_warning(
    folder: RunFolder, url: str, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("adrs_ray.storage.mirror.CLOSE_WAIT_S", 0.0)
    folder.write_best("x = 1\n", {})
    store.down = True
    asyncio.run(mirror_best(MirrorConfig(url=url), folder))
    assert "the store is away" in caplog.text


@pytest.mark.parametrize(
    "given",
    [
        f"s3://AKIA123:{CANARY}@bucket/run",
        f"https://host/run?token={CANARY}",
        f"memory://run#{CANARY}",
        f"ftp://[{CANARY}/run",
        f"simplecache::s3://u:{CANARY}@bucket/run",
    ],
)
def test_urls_with_credentials_are_refused_without_repeating_them(given: str, folder: RunFolder) -> None:
    for attempt in (lambda: opened(folder, given), lambda: mirror_state(given)):
        with pytest.raises(UsageError, match=r"mirror\.url") as refused:
            attempt()
        assert CANARY not in str(refused.value)


@pytest.mark.parametrize("given", ["", " ", "nosuch://x/y", "simplecache::memory://x", "a\0b"])
def test_urls_that_nothing_can_open_are_one_line(given: str, folder: RunFolder) -> None:
    with pytest.raises(UsageError, match="mirror") as refused:
        opened(folder, given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "said",
    [
        f"cannot reach https://user:{CANARY}@host/bucket",
        f"403 for https://host/bucket/000001.jsonl.gz?X-Amz-Signature={CANARY}&x=1",
        f"bad credentials: secret_key='{CANARY}' region=x",
        f"refused\nAuthorization: Bearer {CANARY}\n",
        f'{{"access_token": "{CANARY}"}}',
        "the key is from-the-environment-77",
    ],
)
def test_what_stores_say_is_told_without_credentials(
    said: str,
    folder: RunFolder,
    url: str,
    store: Store,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_STORE_SECRET_KEY", "from-the-environment-77")
    journal: Any = opened(folder, url)
    store.says = said
    store.down = True
    with caplog.at_level(logging.DEBUG):
        append(journal, [numbered(1)])
        until(lambda: journal.lag().error is not None)
    told = journal.lag().error + "".join(caplog.messages) + caplog.text
    assert "OSError" in told
    for secret in (CANARY, "from-the-environment-77"):
        assert secret not in told
    with pytest.raises(RunError) as refused:
        mirror_state(url)
    assert CANARY not in str(refused.value)
    store.down = False
    close(journal)


def test_what_stores_say_is_one_line_of_bounded_length() -> None:
    assert one_line(ValueError("a\n\n  b")) == "ValueError: a b"
    for said in ("x" * 100_000, "?" * 100_000, "key=" * 25_000, "a://" * 25_000, "sig-" * 25_000, "x@" * 50_000):
        assert len(one_line(ValueError(said))) <= 300


def test_texts_that_no_body_names_are_mirrored_too(folder: RunFolder, url: str, tmp_path: Path) -> None:
    write(folder, url, [replace(numbered(1), texts=("odd", "\udcff")), numbered(2, "named")])
    asyncio.run(restore(url, tmp_path / "again"))
    journal = SqliteJournal.open(tmp_path / "again" / "journal.db")
    refs = [text_ref(text) for text in ("odd", "\udcff", "named")]
    assert list(asyncio.run(journal.texts(refs)).values()) == ["odd", "\udcff", "named"]
    close(journal)


def test_a_change_of_config_reaches_the_mirror_at_the_next_start(folder: RunFolder, url: str, tmp_path: Path) -> None:
    write(folder, url, [numbered(1)])
    changed = folder.rewrite(RunConfig(seed=77), local=True)
    write(changed, url, [numbered(2)])
    asyncio.run(restore(url, tmp_path / "again"))
    assert RunFolder.open(tmp_path / "again").config.seed == 77


def test_a_head_that_dies_before_its_first_batch_leaves_no_mirror(
    folder: RunFolder, url: str, store: Store, tmp_path: Path
) -> None:
    def die(path: str) -> None:
        store.down = not path.endswith("run.yaml")
        store.before_write = die

    store.before_write = die
    with pytest.raises(RunError):
        opened(folder, url)
    store.down, store.before_write = False, None
    assert sorted(store.files) == [f"{tmp_path.name}/runs/night/run.yaml"]
    assert mirror_state(url) is None
    write(folder, url, [numbered(1)])
    assert restored(url, tmp_path / "again") == content(folder.path)


def test_a_relative_path_is_the_same_place_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute_url("runs/x") == str(tmp_path / "runs" / "x")
    assert absolute_url("s3://bucket/x") == "s3://bucket/x"
    with pytest.raises(UsageError, match="password"):
        absolute_url("s3://a:b@bucket/x")


def test_a_folder_on_a_network_is_recognised_before_it_is_made(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path}/far nfs4 rw 0 0\n")
    assert is_network_folder(tmp_path / "far" / "runs" / "new", mounts)
    assert not is_network_folder(tmp_path / "near", mounts)
    assert not is_network_folder(tmp_path / "far", tmp_path / "missing")
