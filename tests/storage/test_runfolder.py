"""The folder of a run: made once, read back exactly, changed atomically."""

from __future__ import annotations

import json
import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from adrs_ray import __version__
from adrs_ray.config import RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.storage.journal import JournalRefusedError
from adrs_ray.storage.runfolder import RunFolder, post_command, write_atomically


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "my run", RunConfig(), "txn", local=True)


def test_a_run_is_read_back_as_it_was_made(tmp_path: Path) -> None:
    config = override(RunConfig(), {"islands.count": 7, "budget.target_score": 1e-3, "seed": 2**62})
    made = RunFolder.create(tmp_path / "run", config, "/a task/ü: #1", local=False, name="night: 3")
    opened = RunFolder.open(tmp_path / "run")
    assert opened.config == config
    assert opened.reference == made.reference
    assert (opened.task, opened.local, opened.reference.name) == ("/a task/ü: #1", False, "night: 3")
    assert opened.reference.version == __version__
    assert opened.path.is_absolute()
    assert opened.journal == tmp_path / "run" / "journal.db"


def test_a_relative_folder_becomes_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = RunFolder.create(Path("runs/x"), RunConfig(), "txn", local=True)
    assert made.path == tmp_path / "runs" / "x"
    assert made.reference.name == "x"


def test_a_second_run_in_one_folder_is_refused(folder: RunFolder) -> None:
    before = folder.run_yaml.read_bytes()
    with pytest.raises(UsageError, match="adrs resume") as refused:
        RunFolder.create(folder.path, RunConfig(seed=5), "other", local=True)
    assert "\n" not in str(refused.value)
    assert folder.run_yaml.read_bytes() == before


def test_a_folder_with_other_things_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        RunFolder.create(tmp_path, RunConfig(), "txn", local=True)
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_a_folder_named_like_ours_with_things_inside_is_foreign(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    (tmp_path / "best" / "photo.jpg").touch()
    with pytest.raises(UsageError, match="best"):
        RunFolder.create(tmp_path, RunConfig(), "txn", local=True)


def test_what_an_interrupted_creation_left_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "commands").mkdir()
    (tmp_path / ".run.yaml.x1y2").write_text("half")
    RunFolder.create(tmp_path, RunConfig(), "txn", local=True)
    assert RunFolder.open(tmp_path).task == "txn"


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot make a run") as refused:
        RunFolder.create(tmp_path / "file" / "run", RunConfig(), "txn", local=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed: 1\n", "section `run` is missing"),
        ("", "section `run` is missing"),
        ("run: {task: t, name: n, local: true, created: c}\n", "version"),
        ("run: {task: t, name: n, local: true, created: c, version: v, extra: 1}\n", "extra"),
        ("run: {task: t, name: n, local: true, created: c, version: v}\nsede: 1\n", "sede"),
        ("run: [\n", "cannot read"),
    ],
)
def test_a_run_yaml_that_does_not_hold_is_one_line(text: str, said: str, folder: RunFolder) -> None:
    folder.run_yaml.write_text(text)
    with pytest.raises(UsageError, match=said) as refused:
        RunFolder.open(folder.path)
    assert str(folder.run_yaml) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="no run"):
            RunFolder.open(path)


def test_rewriting_changes_the_config_and_keeps_the_rest(folder: RunFolder) -> None:
    config = override(folder.config, {"budget.max_candidates": 999})
    changed = folder.rewrite(config, local=False)
    opened = RunFolder.open(folder.path)
    assert opened.config == changed.config == config
    assert not opened.local
    assert opened.reference.created == folder.reference.created


def test_the_best_program_is_replaced_whole(folder: RunFolder) -> None:
    folder.write_best("x = 1\n", {"score": 1.0})
    folder.write_best("x = 'é'\n", {"score": 2.0})
    assert folder.best_program.read_text(encoding="utf-8") == "x = 'é'\n"
    assert json.loads(folder.best_verdict.read_text()) == {"score": 2.0}
    assert sorted(os.listdir(folder.best_program.parent)) == ["program.py", "verdict.json"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = {"a" * 200_000, "b" * 100_000}
    write_atomically(path, min(texts))
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            for text in sorted(texts):
                write_atomically(path, text)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        seen = {path.read_text() for _ in range(200)}
    finally:
        stop.set()
        writer.join()
    assert seen <= texts
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_best_program_that_cannot_be_written_is_one_line(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(JournalRefusedError, match="No space left"):
        folder.write_best("x = 1\n", {})


def test_written_files_can_be_read_by_others(folder: RunFolder) -> None:
    assert stat.S_IMODE(folder.run_yaml.stat().st_mode) == 0o644


def test_commands_come_once_in_order(folder: RunFolder) -> None:
    ids = [post_command(folder, "steer", {"n": n, "text": "é"}) for n in range(5)]
    pending = folder.pending_commands(set())
    assert [command.id for command in pending] == ids
    assert [command.body["n"] for command in pending] == list(range(5))
    assert pending[0].kind == "steer"
    assert [command.id for command in folder.pending_commands(set(ids[:3]))] == ids[3:]
    assert folder.pending_commands(ids) == []


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"kind": 1, "body": {}}', '{"kind": "stop"}', "\udcff", '{"kind": "x", "body": {"n": NaN}}'],
)
def test_a_file_that_is_no_command_is_reported_once_and_set_aside(
    text: str, folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    good = post_command(folder, "stop", {})
    (folder.commands / "0bad.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert [command.id for command in folder.pending_commands(set())] == [good]
    assert len(caplog.messages) == 1
    assert "0bad.json is no command" in caplog.messages[0]
    assert "\n" not in caplog.messages[0]
    assert (folder.commands / "0bad.json.bad").exists()


def test_other_files_among_the_commands_are_left_alone(folder: RunFolder) -> None:
    (folder.commands / ".x.json.tmp").write_text("half")
    (folder.commands / "note.txt").write_text("mine")
    assert folder.pending_commands(set()) == []
    assert sorted(os.listdir(folder.commands)) == [".x.json.tmp", "note.txt"]
