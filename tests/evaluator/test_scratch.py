"""Emptying a scratch folder never follows a link, never recurses, and leaves nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adrs_ray.evaluator.scratch import Scratch, sweep_abandoned


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scratch:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return Scratch(None)


def test_it_is_emptied_whatever_lies_there(scratch: Scratch, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    os.symlink(outside, scratch.path / "link")
    (scratch.path / "folder").mkdir()
    os.symlink(outside, scratch.path / "folder" / "link")
    os.mkfifo(scratch.path / "pipe")
    (scratch.path / "closed").mkdir()
    (scratch.path / "closed" / "file").write_text("x")
    (scratch.path / "closed").chmod(0)
    home = os.getcwd()
    try:
        os.chdir(scratch.path)
        for _ in range(1500):  # far beyond the longest path and the recursion limit
            os.mkdir("deeper-and-deeper")
            os.chdir("deeper-and-deeper")
    finally:
        os.chdir(home)
    assert scratch.exceeds(10**9, [])
    scratch.empty()
    assert list(scratch.path.iterdir()) == []
    assert (outside / "kept").read_text() == "kept"
    scratch.remove()
    scratch.remove()
    assert not scratch.path.exists()


def test_size_counts_blocks_names_and_unlinked_files(scratch: Scratch) -> None:
    assert not scratch.exceeds(100_000, [os.getpid()])
    (scratch.path / "file").write_bytes(bytes(200_000))
    assert scratch.exceeds(100_000, [])
    with open(scratch.path / "file", "rb"):
        (scratch.path / "file").unlink()
        assert not scratch.exceeds(100_000, [])
        assert scratch.exceeds(100_000, [os.getpid()])
    for number in range(30):
        (scratch.path / str(number)).touch()
    assert scratch.exceeds(100_000, [])
    with open(scratch.path / "sparse", "wb") as file:
        file.truncate(10**9)
    scratch.empty()
    assert not scratch.exceeds(100_000, [])


def test_folders_of_killed_workers_are_swept_and_those_in_use_are_not(scratch: Scratch, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        (Scratch(None).path / "left").touch()
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.glob("adrs-scratch-*"))) == 2
    sweep_abandoned()
    assert list(tmp_path.glob("adrs-scratch-*")) == [scratch.path]
