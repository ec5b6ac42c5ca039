"""The worker's side of a slot: its fork server.

All calls block and belong to the slot's own thread: the kernel ends a fork server when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping
from typing import Any

from adrs_ray.errors import UsageError
from adrs_ray.evaluator import processes
from adrs_ray.evaluator.builds import BUILD_FILES, BUILD_PROGRAMS, BUILT, BUILT_MB, BuildCache
from adrs_ray.evaluator.channel import receive_message, send_message
from adrs_ray.evaluator.confinement import BOOTSTRAP, Confinement, clean_environment
from adrs_ray.evaluator.device_memory import watch_of
from adrs_ray.evaluator.scratch import Scratch
from adrs_ray.task import Limits, Task, repository_root

START_TIMEOUT_S = 300.0
"""An adapter may compile its kernels when it is first imported."""
_POLL_S = 0.05

_LINKS = ("/lib", "/lib64", "/bin")
"""On many systems links into /usr."""


class SlotError(Exception):
    """Ours, not the candidate's: the slot must be restarted and the evaluation tried again."""


class ForkServer:
    """A fork server's process, its control socket and its scratch folder. It serves one child at a time."""

    def __init__(self, task: Task, confinement: Confinement, closing: threading.Event) -> None:
        """Start it and wait until it has imported the task's adapter.

        Raises UsageError when the task cannot be served, SlotError when the process fails for another reason.
        """
        self.limits: Limits = task.spec.limits
        self.closing = closing
        self.idle_cpu_s = 0.0
        """CPU seconds of a child that does nothing (fork, jail, end), once they were measured."""
        self.builds = BuildCache.of_this_user() if self.limits.build_timeout_s else None
        self.scratch = Scratch(confinement.uid)
        self.strict = confinement.strict
        self.fingerprint = ""
        """What a built program depends on besides its source."""
        self._last_child: int | None = None
        # in bubblewrap, candidates could write into the folders of processes that wait
        self._spares_wanted = 0 if confinement.bubblewrap else task.spec.spares
        self._waiting: dict[int, int] = {}
        """Processes that wait for a program: the ids that the fork server and we know them by."""
        self._prepares = task.spec.spares > 0
        self._in_bubblewrap = bool(confinement.bubblewrap)
        self.device_memory = watch_of(confinement.devices) if self.limits.device_memory_mb else None
        self._server_pid: int | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed in `close`
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._process = self._spawn(task, confinement, theirs)
        except OSError as error:
            self._control.close()
            self._let_go()
            raise SlotError(f"cannot start a fork server: {error}") from error
        finally:
            theirs.close()
        try:
            self._await_ready(task)
        except BaseException:
            self.close()
            raise

    def _spawn(self, task: Task, confinement: Confinement, theirs: socket.socket) -> subprocess.Popen[bytes]:
        library_threads = max(1, min(int(task.spec.cpus), self.limits.threads))
        command = [confinement.python, "-s", "-P", "-B", str(BOOTSTRAP), "serve", str(theirs.fileno())]
        if confinement.bubblewrap:
            command = [*_bubblewrap(confinement, task, self.scratch), *command, "0"]
        else:
            command.append(str(os.getpid()))
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._stderr,
            env=clean_environment(confinement.python, library_threads, confinement.devices.visible),
            cwd="/",
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError), process.stdin as stdin:
            stdin.write(json.dumps(_settings(task, confinement, self.scratch)).encode())
        return process

    def _await_ready(self, task: Task) -> None:
        message = self.receive(START_TIMEOUT_S)
        if message["op"] == "ready":
            self._prepares |= message["prepares"]
            self.fingerprint = message["fingerprint"]
            # bubblewrap stands above the fork server, which then has other process ids than ours
            self._server_pid = [self.pid, *processes.descendants(self.pid)][-1]
            return
        detail = message.get("detail", "")
        if message.get("usage"):
            raise UsageError(f"task {task.name} ({task.folder}): {detail}")
        last = detail.strip().splitlines()[-1] if detail.strip() else "no message"
        raise UsageError(f"task {task.name}: {task.adapter_path} does not import in the fork server: {last}")

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._control.fileno()

    def send(self, message: Mapping[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Raises SlotError when it has died."""
        try:
            send_message(self._control, dict(message), fds)
        except OSError as error:
            raise SlotError(f"the fork server has ended: {self._last_words() or error}") from None

    def send_fork(self, cpu_s: int, build: bool, fds: tuple[int, ...]) -> None:
        """Have a process begin with a program, which comes over the first of `fds`. Raises SlotError."""
        prepared = self._prepares and not build
        self.send({"op": "fork", "cpu_s": cpu_s, "build": build, "prepared": prepared}, fds)

    def receive(self, timeout_s: float) -> dict[str, Any]:
        """The next message. Raises SlotError when none comes in time or it has died."""
        deadline = time.monotonic() + timeout_s
        while True:
            if select.select([self._control], [], [], _POLL_S)[0]:
                break
            if self.closing.is_set():
                raise SlotError("the evaluator was closed")
            if time.monotonic() > deadline:
                raise SlotError(f"the fork server said nothing for {timeout_s:.0f} s")
        try:
            received = receive_message(self._control)
        except OSError:
            received = None
        if received is None:
            raise SlotError(f"the fork server has ended: {self._last_words() or 'killed'}")
        return received[0]

    def add_spare_if_wanted(self) -> bool:
        """Have a process made ready if fewer wait than the task wants; whether one was. Raises SlotError."""
        if self._alive() >= self._spares_wanted:
            return False
        self._add_spare()
        return True

    def await_prepared(self) -> None:
        """Return once a process waits for a program, where the task prepares them. Raises SlotError."""
        if self._prepares and not self._alive():
            self._add_spare()

    def _alive(self) -> int:
        """How many wait; those that have died are forgotten."""
        self._waiting = {inner: pid for inner, pid in self._waiting.items() if processes.resident_bytes(pid)}
        return len(self._waiting)

    def _add_spare(self) -> None:
        try:
            folder = self.scratch.add()
            with self.scratch.without_built():  # or a program's own code could be what compilers find in prepare()
                self.send({"op": "spare", "scratch": str(folder)})
                self._last_child = self._by_our_count(self.receive(START_TIMEOUT_S)["pid"])
                message = self.receive(START_TIMEOUT_S)
        except OSError as error:
            raise SlotError(f"cannot make a scratch folder: {error}") from error
        if message["error"] is not None:
            said = message["error"].strip().splitlines()[-1]
            raise SlotError(f"a candidate's process could not be made ready: {said}")
        pid = self._by_our_count(message["pid"])
        if pid is not None:
            self._waiting[message["pid"]] = pid

    def note_child(self, message: Mapping[str, Any]) -> int | None:
        """The process id, by our count, of the child that was `forked`; None when it is gone already."""
        if message["scratch"] is not None:
            self._waiting.pop(message["pid"], None)
            self.scratch.use(message["scratch"])
        self._last_child = self._by_our_count(message["pid"])
        return self._last_child

    def _by_our_count(self, pid: int) -> int | None:
        if not self._in_bubblewrap:
            return pid
        assert self._server_pid is not None
        below = processes.descendants(self._server_pid)
        return next((each for each in below if processes.innermost_id(each) == pid), None)

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read()[-4096:].decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else ""

    def close(self) -> None:
        """End it and everything below it; returns when nothing is left. Safe to call twice."""
        self._control.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            left = processes.descendants(self.pid)
            self._process.kill()
            self._process.wait()
            for pid in left:
                processes.kill(pid)
        self._kill_session()
        self._let_go()

    def _let_go(self) -> None:
        if self.device_memory is not None:
            self.device_memory.close()
        self._stderr.close()
        self.scratch.remove()

    def _kill_session(self) -> None:
        """What outlived a fork server that was killed itself: the jail lets no process leave the child's session."""
        for session in (self._last_child, *self._waiting.values()):
            while session is not None and (left := processes.session_members(session)):
                for pid in left:
                    processes.kill(pid)
                time.sleep(0.005)


def _settings(task: Task, confinement: Confinement, scratch: Scratch) -> dict[str, Any]:
    limits = task.spec.limits
    building = {
        "processes": limits.build_processes,
        "memory_mb": limits.build_memory_mb,
        "scratch_mb": BUILT_MB,
        "executable": (*confinement.executable, *BUILD_PROGRAMS),
        "also_readable": BUILD_FILES,
        "built": str(scratch.path / BUILT),
    }
    return {
        "strict": confinement.strict,
        "readable": (*confinement.readable, *confinement.devices.readable),
        "listable": confinement.listable,
        "executable": confinement.executable,
        "landlock_abi": confinement.landlock_abi,
        "uid": confinement.uid,
        "confined_by": "bubblewrap" if confinement.bubblewrap else "",
        "devices": confinement.devices.visible,
        "nodes": confinement.devices.nodes,
        "ours": str(repository_root()),
        "scratch": str(scratch.path),
        "scratch_home": str(scratch.home),
        "threads": limits.threads,
        "processes": limits.processes,
        "memory_mb": limits.memory_mb,
        "scratch_mb": limits.scratch_mb,
        "also_readable": [str(scratch.built_home)] if limits.build_timeout_s else [],
        "built": str(scratch.built) if limits.build_timeout_s else None,
        "build": building if limits.build_timeout_s else None,
        "output_bytes": limits.output_mb * 2**20,
        "entry": task.spec.entry,
        "preload": task.spec.preload,
        "adapter_folder": str(task.adapter_path.parent),
        "adapter_module": task.adapter_path.stem,
        "shims": str(task.shims) if task.shims else None,
        "folder": str(task.folder),
        "foreign": dict(task.foreign),
    }


def _bubblewrap(confinement: Confinement, task: Task, scratch: Scratch) -> list[str]:
    """The command that hides other files, processes and the network; only scratch (its home) is writable, and in it not
    what was built."""
    command = [str(confinement.bubblewrap), "--die-with-parent", "--unshare-ipc", "--unshare-net", "--unshare-uts",
               "--unshare-pid", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]  # fmt: skip
    adapter = [str(task.adapter_path.parent / name) for name in os.listdir(task.adapter_path.parent)]
    hidden = {str(task.folder / name) for name in ("judge.py", "baselines", "champions")}
    package = BOOTSTRAP.parent.parent
    ours = [str(BOOTSTRAP.parent), str(package / "private_import.py"), str(package / "bundle.py")]
    limits = task.spec.limits
    programs = confinement.executable if limits.processes or limits.build_timeout_s else ()
    compilers = (*BUILD_FILES, *BUILD_PROGRAMS) if limits.build_timeout_s else ()
    wanted = (
        confinement.python,
        *confinement.readable,
        *confinement.devices.readable,
        *programs,
        *compilers,
        *ours,
        *(p for p in adapter if p not in hidden),
    )
    for path in dict.fromkeys((*wanted, "/lib", "/lib64", "/bin")):
        if path in _LINKS and os.path.islink(path):
            command += ["--symlink", os.readlink(path), path]
        elif not path.startswith(("/proc", "/dev")) and (path not in _LINKS or path in wanted):
            command += ["--ro-bind-try", path, path]
    for node in confinement.devices.nodes:
        command += ["--dev-bind", node, node]
    command += ["--bind", str(scratch.home), str(scratch.home), "--ro-bind"]
    command += [str(scratch.built_home), str(scratch.built_home)]
    for mounted in ("/proc", "/dev", "/tmp", "/"):
        command += ["--remount-ro", mounted]
    return [*command, "--chdir", "/"]
