"""The build step: what is compiled off the clock is there in the cases, and in no case can it be changed."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator.builds import BuildCache
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.forkserver import _fingerprint
from adrs_ray.task import Task
from tests.evaluator.tiny_task import ADAPTER, SEED, write_task
from tests.security.variants import Slot, one_slot

BUILDS = ADAPTER + '\n\ndef build(program, folder):\n    getattr(program, "build", print)(folder)\n'
LIMITS = "build_timeout_s: 60, build_memory_mb: 1024, build_processes: 8"
COMPILES = """
import ctypes, os, subprocess

def build(folder):
    assert folder == os.environ["ADRS_BUILD_DIR"]
    assert os.environ["TRITON_CACHE_DIR"] == folder + "/triton"
    with open(folder + "/kernel.c", "w") as file:
        file.write("double twice(double x) { return 2 * x; }")
    command = ["gcc", "-O2", "-shared", "-fPIC", "-o", folder + "/kernel.so", folder + "/kernel.c"]
    subprocess.run(command, check=True)

def solve(x):
    library = ctypes.CDLL(os.environ["ADRS_BUILD_DIR"] + "/kernel.so")
    library.twice.restype = ctypes.c_double
    library.twice.argtypes = [ctypes.c_double]
    return library.twice(float(x.sum()) / 2)
"""


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own for each test, where an ordinary user can read it."""
    folder = Path(tempfile.mkdtemp(prefix="adrs-build-test-")).resolve()
    folder.chmod(0o711)
    monkeypatch.setattr(BuildCache, "of_this_user", lambda: BuildCache(folder))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return write_task(tmp_path / "task", adapter=BUILDS, limits=LIMITS)


@pytest.fixture
def slot(task: Task) -> Iterator[Slot]:
    with one_slot(task) as opened:
        yield opened


def score(verdict: object) -> float:
    assert isinstance(verdict, Evaluation), verdict
    return verdict.score


def failure(verdict: object) -> tuple[FailureKind, str]:
    assert isinstance(verdict, Failure), verdict
    return verdict.kind, verdict.detail


@pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc")
def test_a_compiled_library_is_there_in_every_case_and_is_built_once(slot: Slot, cache: Path) -> None:
    first = slot.judge(COMPILES)
    assert score(first) == 0.0
    (entry,) = cache.iterdir()
    built = (entry / "kernel.so").stat()
    assert score(slot.judge(SEED)) == 0.0
    again = slot.judge(COMPILES)
    assert score(again) == 0.0
    assert (entry / "kernel.so").stat().st_mtime_ns == built.st_mtime_ns
    assert built.st_mode & 0o022 == 0
    assert isinstance(first, Evaluation)
    assert max(case.cpu_s for case in first.cases) < 0.2


def test_the_build_is_not_on_the_clock_of_cases(slot: Slot) -> None:
    slow = "import time\ndef build(folder):\n    time.sleep(5)\n" + SEED
    verdict = slot.judge(slow)
    assert score(verdict) == 0.0
    assert isinstance(verdict, Evaluation)
    assert max(case.wall_s for case in verdict.cases) < 4.0


def test_what_a_build_leaves_is_the_programs_own(slot: Slot) -> None:
    leaves = "def build(folder):\n    open(folder + '/mine', 'w').close()\n" + SEED
    assert score(slot.judge(leaves)) == 0.0
    looks = "import os\ndef solve(x):\n    return float(x.sum()) + len(os.listdir(os.environ['ADRS_BUILD_DIR']))\n"
    assert score(slot.judge(looks)) == 0.0


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("raise ValueError('no such option')", FailureKind.CRASH, "build: ValueError: no such option (line 3)"),
        ("os._exit(1)", FailureKind.CRASH, "build: the process exited with code 1"),
        ("bytearray(3 * 2**30)", FailureKind.MEMORY, "build: MemoryError"),
        ("os.mkfifo(folder + '/a'); open(folder + '/a')", FailureKind.TIMEOUT, "build: no result within 3 s"),
        ("[os.makedirs(folder + '/' + '/'.join('d' * 40))]", FailureKind.OUTPUT, "build: its folders are more than 32"),
    ],
)
def test_a_program_that_fails_to_build_says_so(tmp_path: Path, body: str, kind: FailureKind, says: str) -> None:
    task = write_task(tmp_path, adapter=BUILDS, limits=LIMITS.replace("60", "3"))
    with one_slot(task) as slot:
        found = failure(slot.judge(f"import os\ndef build(folder):\n    {body}\n{SEED}"))
        assert found[0] == kind
        assert found[1].startswith(says)
        assert score(slot.judge(SEED)) == 0.0


def test_what_compilers_say_of_a_failure_is_told(slot: Slot) -> None:
    source = "import sys\ndef build(folder):\n    print('error: no such type', file=sys.stderr)\n    raise ValueError\n"
    verdict = slot.judge(source + SEED)
    assert failure(verdict)[0] == FailureKind.CRASH
    assert verdict.artifacts["stderr"] == "error: no such type\n"


def test_the_folder_tells_nothing_of_the_program_before(slot: Slot) -> None:
    many = (
        "def build(folder):\n    for n in range(500):\n        open(folder + '/' + 200 * 'n' + str(n), 'w').close()\n"
    )
    looks = """
import os
def solve(x):
    folder = os.environ["ADRS_BUILD_DIR"]
    print([os.stat(path).st_size for path in (folder, os.path.dirname(folder))], os.listdir(os.path.dirname(folder)))
    return float(x.sum())
"""
    first = slot.judge(looks)
    assert score(slot.judge(many + SEED)) == 0.0
    again = slot.judge(looks)
    assert first.artifacts["stdout"] == again.artifacts["stdout"] != ""


def test_what_else_a_build_depends_on_is_part_of_its_key(tmp_path: Path) -> None:
    (tmp_path / "shims").mkdir()
    adapter = ModuleType("adapter")
    usual = {"strict": True, "devices": "", "entry": ["solve"], "shims": str(tmp_path / "shims")}
    keys = [_fingerprint(usual, adapter)]
    assert _fingerprint(usual, adapter) == keys[0]
    keys += [_fingerprint({**usual, **other}, adapter) for other in ({"strict": False}, {"devices": "1"})]
    (tmp_path / "shims/simulator.py").write_text("SPEED = 1")
    keys.append(_fingerprint(usual, adapter))
    assert len(set(keys)) == 4


def test_a_program_that_does_not_compile_fails_in_its_build(slot: Slot) -> None:
    kind, detail = failure(slot.judge("def solve(x:\n"))
    assert kind == FailureKind.SYNTAX
    assert detail.startswith("build: line 1")


def test_links_and_special_files_are_left_out(slot: Slot) -> None:
    source = """
import os
def build(folder):
    os.symlink("/etc/passwd", folder + "/link")
    os.mkfifo(folder + "/pipe")
    os.mkdir(folder + "/inner")
    with open(folder + "/inner/file", "w") as file:
        file.write("kept")

def solve(x):
    folder = os.environ["ADRS_BUILD_DIR"]
    assert os.listdir(folder) == ["inner"]
    assert open(folder + "/inner/file").read() == "kept"
    return float(x.sum())
"""
    assert score(slot.judge(source)) == 0.0


def test_numba_finds_in_the_cases_what_it_compiled_in_the_build(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    source = """
import os
import numba
import numpy as np

@numba.njit(cache=True)
def total(x):
    result = 0.0
    for value in x:
        result += value
    return result

@numba.njit(cache=True)
def unseen(x):
    return x + 1

def build(folder):
    total(np.zeros(3))
    assert sum(total.stats.cache_misses.values()) == 1

def solve(x):
    result = float(total(x))
    assert sum(total.stats.cache_hits.values()) == 1 and not total.stats.cache_misses, total.stats
    assert unseen(1) == 2
    return result
"""
    limits = LIMITS.replace("60", "120")
    task = write_task(tmp_path, adapter=BUILDS, limits=limits, extra="preload: [numba]", timeout_s=30)
    with one_slot(task) as slot:
        assert score(slot.judge(source)) == 0.0


def test_spares_find_what_was_built_after_they_were_jailed(tmp_path: Path) -> None:
    task = write_task(tmp_path, adapter=BUILDS, limits=LIMITS, extra="spares: 2")
    source = """
import os
def build(folder):
    with open(folder + "/offset", "w") as file:
        file.write("0.5")

def solve(x):
    return float(x.sum()) + float(open(os.environ["ADRS_BUILD_DIR"] + "/offset").read())
"""
    with one_slot(task) as slot:
        assert score(slot.judge(source, "validation")) == -0.5
        assert score(slot.judge(SEED)) == 0.0
        assert score(slot.judge(source, "validation")) == -0.5


def test_a_task_that_builds_needs_an_adapter_that_does(tmp_path: Path) -> None:
    task = write_task(tmp_path, limits=LIMITS)
    with pytest.raises(UsageError, match=r"build\(program, folder\)"):
        evaluate_once(task, task.seed_source, "train", EvaluatorConfig(slots=1))
