"""The fork server of a slot: a clean process that has imported the task's adapter and forks a child per case.

It never receives a case, a program or a byte of a program's output, so that nothing of one candidate can be found in
the memory of the next: channel and output pipes come from the worker and go straight to the child. Its duties: fork,
answer the denied calls that seccomp's listener brings, cap threads, processes and memory, end every descendant,
account. It stands outside of Landlock and seccomp, as the worker's user: the adapter and what it imports run here at
import.

Messages on the control socket: {"op": "fork", "cpu_s": n, "build": whether for the build step, "prepared": whether a
spare shall be taken} with three descriptors (channel, stdout, stderr), {"op": "spare", "scratch": folder} and
{"op": "kill"} arrive; {"op": "ready"}, {"op": "failed"}, {"op": "preparing"}, {"op": "spared"}, {"op": "forked"},
{"op": "lost"} (no spare is alive) and {"op": "ended"} go back. The end of the control socket, or SIGTERM (sent by the
kernel when the worker's thread ends), ends it and all its descendants.
Standard library only: loaded by its path.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import importlib
import importlib.metadata
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, NoReturn

from adrs_ray.private_import import import_private, private_package

from . import child
from .channel import receive_message, send_message
from .jail import Jail, open_rules
from .libc import PR_SET_CHILD_SUBREAPER, prctl
from .privileges import die_with_parent
from .watch import Caps, Watch, end_child, end_descendants

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
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        adapter = _import_task(config)
        _refuse_what_forks_lose()
        judged = _role(config, adapter, config)
        building = _role(config, adapter, config["build"]) if config["build"] else None
    except Exception as error:
        detail = str(error) if isinstance(error, TaskError) else traceback.format_exc()
        send_message(control, {"op": "failed", "usage": isinstance(error, TaskError), "detail": detail[-8000:]})
        return
    try:
        signal.signal(signal.SIGTERM, _stop)
        if parent:
            die_with_parent(parent, signal.SIGTERM)
        prepares = callable(getattr(adapter, "prepare", None))
        fingerprint = _fingerprint(config, adapter) if config["build"] else ""
        send_message(control, {"op": "ready", "prepares": prepares, "fingerprint": fingerprint})
        Server(control, judged, building).serve()
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


@dataclass(frozen=True)
class Role:
    """What a kind of child may do."""

    jail: Jail
    program: child.Program
    caps: Caps


def _role(config: dict[str, Any], adapter: ModuleType, terms: dict[str, Any]) -> Role:
    """`terms` is the part of the configuration in which judging and building differ."""
    readable = (*config["readable"], *terms["also_readable"], *_adapter_files(adapter))
    jail = Jail(
        strict=config["strict"],
        landlock_abi=config["landlock_abi"],
        uid=config["uid"],
        rules=open_rules(readable, config["listable"], terms["executable"], terms["processes"], config["nodes"]),
        scratch=config["scratch"],
        memory_mb=terms["memory_mb"],
        scratch_mb=terms["scratch_mb"],
        processes=terms["processes"],
        devices=bool(config["devices"]),
        confined_by=config["confined_by"],
    )
    program = child.Program(
        adapter=adapter,
        entry=tuple(config["entry"]),
        scratch=config["scratch"],
        readable=(*readable, *config["nodes"]),
        output_bytes=config["output_bytes"],
        processes=terms["processes"],
        devices=config["devices"],
        built=terms["built"],
        builds=terms is not config,
    )
    # each process of a build has its rlimit, but there may be many
    resident = terms["memory_mb"] * 2**20 if jail.devices or terms is not config else None
    return Role(jail, program, Caps(terms["processes"], config["threads"], resident))


def _refuse_what_forks_lose() -> None:
    threads = len(os.listdir("/proc/self/task")) - 1
    if threads:
        raise TaskError(f"importing the adapter started {threads} threads: it must not, as forks lose them")
    if _opens_devices("/proc/self/fd"):
        raise TaskError("importing the adapter opened a GPU, which forks cannot use: do it in its prepare()")


def _opens_devices(descriptors: str) -> bool:
    """Whether a folder of descriptors, as in /proc, holds the node of a GPU."""
    for name in os.listdir(descriptors):
        with contextlib.suppress(OSError):  # the listing's own
            if os.readlink(os.path.join(descriptors, name)).startswith("/dev/nvidia"):
                return True
    return False


def _fingerprint(config: dict[str, Any], adapter: ModuleType) -> str:
    """What a built program depends on besides its source: jail, interpreter, libraries, adapter, shims, processor,
    devices."""
    shims = Path(config["shims"]).rglob("*.py") if config["shims"] else ()
    files = [Path(file).read_bytes() for file in sorted((*_adapter_files(adapter), *map(str, shims)))]
    libraries = sorted(f"{d.name}=={d.version}" for d in importlib.metadata.distributions())
    known = (config["strict"], config["devices"], config["entry"], sys.version, _processor(), libraries, files)
    return hashlib.sha256(repr(known).encode()).hexdigest()


def _processor() -> tuple[str, list[str]]:
    """The machine and the instructions that compilers may use on it."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as told:
        return os.uname().machine, next(([line] for line in told if line.lower().startswith(("flags", "features"))), [])
    return os.uname().machine, []


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
    if config["build"] and not callable(getattr(adapter, "build", None)):
        raise TaskError("limits.build_timeout_s needs a build(program, folder) in adapter.py")
    configure = getattr(adapter, "configure", None)
    if configure is not None:
        configure(config["foreign"], config["folder"])
    for name in ("adrs_ray", "adrs_ray.evaluator"):
        sys.modules[name].__path__ = []  # nothing more of ours is importable
    gc.collect()
    gc.disable()  # until the child runs: a collection would touch, and so copy, every page
    gc.freeze()
    return adapter


def _adapter_files(adapter: ModuleType) -> list[str]:
    """The adapter and what it imported beside it, for tracebacks and compilers; never judge, baselines, champions."""
    package = adapter.__name__.rpartition(".")[0] + "."
    modules = [module for name, module in sys.modules.items() if name.startswith(package)]
    return [file for file in (getattr(module, "__file__", None) for module in modules) if file]


@dataclass(frozen=True)
class _Spare:
    """A child that stands in the jail, has run the adapter's prepare() and waits for a program."""

    watch: Watch
    scratch: str


class Server:
    """Serves one child at a time; spares wait aside."""

    def __init__(self, control: socket.socket, judged: Role, building: Role | None) -> None:
        self._control = control
        self._judged = judged
        self._building = building
        self._spares: list[_Spare] = []
        self._aside: set[int] = set()
        """The process ids of the spares."""

    def serve(self) -> NoReturn:
        """Until the control socket ends: raises _Stop."""
        while True:
            message, fds = self._receive()
            if message["op"] == "fork":
                self._fork(message, fds)
            elif message["op"] == "spare":
                self._add_spare(message["scratch"])

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        received = receive_message(self._control)
        if received is None:
            raise _Stop
        return received

    def _fork(self, message: dict[str, Any], fds: list[int]) -> None:
        spare = self._hand_over(message, fds) if message["prepared"] else (self._start(message, fds), None)
        for fd in fds:
            os.close(fd)
        if spare is None:
            send_message(self._control, {"op": "lost"})
            return
        watch, scratch = spare
        prepared_cpu_s = watch.prepared_cpu_s or 0.0
        told = {"op": "forked", "pid": watch.pid, "scratch": scratch, "prepared_cpu_s": prepared_cpu_s}
        send_message(self._control, told)
        status, cpu_used_s = self._supervise_to_the_end(watch)
        cpu_s = cpu_used_s - prepared_cpu_s
        send_message(self._control, {"op": "ended", "status": status, "cpu_s": cpu_s, **watch.report()})

    def _start(self, message: dict[str, Any], fds: Sequence[int]) -> Watch:
        """A child that goes straight to its program."""
        role = self._building if message["build"] else self._judged
        assert role is not None
        jail, program, cpu_s = role.jail, role.program, message["cpu_s"]
        return self._begin(lambda parent, setup: child.main(jail, program, parent, cpu_s, [*fds, setup]), role.caps)

    def _begin(self, live: Callable[[int, int], None], caps: Caps) -> Watch:
        """A child that lives as told; `live` gets our process id and the child's end of the set-up socket."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            live(parent, theirs.detach())
        theirs.close()
        return Watch(pid, ours, caps, self._aside)

    def _add_spare(self, scratch: str) -> None:
        """Fork a spare and wait until it is ready. Our worker asks for it between candidates."""
        self._end_the_dead()
        jail = replace(self._judged.jail, scratch=scratch)
        program = replace(self._judged.program, scratch=scratch)
        watch = self._begin(lambda parent, setup: child.main_of_spare(jail, program, parent, setup), self._judged.caps)
        send_message(self._control, {"op": "preparing", "pid": watch.pid})
        self._supervise(watch, until_prepared=True)
        ended = f"it was killed in prepare(): {watch.reason}" if watch.reason else "it died in prepare()"
        error = None if watch.prepared_cpu_s is not None else watch.setup_error or ended
        if error is None:
            self._spares.append(_Spare(watch, scratch))
            self._aside.add(watch.pid)
        else:
            self._end(watch)
        send_message(self._control, {"op": "spared", "pid": watch.pid, "error": error})

    def _hand_over(self, message: dict[str, Any], fds: Sequence[int]) -> tuple[Watch, str | None] | None:
        """Give the program to come to the spare that has waited longest; None when all have died."""
        self._end_the_dead()
        while self._spares:
            spare = self._spares.pop(0)
            self._aside.remove(spare.watch.pid)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                spare.watch.begin()
                send_message(spare.watch.setup, {"cpu_s": message["cpu_s"]}, fds)
                if spare.watch.has_taken():
                    return spare.watch, spare.scratch
            self._end(spare.watch)
        return None

    def _end_the_dead(self) -> None:
        """What a spare that has died held, and what it had started."""
        dead = [spare for spare in self._spares if select.select([spare.watch.pidfd], [], [], 0)[0]]
        for spare in dead:
            self._spares.remove(spare)
            self._aside.remove(spare.watch.pid)
            self._end(spare.watch)

    def _end(self, watch: Watch) -> tuple[int, float]:
        watch.stop_answering()
        ended = end_child(watch.pid, self._aside)
        watch.close()
        return ended

    def _supervise_to_the_end(self, watch: Watch) -> tuple[int, float]:
        try:
            self._supervise(watch)
        except BaseException:
            self._end(watch)
            raise
        return self._end(watch)

    def _supervise(self, watch: Watch, until_prepared: bool = False) -> None:
        poll = select.poll()
        for fd in (self._control.fileno(), watch.pidfd):
            poll.register(fd, select.POLLIN)
        if not watch.settled:
            poll.register(watch.setup.fileno(), select.POLLIN)
        if watch.listener is not None:
            poll.register(watch.listener, select.POLLIN)
        next_tick = time.monotonic() + TICK_S
        while True:
            for fd, event in poll.poll(1000 * TICK_S):
                if fd == watch.pidfd:
                    watch.hear_last_words()
                    return
                if fd == self._control.fileno():
                    if self._receive()[0]["op"] == "kill":
                        return
                elif fd == watch.setup.fileno():
                    listener = watch.listener
                    watch.hear()
                    if watch.listener is not None and listener is None:
                        poll.register(watch.listener, select.POLLIN)
                    if watch.settled:
                        poll.unregister(fd)
                elif event & select.POLLIN:
                    watch.answer_call()
                else:
                    poll.unregister(fd)  # the last process under the filter has ended
            if until_prepared and watch.settled:
                return
            if time.monotonic() >= next_tick:
                watch.check_use()
                next_tick = time.monotonic() + TICK_S
            if watch.reason is not None:
                return
