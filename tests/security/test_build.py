"""Hostile programs in the build step, and against what was built, under every variant of the jail."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.evaluator import processes
from adrs_ray.evaluator.builds import BuildCache
from tests.evaluator.tiny_task import ADAPTER, SEED, write_task
from tests.security.ground import unavailable
from tests.security.variants import VARIANTS, Slot, interpreter_of, one_slot

BUILDS = ADAPTER + '\n\ndef build(program, folder):\n    getattr(program, "build", print)(folder)\n'
HEAD = "import os, socket, subprocess, time\n"
BOMB = """
def build(folder):
    while True:
        try:
            os.fork()
        except OSError:
            time.sleep(0.01)
"""
FLOOD = """
def build(folder):
    for number in range(40):
        with open(f"{folder}/{number}", "wb") as file:
            file.write(bytes(10**6))
        time.sleep(0.02)
"""


@contextmanager
def a_slot(variant: str, root: Path) -> Iterator[Slot]:
    limits = "build_timeout_s: 10, build_memory_mb: 512, build_processes: 4"
    task = write_task(root / "task", adapter=BUILDS, limits=limits)
    with one_slot(task, variant, interpreter_of(variant, root)) as slot:
        yield slot


@pytest.fixture(scope="module", params=VARIANTS)
def slot(request: pytest.FixtureRequest) -> Iterator[Slot]:
    reason = unavailable(request.param)
    if reason is not None:
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="adrs-hostile-build-")).resolve()
    root.chmod(0o755)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(BuildCache, "of_this_user", lambda: BuildCache(root / "builds"))
            with a_slot(request.param, root) as opened:
                yield opened
    finally:
        shutil.rmtree(root)


@pytest.fixture(autouse=True)
def leaves_nothing(slot: Slot) -> Iterator[None]:
    before = processes.descendants(os.getpid())
    yield
    assert processes.descendants(os.getpid()) == before
    honest = slot.judge(SEED)
    assert isinstance(honest, Evaluation), honest
    assert honest.score == 0.0


def survives(slot: Slot, body: str) -> None:
    """The build step does as told, and raises when something was let through that must not be."""
    lines = "".join(f"    {line}\n" for line in body.strip("\n").splitlines())
    verdict = slot.judge(f"{HEAD}def build(folder):\n{lines}{SEED}")
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_a_fork_bomb_in_the_build_is_capped_and_ended(slot: Slot) -> None:
    verdict = slot.judge(HEAD + BOMB + SEED)
    assert isinstance(verdict, Failure), verdict
    assert verdict.kind in (FailureKind.TIMEOUT, FailureKind.VIOLATION, FailureKind.REWARD_HACKING)
    assert verdict.detail.startswith("build: ")


def test_no_socket_in_the_build(slot: Slot) -> None:
    survives(
        slot,
        """
for kind in ((socket.AF_INET, socket.SOCK_STREAM), (socket.AF_UNIX, socket.SOCK_STREAM), (socket.AF_INET6, 2)):
    try:
        socket.socket(*kind)
    except OSError:
        continue
    raise RuntimeError("a socket was opened")
""",
    )


def test_a_process_that_the_build_leaves_does_not_see_the_cases(slot: Slot) -> None:
    survives(
        slot,
        """
if os.fork() == 0:
    os.close(3)
    time.sleep(600)
    os._exit(0)
""",
    )


def test_the_build_writes_in_its_own_scratch_alone(slot: Slot) -> None:
    task = slot.evaluator._task.folder
    outside, others = task.parent / "outside", task.parent / "builds"
    outside.mkdir(exist_ok=True)
    outside.chmod(0o777)
    survives(
        slot,
        f"""
for path in ({str(others)!r}, {str(outside)!r}, "/tmp", {str(task)!r}, os.path.dirname(os.getcwd())):
    try:
        open(path + "/note", "w").close()
    except OSError:
        continue
    raise RuntimeError(path + " was written to")
for path, read in (({str(task)!r} + "/judge.py", open), ("/etc/shadow", open), ({str(others)!r}, os.listdir)):
    try:
        read(path)
    except OSError:
        continue
    raise RuntimeError("what is not for it was read")
""",
    )
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("place", ["task", "secrets"])
def test_a_link_in_the_place_of_the_folder_brings_nothing_in(slot: Slot, place: str) -> None:
    folder = slot.evaluator._task.folder.parent / place
    folder.mkdir(exist_ok=True)
    (folder / "secret").write_text("s3cr3t")
    verdict = slot.judge(
        f"{HEAD}def build(folder):\n    os.rmdir(folder)\n    os.symlink({str(folder)!r}, folder)\n{SEED}"
    )
    assert isinstance(verdict, Failure), verdict
    assert verdict.kind == FailureKind.OUTPUT
    assert verdict.detail.startswith("build: the folder cannot be kept")


def test_processes_of_a_build_share_its_memory(slot: Slot) -> None:
    shares = """
def build(folder):
    for _ in range(3):
        if os.fork() == 0:
            break
    held = bytearray(200 * 2**20)
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(5)
"""
    verdict = slot.judge(HEAD + shares + SEED)
    assert isinstance(verdict, Failure), verdict
    told = "build: more than 512 MB of memory (limits.build_memory_mb)"
    assert (verdict.kind, verdict.detail) == (FailureKind.MEMORY, told)


POISONS = """
import os

def build(folder):
    with open(folder + "/value", "w") as file:
        file.write("0.0")
    os.mkdir(folder + "/inner")

def solve(x):
    folder = os.environ["ADRS_BUILD_DIR"]
    value = float(open(folder + "/value").read())
    attempts = [
        lambda: open(folder + "/value", "w").close(),
        lambda: open(folder + "/value", "r+b").close(),
        lambda: open(folder + "/new", "w").close(),
        lambda: open(folder + "/inner/new", "w").close(),
        lambda: os.unlink(folder + "/value"),
        lambda: os.truncate(folder + "/value", 0),
        lambda: os.rename(folder + "/value", folder + "/other"),
        lambda: os.mkdir(folder + "/more"),
        lambda: os.rmdir(folder + "/inner"),
        lambda: os.link(folder + "/value", "mine"),
        lambda: os.symlink("/etc/passwd", folder + "/link"),
        lambda: os.rename(folder, folder + "2"),
    ]
    through = 0
    for attempt in attempts:
        try:
            attempt()
            through += 1
        except OSError:
            pass
    return float(x.sum()) + value + through
"""


def test_what_was_built_cannot_be_changed_from_a_case(slot: Slot) -> None:
    for _ in range(2):
        verdict = slot.judge(POISONS)
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0


def test_a_case_may_not_do_what_a_build_may(slot: Slot) -> None:
    source = f"""{HEAD}
def build(folder):
    subprocess.run(["/bin/true"], check=True)

def solve(x):
    try:
        subprocess.run(["/bin/true"])
    except OSError:
        return float(x.sum())
    return 1e6
"""
    verdict = slot.judge(source)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_a_forged_answer_to_the_build_is_found_out(slot: Slot) -> None:
    forged = f"{HEAD}def build(folder):\n    os.write(3, bytes(40))\n{SEED}"
    verdict = slot.judge(forged)
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.detail[:20]) == (FailureKind.REWARD_HACKING, "build: forged result"[:20])


def test_a_flood_of_files_in_the_build_is_ended(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrs_ray.evaluator.building.BUILT_MB", 4)
    verdict = slot.judge(HEAD + FLOOD + SEED)
    assert isinstance(verdict, Failure), verdict
    assert (verdict.kind, verdict.detail) == (FailureKind.OUTPUT, "build: more than 4 MB of files written")
