"""Processes that share one torch.distributed group on this machine: one per GPU (nccl) or per rank on the CPU (gloo).

They find each other through a file in a private temporary folder, so no port has to be free. Values travel to and from
them by pickle: they run our own code, never a candidate's. The whole group ends, by process id, as soon as one of its
ranks dies or fails, when the time is up, and when the process that started it goes away.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import connection
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

_GRACE_S = 0.5
"""How long a failed group is heard on: a rank that died makes the others fail, perhaps before its death is seen."""
_JOIN_S = 5.0

Job = TypeVar("Job")
Answer = TypeVar("Answer")


class RankError(RuntimeError):
    """A rank died, failed or did not end in time: one line. A traceback of the rank, if any, is in its notes."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a group, seen from within."""

    index: int
    world: int
    device: torch.device
    backend: str


def run_ranks(work: Callable[[Rank, Job], Answer], job: Job, world: int, device: str, timeout_s: float) -> list[Answer]:
    """What `work(rank, job)` returns in each of `world` processes, by rank.

    `work` is a function at the top of an importable module; `job` and answers can be pickled. On `cuda` rank i uses
    GPU i. Start-up (an interpreter and torch per rank) counts in `timeout_s`. Raises RankError, with every process
    ended, when a rank dies or raises or the time is up; ValueError when there are too few GPUs. As with every use of
    `multiprocessing`, a script that calls this keeps its own start behind `if __name__ == "__main__"`.
    """
    _check(world, device)
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    channels: list[Connection] = []
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        store = str(Path(folder) / "store")
        try:
            for index in range(world):
                receiver, sender = context.Pipe(duplex=False)
                channels.append(receiver)
                arguments = (sender, work, job, index, world, device, store, timeout_s)
                started = context.Process(target=_rank, args=arguments, daemon=True)
                started.start()
                processes.append(started)
                sender.close()
            return _collect(processes, channels, timeout_s)
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.join(_JOIN_S)
            for channel in channels:
                channel.close()


def _check(world: int, device: str) -> None:
    if device not in ("cpu", "cuda"):
        raise ValueError(f"device is {device!r}, expected cpu or cuda")
    if world < 1:
        raise ValueError(f"{world} processes, expected at least 1")
    if device == "cuda" and world > torch.cuda.device_count():
        raise ValueError(f"{world} processes need as many GPUs, found {torch.cuda.device_count()}")


def _collect(processes: Sequence[BaseProcess], channels: Sequence[Connection], timeout_s: float) -> list[Any]:
    deadline = time.monotonic() + timeout_s
    waiting = {channel: index for index, channel in enumerate(channels)}
    answers: list[Any] = [None] * len(channels)
    while waiting:
        ready = connection.wait(list(waiting), max(0.0, deadline - time.monotonic()))
        if not ready:
            missing = ", ".join(map(str, sorted(waiting.values())))
            raise RankError(f"ranks {missing} of {len(channels)} did not end within {timeout_s:g} s")
        for channel in ready:
            assert isinstance(channel, Connection)
            answer, failure = _receive(channel)
            index = waiting.pop(channel)
            if failure is not None:
                raise _blamed(index, failure, processes, waiting)
            answers[index] = answer
    return answers


class _Died:
    """A rank's channel closed before it said anything."""


_Failure = tuple[str, str] | _Died
"""One line and the traceback of an exception, or a death."""


def _receive(channel: Connection) -> tuple[Any, _Failure | None]:
    try:
        answer, failure = channel.recv()
    except (EOFError, OSError):
        return None, _Died()
    return answer, failure


def _blamed(
    index: int, failure: _Failure, processes: Sequence[BaseProcess], waiting: dict[Connection, int]
) -> RankError:
    """The error of a failed group: a rank that died is its cause rather than one that noticed."""
    until = time.monotonic() + _GRACE_S
    while not isinstance(failure, _Died) and waiting:
        ready = connection.wait(list(waiting), max(0.0, until - time.monotonic()))
        if not ready:
            break
        for channel in ready:
            assert isinstance(channel, Connection)
            other = waiting.pop(channel)
            if isinstance(_receive(channel)[1], _Died):
                index, failure = other, _Died()
    if isinstance(failure, _Died):
        processes[index].join(_GRACE_S)
        return RankError(f"rank {index} of {len(processes)} died{_how(processes[index].exitcode)}")
    line, trace = failure
    error = RankError(f"rank {index} of {len(processes)}: {line}")
    error.add_note(trace)
    return error


def _how(exit_code: int | None) -> str:
    if exit_code is None:
        return ""
    if exit_code >= 0:
        return f" with exit code {exit_code}"
    try:
        return f" by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f" by signal {-exit_code}"


def _rank(
    sender: Connection,
    work: Callable[[Rank, Any], Any],
    job: object,
    index: int,
    world: int,
    device: str,
    store: str,
    timeout_s: float,
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        sender.send((_in_group(work, job, index, world, device, store, timeout_s), None))
    except Exception as error:
        line = " ".join(f"{type(error).__name__}: {error}".split())
        sender.send((None, (line[:300], traceback.format_exc())))


def _in_group(
    work: Callable[[Rank, Any], Any], job: object, index: int, world: int, device: str, store: str, timeout_s: float
) -> Any:
    if device == "cuda":
        here, backend = torch.device("cuda", index), "nccl"
        torch.cuda.set_device(here)
    else:
        here, backend = torch.device("cpu"), "gloo"
        torch.set_num_threads(max(1, len(os.sched_getaffinity(0)) // world))
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"  # the machine's name need not resolve
    dist.init_process_group(
        backend,
        init_method=f"file://{store}",
        rank=index,
        world_size=world,
        timeout=timedelta(seconds=timeout_s),
        device_id=here if device == "cuda" else None,
    )
    answer = work(Rank(index, world, here, backend), job)
    dist.barrier()  # nobody leaves while another rank still needs it
    dist.destroy_process_group()  # not after an error: it may wait for a rank that is gone
    return answer


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
