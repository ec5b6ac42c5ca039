"""LocalEvaluator: the contract, and what happens when processes of ours are killed."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, processes
from adrs_ray.evaluator.doctor import evaluate_once, jail_report
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Task
from tests.evaluator.evaluator_contract import EvaluatorContract, MakeEvaluator
from tests.evaluator.tiny_task import JUDGE, SEED, write_task

SLEEPER = "import time\ndef solve(x):\n    time.sleep(1.0)\n    return float(x.sum())\n"


class TestLocalEvaluator(EvaluatorContract):
    @pytest.fixture
    def make(self) -> MakeEvaluator:
        return LocalEvaluator


def wait_for(condition: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.02)


def fork_servers() -> list[int]:
    """Those of this process, whatever other children a test run may have."""
    found = []
    for pid in processes.descendants(os.getpid()):
        try:
            if b"bootstrap.py\0serve" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue  # it ended while we looked
    return found


def children_of_a_fork_server() -> list[int]:
    """Forked children have the command line of their fork server."""
    servers = fork_servers()
    return [pid for server in servers for pid in processes.descendants(server) if pid in servers]


async def during(evaluator: LocalEvaluator, source: str, act: Callable[[], object]) -> Evaluation | Failure:
    """Evaluate, and act once a candidate is running."""
    await evaluator.start()
    try:
        running = asyncio.create_task(evaluator.evaluate(EvaluationJob("a", source)))
        await asyncio.to_thread(wait_for, lambda: bool(children_of_a_fork_server()))
        await asyncio.sleep(0.2)
        act()
        return await running
    finally:
        await evaluator.close()


def kill_fork_server() -> None:
    os.kill(fork_servers()[0], signal.SIGKILL)


def stop_fork_server() -> None:
    os.kill(fork_servers()[0], signal.SIGSTOP)


def test_a_killed_fork_server_is_replaced_and_the_evaluation_tried_again(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(write_task(tmp_path), EvaluatorConfig(slots=1, retries=2))
    verdict = asyncio.run(during(evaluator, SLEEPER, kill_fork_server))
    assert isinstance(verdict, Evaluation)
    assert verdict.score == 0.0
    assert verdict.attempts == 2
    assert fork_servers() == []


def test_without_retries_the_failure_is_ours(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(write_task(tmp_path), EvaluatorConfig(slots=1, retries=0))
    verdict = asyncio.run(during(evaluator, SLEEPER, kill_fork_server))
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.INFRASTRUCTURE
    assert "\n" not in verdict.detail


def test_a_fork_server_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adrs_ray.evaluator.candidate_process._SILENCE_S", 0.5)
    task = write_task(tmp_path, timeout_s=1.5)
    evaluator = LocalEvaluator(task, EvaluatorConfig(slots=1, retries=0))
    verdict = asyncio.run(during(evaluator, "while True: pass\n", stop_fork_server))
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.INFRASTRUCTURE
    assert fork_servers() == []


def test_closing_ends_what_is_under_way(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(write_task(tmp_path, timeout_s=300.0), EvaluatorConfig(slots=1))

    async def close_early() -> Evaluation | Failure:
        await evaluator.start()
        running = asyncio.create_task(evaluator.evaluate(EvaluationJob("a", "while True: pass\n")))
        await asyncio.to_thread(wait_for, lambda: bool(children_of_a_fork_server()))
        await evaluator.close()
        return await running

    verdict = asyncio.run(close_early())
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.INFRASTRUCTURE
    assert fork_servers() == []


WORKER = """
import asyncio, sys
from pathlib import Path
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import load_task

async def main():
    evaluator = LocalEvaluator(load_task(sys.argv[1]), EvaluatorConfig(slots=2))
    await evaluator.start()
    source = Path(sys.argv[2]).read_text()
    await asyncio.gather(*(evaluator.evaluate(EvaluationJob(str(i), source)) for i in range(2)))

asyncio.run(main())
"""
CHILDREN_TOO = """
import os, signal, time
def solve(x):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.fork()
    time.sleep(600)
"""


def test_a_killed_worker_takes_everything_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    write_task(tmp_path / "task", timeout_s=600.0, processes=2)
    (tmp_path / "program.py").write_text(CHILDREN_TOO)
    command = [sys.executable, "-c", WORKER, str(tmp_path / "task"), str(tmp_path / "program.py")]
    worker = subprocess.Popen(command, env={**os.environ, "TMPDIR": str(scratch)}, cwd=Path(__file__).parents[2])
    try:
        wait_for(lambda: len(processes.descendants(worker.pid)) == 6)  # two fork servers, each with two processes
        below = processes.descendants(worker.pid)
    finally:
        worker.kill()
        worker.wait()
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in below))
    wait_for(lambda: not list(scratch.iterdir()))


def test_processes_are_capped_and_none_survives(tmp_path: Path) -> None:
    bomb = """
import os, time
def solve(x):
    started = 0
    for _ in range(50):
        try:
            pid = os.fork()
        except OSError:
            break
        if pid == 0:
            while True:
                try:
                    os.fork()
                except OSError:
                    time.sleep(0.001)
        started += 1
    try:
        os.setsid()
    except OSError:
        return float(x.sum()) + (0.0 if started <= 3 else 1.0)
"""
    task = write_task(tmp_path, processes=3)
    verdict = evaluate_once(task, bomb, "train", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
    assert verdict.evidence.denied["process"] > 0
    assert verdict.evidence.denied["setsid"] > 0
    assert fork_servers() == []


def test_honest_processes_work_where_the_task_allows_them(tmp_path: Path) -> None:
    source = """
import multiprocessing, os, subprocess, sys, tempfile
def solve(x):
    done = subprocess.run([sys.executable, "-c", "print(6 * 7)"], capture_output=True, text=True, check=True)
    assert done.stdout == "42\\n", done
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    worker.terminate()
    assert worker.wait() == -15
    assert tempfile.gettempdir() == os.environ["HOME"] == os.getcwd()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert set(os.environ) <= {"PATH", "HOME", "TMPDIR", "LANG", "LC_CTYPE", "CUDA_VISIBLE_DEVICES",
        *(f"{n}_NUM_THREADS" for n in ("OMP", "OPENBLAS", "MKL", "NUMBA"))}, os.environ
    receive, send = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=send.send, args=(float(x.sum()),))
    process.start()
    result = receive.recv()
    process.join()
    return result
"""
    verdict = evaluate_once(write_task(tmp_path, processes=3), source, "train", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_honest_library_code_works_in_the_jail(tmp_path: Path) -> None:
    source = """
import concurrent.futures, decimal, json, shutil, tempfile, threading, zoneinfo
import numpy as np
def solve(x):
    with tempfile.TemporaryDirectory() as folder:
        with open(folder + "/a", "w") as file:
            json.dump({"x": x.tolist()}, file)
        shutil.copy2(folder + "/a", folder + "/b")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(np.sum, np.split(x, 2)))
    np.linalg.svd(np.ones((50, 50)))
    return float(sum(parts))
"""
    verdict = evaluate_once(write_task(tmp_path), source, "train", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_an_honest_program_that_compiles_leaves_no_evidence(tmp_path: Path) -> None:
    source = """
import numba

@numba.njit
def total(x):
    result = 0.0
    for value in x:
        result += value
    return result

def solve(x):
    return total(x)
"""
    task = write_task(tmp_path, extra="preload: [numba]", timeout_s=60.0)
    verdict = evaluate_once(task, source, "validation", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
    assert verdict.evidence.denied == {}


def test_shims_and_siblings_of_the_adapter_are_importable_in_the_jail_only(tmp_path: Path) -> None:
    adapter = 'from .kernel import add\n\n\ndef run(program, public):\n    return add(program.solve(public["x"]))\n'
    task = write_task(tmp_path, adapter=adapter)
    (tmp_path / "kernel.py").write_text("def add(value):\n    return value + 0.5\n")
    (tmp_path / "shims").mkdir()
    (tmp_path / "shims" / "public_simulator.py").write_text("def offset():\n    return 0.25\n")
    source = "import public_simulator\ndef solve(x):\n    return float(x.sum()) + public_simulator.offset()\n"
    verdict = evaluate_once(task, source, "validation", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == -0.75
    with pytest.raises(ModuleNotFoundError):
        __import__("public_simulator")


def test_an_interpreter_that_does_not_run_is_the_users_error(tmp_path: Path) -> None:
    task = write_task(tmp_path)
    for python in ("/no/such/python", "/bin/false"):
        with pytest.raises(UsageError, match=r"evaluator\.python") as caught:
            evaluate_once(task, SEED, "train", EvaluatorConfig(python=python))
        assert "\n" not in str(caught.value)


def test_evaluate_before_start_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="start"):
        asyncio.run(LocalEvaluator(write_task(tmp_path), EvaluatorConfig()).evaluate(EvaluationJob("a", SEED)))


def test_the_doctor_tries_the_jail() -> None:
    report = jail_report()
    assert report[0][0] == "strict"
    assert len(report) > 10
    assert all(holds for _, holds, _ in report), report


def test_no_scratch_folder_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    deep = "import os\ndef solve(x):\n    open('a', 'w').close()\n    os.mkdir('b', 0)\n    return float(x.sum())\n"
    task: Task = write_task(tmp_path / "task")
    verdict = evaluate_once(task, deep, "train", EvaluatorConfig())
    assert isinstance(verdict, Evaluation), verdict
    assert list(scratch.iterdir()) == []
    json.dumps(verdict.artifacts)


def test_a_shared_process_has_cpu_time_for_all_its_cases(tmp_path: Path) -> None:
    source = """
import time

def solve(x):
    end = time.process_time() + 0.31
    while time.process_time() < end:
        pass
    return float(x.sum())
"""
    judge = JUDGE.replace('"train": 2', '"train": 24')
    assert judge != JUDGE
    extra = "share_process: the program learns from case to case"
    task = write_task(tmp_path, judge=judge, extra=extra, timeout_s=1.0)
    verdict = evaluate_once(task, source, "train", EvaluatorConfig(slots=1, sandbox="strict"))
    assert isinstance(verdict, Evaluation), verdict
    assert len(verdict.cases) == 24


def test_a_task_of_several_cpus_is_served(tmp_path: Path) -> None:
    source = "import os\nimport numpy as np\n\ndef solve(x):\n    print(os.environ['OMP_NUM_THREADS'])\n" + (
        "    return float((x[None, :] @ np.ones((10, 1)))[0, 0])\n"
    )
    task = write_task(tmp_path, extra="cpus: 3.0\npreload: [numpy]")
    verdict = evaluate_once(task, source, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Evaluation), verdict
    assert set(verdict.artifacts["stdout"].split()) == {"3"}
