"""The fork server of a slot: a clean process that has imported the task's adapter and forks a child per case.

It never receives a case, a program or a byte of a program's output, so that nothing of one candidate can be found in
the memory of the next: channel and output pipes come from the worker and go straight to the child. Its duties: fork,
answer the denied calls that seccomp's listener brings, cap threads and processes, end every descendant, account. It
stands outside of Landlock and seccomp, as the worker's user: the adapter and what it imports run here at import.

Messages on the control socket: {"op": "fork", "cpu_s": n} with three descriptors (channel, stdout, stderr) and
{"op": "kill"} arrive; {"op": "ready"}, {"op": "failed"}, {"op": "forked"}, {"op": "ended"} go back. The end of the
control socket, or SIGTERM (sent by the kernel when the worker's thread ends), ends it and all its descendants.
Standard library only: loaded by its path.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import json
import os
import resource
import select
import shutil
import signal
import site
import socket
import sys
import time
import traceback
from collections import Counter
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from adrs_ray.private_import import import_private, private_package

from . import child, processes, seccomp
from .channel import receive_message, send_message
from .jail import Jail, open_rules
from .libc import PR_SET_CHILD_SUBREAPER, machine_numbers, prctl
from .privileges import die_with_parent

TICK_S = 0.05


class _Stop(BaseException):
    """The worker is gone or wants us to end."""


class TaskError(Exception):
    """The task cannot be served: one line."""


def main(arguments: list[str]) -> None:
    """`serve FD PARENT`: control socket, and the worker's process id (0: a wrapper stands between us)."""
    control = socket.socket(fileno=int(arguments[0]))
    parent = int(arguments[1])
    if parent:
        die_with_parent(parent)
    config = json.load(sys.stdin)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        jail, program = _prepare(config)
    except Exception as error:
        detail = str(error) if isinstance(error, TaskError) else traceback.format_exc()
        send_message(control, {"op": "failed", "usage": isinstance(error, TaskError), "detail": detail[-8000:]})
        return
    try:
        signal.signal(signal.SIGTERM, _stop)
        if parent:
            die_with_parent(parent, signal.SIGTERM)
        send_message(control, {"op": "ready"})
        Server(control, jail, program, config["threads"]).serve()
    except (_Stop, BrokenPipeError, ConnectionResetError):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it may follow the end of the control socket
    finally:
        end_descendants()
        with contextlib.suppress(OSError):
            os.chmod(config["scratch_home"], 0o700)
        shutil.rmtree(config["scratch_home"], ignore_errors=True)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: cleaning up is not to be interrupted
    raise _Stop


def _prepare(config: dict[str, Any]) -> tuple[Jail, child.Program]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    adapter = _import_task(config)
    tasks = os.listdir("/proc/self/task")
    if len(tasks) > 1:
        raise TaskError(f"importing the adapter started {len(tasks) - 1} threads: it must not, as forks lose them")
    readable = (*config["readable"], *_adapter_files(adapter))
    jail = Jail(
        strict=config["strict"],
        landlock_abi=config["landlock_abi"],
        uid=config["uid"],
        rules=open_rules(readable, config["listable"], config["executable"], config["processes"]),
        scratch=config["scratch"],
        memory_mb=config["memory_mb"],
        scratch_mb=config["scratch_mb"],
        processes=config["processes"],
        confined_by=config["confined_by"],
    )
    program = child.Program(
        adapter=adapter,
        entry=tuple(config["entry"]),
        scratch=config["scratch"],
        readable=readable,
        output_bytes=config["output_bytes"],
        processes=config["processes"],
        devices=config["devices"],
    )
    gc.collect()
    gc.disable()  # until the child runs: a collection would touch, and so copy, every page
    gc.freeze()
    return jail, program


def _import_task(config: dict[str, Any]) -> ModuleType:
    libraries = set(site.getsitepackages())
    sys.path[:] = [entry for entry in sys.path if entry in libraries or os.path.realpath(entry) != config["ours"]]
    sys.meta_path[:] = [f for f in sys.meta_path if "adrs_ray" not in getattr(f, "__module__", "")]
    if config["shims"]:
        sys.path.insert(0, config["shims"])
    for name in ("numpy", "numpy.random", *config["preload"]):
        try:
            importlib.import_module(name)
        except ImportError as error:
            if not name.startswith("numpy"):
                raise TaskError(f"preload module {name} does not import: {error}") from None
    folder = Path(config["adapter_folder"])
    adapter = import_private(folder, config["adapter_module"])
    if f"{private_package(folder)}.judge" in sys.modules:
        raise TaskError("adapter.py imports judge.py: what both need belongs in a third module")
    if not callable(getattr(adapter, "run", None)) and not callable(getattr(adapter, "act", None)):
        raise TaskError("adapter.py must define run(program, public) or act(program, observation)")
    configure = getattr(adapter, "configure", None)
    if configure is not None:
        configure(config["foreign"], config["folder"])
    for name in ("adrs_ray", "adrs_ray.evaluator"):
        sys.modules[name].__path__ = []  # nothing more of ours is importable
    return adapter


def _adapter_files(adapter: ModuleType) -> list[str]:
    """The adapter and what it imported beside it, for tracebacks and compilers; never judge, baselines, champions."""
    package = adapter.__name__.rpartition(".")[0] + "."
    modules = [module for name, module in sys.modules.items() if name.startswith(package)]
    return [file for file in (getattr(module, "__file__", None) for module in modules) if file]


class Server:
    """Serves one child at a time."""

    def __init__(self, control: socket.socket, jail: Jail, program: child.Program, threads: int) -> None:
        self._control = control
        self._jail = jail
        self._program = program
        self._threads = threads

    def serve(self) -> NoReturn:
        """Until the control socket ends: raises _Stop."""
        while True:
            message, fds = self._receive()
            if message["op"] == "fork":
                self._fork(message["cpu_s"], fds)

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        received = receive_message(self._control)
        if received is None:
            raise _Stop
        return received

    def _fork(self, cpu_s: int, fds: list[int]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            child.main(self._jail, self._program, parent, cpu_s, [*fds, theirs.detach()])
        theirs.close()
        for fd in fds:
            os.close(fd)
        send_message(self._control, {"op": "forked"})
        watch = _Watch(pid, ours, self._jail.processes, self._threads)
        try:
            self._supervise(watch)
        finally:
            watch.stop_answering()
            status, cpu_used_s = end_child(pid)
            watch.close()
        send_message(self._control, {"op": "ended", "status": status, "cpu_s": cpu_used_s, **watch.report()})

    def _supervise(self, watch: _Watch) -> None:
        poll = select.poll()
        for fd in (self._control.fileno(), watch.pidfd, watch.setup.fileno()):
            poll.register(fd, select.POLLIN)
        next_tick = time.monotonic() + TICK_S
        while True:
            for fd, event in poll.poll(1000 * TICK_S):
                if fd == watch.pidfd:
                    return
                if fd == self._control.fileno():
                    if self._receive()[0]["op"] == "kill":
                        return
                elif fd == watch.setup.fileno():
                    poll.unregister(fd)
                    watch.set_up()
                    if watch.listener is not None:
                        poll.register(watch.listener, select.POLLIN)
                elif event & select.POLLIN:
                    watch.answer_call()
                else:
                    poll.unregister(fd)  # the last process under the filter has ended
            if time.monotonic() >= next_tick:
                watch.check_counts()
                next_tick = time.monotonic() + TICK_S
            if watch.reason is not None:
                return


class _Watch:
    """One child under supervision."""

    def __init__(self, pid: int, setup: socket.socket, max_processes: int, max_threads: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.setup = setup
        self.listener: int | None = None
        self.reason: str | None = None
        self._max_processes = max_processes
        self._max_threads = max_threads
        self._heard = False
        self._layers: list[str] = []
        self._setup_error: str | None = "it died before it was jailed"
        self._denied: Counter[str] = Counter()
        self._names = {number: name for name, number in (machine_numbers() or {}).items()}

    def set_up(self) -> None:
        """Take what the child says once it stands in the jail, and the listener. It may have died without a word."""
        received = receive_message(self.setup)
        self._heard = True
        if received is None:
            return
        message, fds = received
        self._setup_error = message.get("error")
        self._layers = message.get("layers", [])
        self.listener = fds[0] if fds else None

    def answer_call(self) -> None:
        """Answer one call that waits for us."""
        assert self.listener is not None
        call = seccomp.receive(self.listener)
        if call is None:
            return
        name = self._names.get(call.number, str(call.number))
        error = self._judge_call(name, call)
        if self.reason is None:
            seccomp.answer(self.listener, call, error)

    def _judge_call(self, name: str, call: seccomp.Notification) -> int | None:
        if name in seccomp.KILLED or (name == "clone" and seccomp.clone_makes_namespace(call.arguments[0])):
            self.reason = f"violation:{name}"
            self._denied[name] += 1
            return errno.EPERM
        if name in ("clone", "fork", "vfork"):
            return self._judge_fork(bool(name == "clone" and call.arguments[0] & seccomp.CLONE_THREAD), call.tid)
        if name in ("kill", "tgkill") and call.arguments[0] in self._members():
            return None
        self._denied[name] += 1
        return errno.EPERM

    def _judge_fork(self, thread: bool, tid: int) -> int | None:
        if thread:
            caller = processes.thread_group(tid, self._members())
            if caller is not None and processes.thread_count(caller) < self._max_threads:
                return None
            self._denied["thread"] += 1
            return errno.EAGAIN
        if len(self._members()) <= self._max_processes:
            return None
        self._denied["process"] += 1
        return errno.EAGAIN if self._max_processes else errno.EPERM

    def _members(self) -> list[int]:
        return processes.descendants(os.getpid())

    def check_counts(self) -> None:
        """The watchdog, at every tick: more than twice the caps ends the child.

        Where there is no listener it is the only cap on threads. Twice, as the listener counts what exists: forks
        and clones that are under way at once can pass it together.
        """
        members = self._members()
        for pid in members:
            if pid != self.pid:
                _reap_if_ours(pid)
        if len(members) > 1 + 2 * self._max_processes:
            self.reason = "processes"
        elif any(processes.thread_count(pid) > 2 * self._max_threads for pid in members):
            self.reason = "threads"

    def report(self) -> dict[str, Any]:
        return {
            "reason": self.reason,
            "layers": self._layers,
            "setup_error": self._setup_error,
            "denied": dict(self._denied),
        }

    def stop_answering(self) -> None:
        """From here on nothing new can be started under the filter."""
        if self.listener is not None:
            os.close(self.listener)
            self.listener = None

    def close(self) -> None:
        """After the child has ended: a short life may be over before its first word was read."""
        if not self._heard:
            self.set_up()
            self.stop_answering()
        os.close(self.pidfd)
        self.setup.close()


def _reap_if_ours(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # some other process's child


def end_child(pid: int) -> tuple[int, float]:
    """Kill the child and every descendant until none is left: (its wait status, CPU seconds of all of them)."""
    processes.kill_group(pid)
    processes.kill(pid)
    _, status, usage = os.wait4(pid, 0)
    return status, usage.ru_utime + usage.ru_stime + end_descendants()


def end_descendants() -> float:
    """Kill until no descendant is left; the CPU seconds of those reaped here."""
    cpu_s = 0.0
    while True:
        for pid in processes.descendants(os.getpid()):
            processes.kill(pid)
        try:
            pid, _, usage = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            return cpu_s
        if pid:
            cpu_s += usage.ru_utime + usage.ru_stime
        else:
            time.sleep(0.001)
