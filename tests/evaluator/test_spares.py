"""Processes that are prepared before they have a program."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, processes
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Task
from tests.evaluator.test_local import children_of_a_fork_server, fork_servers, wait_for
from tests.evaluator.tiny_task import ADAPTER, SEED, write_task
from tests.security.variants import one_slot

ONE = EvaluatorConfig(slots=1, retries=0)
PREPARES = """
import os, time

READY = []
HELD = []


def prepare():
    HELD.extend(open("/dev/null") for _ in range(30))
    end = time.process_time() + 0.2
    held = bytearray(300 * 2**20)
    while time.process_time() < end:
        pass
    READY.append((os.getpid(), open("/proc/self/stat").read().split()[21]))
    try:
        open("/etc/passwd").close()
    except OSError:
        READY.append("jailed")


def run(program, public):
    assert [file.read() for file in HELD] == [""] * 30
    return program.solve(public["x"], READY, os.getpid())
"""
TELLS = """
import os
def solve(x, ready, pid):
    assert ready[0][0] == pid and ready[1:] == ["jailed"], ready
    assert os.listdir(".") == []
    open("note", "w").close()
    return float(x.sum())
"""


def prepared(folder: Path, spares: int = 0, **more: object) -> Task:
    return write_task(folder, adapter=PREPARES, extra=f"spares: {spares}", **more)  # type: ignore[arg-type]


def kill_and_wait(pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not any(map(processes.resident_bytes, pids)))


@pytest.mark.parametrize("spares", [0, 2])
def test_a_process_is_prepared_once_in_the_jail_and_that_costs_the_program_nothing(tmp_path: Path, spares: int) -> None:
    verdict = evaluate_once(prepared(tmp_path, spares, timeout_s=2.0), TELLS, "train", ONE)
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
    assert verdict.evidence.denied == {}
    for case in verdict.cases:
        assert case.cpu_s < 0.15
        assert case.wall_s < verdict.wall_s


def test_a_shared_process_is_prepared_once(tmp_path: Path) -> None:
    shared = "spares: 1\nshare_process: it learns"
    source = TELLS.replace('    assert os.listdir(".") == []\n', "")
    verdict = evaluate_once(write_task(tmp_path, adapter=PREPARES, extra=shared), source, "train", ONE)
    assert isinstance(verdict, Evaluation), verdict
    assert sum(case.cpu_s for case in verdict.cases) < 0.15


def test_spares_wait_while_nobody_asks_and_are_replaced_when_taken_or_dead(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(write_task(tmp_path, extra="spares: 2"), ONE)

    async def use() -> list[Verdict]:
        async with evaluator:
            verdicts = []
            for _ in range(3):
                await asyncio.to_thread(wait_for, lambda: len(children_of_a_fork_server()) == 2)
                await asyncio.sleep(0.1)
                await asyncio.to_thread(kill_and_wait, children_of_a_fork_server()[:1])
                verdicts.append(await evaluator.evaluate(EvaluationJob("a", SEED)))
            return verdicts

    verdicts = asyncio.run(use())
    assert all(isinstance(verdict, Evaluation) and verdict.attempts == 1 for verdict in verdicts), verdicts
    assert fork_servers() == []


def test_when_all_spares_have_died_a_new_process_is_prepared(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(prepared(tmp_path, 1), ONE)

    async def use() -> Verdict:
        async with evaluator:
            await asyncio.to_thread(wait_for, lambda: len(children_of_a_fork_server()) == 1)
            await asyncio.sleep(1.0)
            await asyncio.to_thread(kill_and_wait, children_of_a_fork_server())
            return await evaluator.evaluate(EvaluationJob("a", TELLS))

    assert isinstance(asyncio.run(use()), Evaluation)


def test_spares_end_with_their_fork_server_and_with_the_evaluator(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(write_task(tmp_path, extra="spares: 2"), EvaluatorConfig(slots=1, retries=1))

    async def use() -> Verdict:
        async with evaluator:
            await asyncio.to_thread(wait_for, lambda: len(children_of_a_fork_server()) == 2)
            waiting = children_of_a_fork_server()
            os.kill(min(set(fork_servers()) - set(waiting)), signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda: not any(processes.resident_bytes(pid) for pid in waiting))
            return await evaluator.evaluate(EvaluationJob("a", SEED))

    assert isinstance(asyncio.run(use()), Evaluation)
    assert fork_servers() == []


def test_what_goes_wrong_in_prepare_is_told_at_the_start(tmp_path: Path) -> None:
    for body, told in (("raise ValueError('no device')", "no device"), ("os._exit(3)", r"died in prepare\(\)")):
        adapter = f"import os\n{ADAPTER}\n\ndef prepare():\n    {body}\n"
        with pytest.raises(UsageError, match=told):
            evaluate_once(write_task(tmp_path, adapter=adapter), SEED, "train", ONE)


BUILDS_AND_PREPARES = (
    ADAPTER
    + """

import os

SEEN = []


def prepare():
    SEEN.extend(name for name in ("TRITON_CACHE_DIR", "NUMBA_CACHE_DIR") if os.path.lexists(os.environ[name]))
    SEEN.extend(os.listdir(os.path.dirname(os.environ["ADRS_BUILD_DIR"])))


def build(program, folder):
    program.build(folder)


def run(program, public):
    assert not SEEN, SEEN
    return program.solve(public["x"])
"""
)


@pytest.mark.parametrize("spares", [0, 1])
def test_nothing_that_a_program_built_is_there_when_a_process_is_prepared(tmp_path: Path, spares: int) -> None:
    """A compiler's cache of one program would else be run in a process of the next."""
    source = "import os\ndef build(folder):\n    os.mkdir(folder + '/triton')\n    os.mkdir(folder + '/numba')\n" + SEED
    uses = "import os\ndef build(folder):\n    os.mkdir(folder + '/mine')\n"
    uses += (
        "def solve(x):\n    assert os.listdir(os.environ['ADRS_BUILD_DIR']) == ['mine']\n    return float(x.sum())\n"
    )
    task = write_task(tmp_path, adapter=BUILDS_AND_PREPARES, extra=f"spares: {spares}", limits="build_timeout_s: 10")
    with one_slot(task) as slot:
        for program in (source, uses, source, uses):
            verdict = slot.judge(program)
            assert isinstance(verdict, Evaluation), verdict
            wait_for(lambda: len(children_of_a_fork_server()) == spares)


FORKS_IN_PREPARE = (
    ADAPTER
    + """

import os, time


def prepare():
    if os.path.exists("@FLAG@"):
        os.fork()
        time.sleep(600)
"""
)


def test_what_prepare_started_ends_with_a_fork_server_that_is_killed_meanwhile(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    forks = FORKS_IN_PREPARE.replace("@FLAG@", str(flag))
    evaluator = LocalEvaluator(
        write_task(tmp_path / "task", adapter=forks, extra="spares: 1", processes=2),
        EvaluatorConfig(slots=1, retries=1),
    )

    async def use() -> list[int]:
        async with evaluator:
            await asyncio.to_thread(wait_for, lambda: len(children_of_a_fork_server()) == 1)
            await asyncio.sleep(1.0)
            flag.touch()
            assert isinstance(await evaluator.evaluate(EvaluationJob("a", SEED, "validation")), Evaluation)
            await asyncio.to_thread(wait_for, lambda: len(set(children_of_a_fork_server())) == 2)
            started = sorted(set(children_of_a_fork_server()))
            os.kill(min(set(fork_servers()) - set(started)), signal.SIGKILL)
            await asyncio.to_thread(wait_for, lambda: not any(map(processes.resident_bytes, started)))
            return started

    assert len(asyncio.run(use())) == 2
    assert fork_servers() == []


def test_none_is_kept_where_the_evaluator_says_so(tmp_path: Path) -> None:
    evaluator = LocalEvaluator(prepared(tmp_path, 2), ONE, spares=0)

    async def use() -> Verdict:
        async with evaluator:
            verdict = await evaluator.evaluate(EvaluationJob("a", TELLS))
            await asyncio.sleep(0.5)
            assert children_of_a_fork_server() == []
            return verdict

    assert isinstance(asyncio.run(use()), Evaluation)


def test_a_limit_counts_from_what_was_prepared(tmp_path: Path) -> None:
    keeps = ADAPTER + "\nHELD = []\n\n\ndef prepare():\n    HELD.append(bytearray(500 * 2**20))\n"
    source = "def solve(x):\n    held = bytearray(@MB@ * 2**20)\n    return float(x.sum())\n"
    task = write_task(tmp_path, adapter=keeps)
    assert isinstance(evaluate_once(task, source.replace("@MB@", "100"), "train", ONE), Evaluation)
    assert evaluate_once(task, source.replace("@MB@", "400"), "train", ONE).kind == "memory"  # type: ignore[union-attr]


def test_processes_of_a_program_are_counted_and_ended_without_the_spares(tmp_path: Path) -> None:
    forks = """
import os, time
def solve(x):
    pid = os.fork()
    time.sleep(0.3)
    if pid == 0:
        os._exit(0)
    return float(x.sum())
"""
    with one_slot(write_task(tmp_path, extra="spares: 3", processes=1)) as slot:
        for _ in range(3):
            wait_for(lambda: len(children_of_a_fork_server()) == 3)
            verdict = slot.judge(forks)
            assert isinstance(verdict, Evaluation), verdict
            assert verdict.evidence.denied == {}


def test_in_bubblewrap_a_process_is_prepared_when_it_is_needed(tmp_path: Path) -> None:
    with one_slot(prepared(tmp_path, 2), "bubblewrap") as slot:
        before = processes.descendants(os.getpid())
        verdict = slot.judge(TELLS)
        assert isinstance(verdict, Evaluation), verdict
        time.sleep(0.2)
        assert processes.descendants(os.getpid()) == before
