"""A scratch folder is counted whatever goes on in it; renewing it follows no link and leaves nothing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adrs_ray.evaluator import scratch as scratch_module
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
    scratch.renew()
    assert list(scratch.path.iterdir()) == []
    assert (outside / "kept").read_text() == "kept"
    scratch.remove()
    scratch.remove()
    assert not scratch.home.exists()


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
    scratch.renew()
    assert not scratch.exceeds(100_000, [])


def test_folders_of_killed_workers_are_swept_and_those_in_use_are_not(scratch: Scratch, tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        (Scratch(None).path / "left").touch()
        os._exit(0)
    os.waitpid(pid, 0)
    assert len(list(tmp_path.glob("adrs-scratch-*"))) == 2
    sweep_abandoned()
    assert list(tmp_path.glob("adrs-scratch-*")) == [scratch.home]


def test_a_new_folder_keeps_nothing_of_the_one_before(scratch: Scratch) -> None:
    """The size of a folder that once held many names stays with it, and so did its flags and its generation."""
    fresh = scratch.path.stat()
    for number in range(500):
        (scratch.path / f"{'n' * 200}{number}").touch()
    held = os.open(scratch.path, os.O_RDONLY)
    try:
        scratch.renew()
        renewed = scratch.path.stat()
        assert renewed.st_size == fresh.st_size
        assert not os.path.samestat(renewed, os.fstat(held))
    finally:
        os.close(held)


def test_entries_that_vanish_while_counting_hide_nothing_else(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    (scratch.path / "gone").touch()
    (scratch.path / "large").write_bytes(bytes(200_000))
    listed = scratch_module._entries

    def vanishing(folder: int) -> list[os.DirEntry[str]]:
        entries = sorted(listed(folder), key=lambda entry: entry.name)
        (scratch.path / "gone").unlink(missing_ok=True)
        return entries

    monkeypatch.setattr(scratch_module, "_entries", vanishing)
    assert scratch.exceeds(100_000, [])
    assert not scratch.exceeds(400_000, [])


def test_folders_that_are_renamed_while_counting_are_counted_once(
    scratch: Scratch, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = scratch.path / "a" / "a"
    inner.mkdir(parents=True)
    (inner / "large").write_bytes(bytes(200_000))
    listed = scratch_module._entries
    looks = 0

    def renaming(folder: int) -> list[os.DirEntry[str]]:
        nonlocal looks
        entries = listed(folder)
        looks += 1
        if looks % 3:  # both levels get new names right after they were listed
            for path in (*scratch.path.glob("*/?"), *scratch.path.glob("?")):
                path.rename(path.with_name("b" if path.name == "a" else "a"))
        return entries

    monkeypatch.setattr(scratch_module, "_entries", renaming)
    assert scratch.exceeds(200_000, [])
    assert not scratch.exceeds(250_000, [])


def test_a_thread_with_descriptors_of_its_own_hides_no_file(scratch: Scratch) -> None:
    """Its main thread has ended, so /proc/PID/fd is empty, while another thread still holds the file."""
    script = f"""
import ctypes, os, threading, time
file = open({str(scratch.path / "file")!r}, "wb")
file.write(bytes(200_000))
file.flush()
os.unlink(file.name)
threading.Thread(target=lambda: (time.sleep(0.1), os.write(1, b"ready"), time.sleep(60))).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    holder = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    try:
        assert holder.stdout.read(5) == b"ready"
        assert scratch.exceeds(100_000, [holder.pid])
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
