"""The worker's side of a candidate's process: requests, replies, limits, and how it ended.

The worker talks to the process directly, over a channel that the fork server only hands on. Whatever comes back was
made by the candidate: it is bounded, checked and never unpickled. All calls block and belong to the slot's thread.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from adrs_ray.candidate import FailureKind
from adrs_ray.evaluator import libc, processes
from adrs_ray.evaluator.channel import NONCE_BYTES, ForgedFrameError, FrameParser, OversizedFrameError, frame
from adrs_ray.evaluator.codec import MalformedError, decode, decode_array, encode, encode_array, is_array
from adrs_ray.evaluator.ends import CandidateError, cause_of_end
from adrs_ray.evaluator.slot import ForkServer, SlotError
from adrs_ray.task import Limits

_TICK_S = 0.05
_SILENCE_S = 10.0
"""A fork server that owes an answer for so long is taken for dead."""
_END_GRACE_S = 1.0
_IDLE_TIMEOUT_S = 60.0
_KEPT_BYTES = 4096
_FLOOD_BYTES = 8 * 2**20
_REPLY_OVERHEAD_BYTES = 64 * 1024
_MAX_OPENED = 32
_CHUNK = 1 << 18

_REPLY_KINDS = {
    kind.value: kind
    for kind in (
        FailureKind.SYNTAX,
        FailureKind.INTERFACE,
        FailureKind.CRASH,
        FailureKind.MEMORY,
        FailureKind.OUTPUT,
    )
}


@dataclass
class Account:
    """What a candidate's process left behind. Trusted, except `opened`, `stdout` and `stderr`."""

    cpu_s: float = 0.0
    """CPU seconds that the kernel charged to it and to descendants it waited for, less those of an idle child."""
    layers: tuple[str, ...] = ()
    denied: dict[str, int] = field(default_factory=dict)
    """By the kernel, counted by the fork server."""
    opened: dict[str, int] = field(default_factory=dict)
    """Attempts to open files outside of the jail, as the candidate's own process tells them: `open:/path` -> count."""
    stdout: str = ""
    stderr: str = ""


class _Tail:
    """The first and last bytes of a stream."""

    def __init__(self) -> None:
        self.total = 0
        self._head = b""
        self._tail = b""

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        room = _KEPT_BYTES - len(self._head)
        self._head += data[:room]
        self._tail = (self._tail + data[max(room, 0) :])[-_KEPT_BYTES:]

    def text(self) -> str:
        left_out = self.total - len(self._head) - len(self._tail)
        middle = f"\n... {left_out} bytes left out ...\n".encode() if left_out else b""
        return (self._head + middle + self._tail).decode(errors="replace")


class Child:
    """A candidate's process. Every method raises CandidateError or SlotError; then the process is already gone."""

    def __init__(self, server: ForkServer, deadline: float, cases: int = 1, build_terms: Limits | None = None) -> None:
        """`deadline` is that of the first case; the process may use CPU time for as many `cases`. With `build_terms` it
        is for the build step, under these limits."""
        self._server = server
        self._limits = limits = build_terms or server.limits
        began = time.monotonic()
        if build_terms is None:
            server.await_prepared()
        self.waited_s = time.monotonic() - began
        """For a prepared process: not the program's time, so `deadline` is as much later."""
        self.deadline = deadline + self.waited_s
        self.account = Account()
        self.pid: int | None = None
        self.before_renewal: Callable[[], None] | None = None
        """Called once it has ended as it should, while its scratch is still there. What it raises is raised."""
        self._prepared_cpu_s = 0.0
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._parser = FrameParser(self._nonce, limits.output_mb * 2**20 + _REPLY_OVERHEAD_BYTES)
        self._unsent = memoryview(b"")
        self._body: bytes | None = None
        self._ended: dict[str, Any] | None = None
        self._cause: CandidateError | None = None
        self._kill_at: float | None = None
        self._next_tick = 0.0
        self._tails: dict[int, _Tail] = {}
        self._channel, theirs = socket.socketpair()
        out_read, out_write = os.pipe2(os.O_CLOEXEC)
        err_read, err_write = os.pipe2(os.O_CLOEXEC)
        self._pipes = (out_read, err_read)
        try:
            cpu_s = (
                int(cases * max(1.0, self.deadline - time.monotonic()) * limits.threads * (1 + limits.processes)) + 2
            )
            server.send_fork(cpu_s, build_terms is not None, (theirs.fileno(), out_write, err_write))
        except SlotError:
            self._close()
            raise
        finally:
            theirs.close()
            os.close(out_write)
            os.close(err_write)
        self._poll = select.poll()
        self._prompt = True
        self._room = memoryview(bytearray(_CHUNK))
        # for `act`; everywhere else MSG_DONTWAIT
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", 0, int(1e6 * _TICK_S)))
        for fd in self._pipes:
            os.set_blocking(fd, False)
            self._tails[fd] = _Tail()
            self._poll.register(fd, select.POLLIN)
        self._events = select.POLLIN
        self._poll.register(self._channel.fileno(), self._events)
        self._poll.register(server.fileno(), select.POLLIN)

    def request(self, payload: Mapping[str, Any]) -> Any:
        """Send a request and return the value that the candidate gave back."""
        if not self._parser.empty:
            self._forged()
        self._unsent = memoryview(frame(self._nonce, encode(dict(payload))))
        self._body = None
        self._send_more()
        return self._answer()

    def act(self, observation: Any) -> Any:
        """The action of an interactive program that has acted before (`request` asks for the first, with its seed).

        A small array goes out and is waited for without looking at anything else for up to a tick: half the system
        calls of `request`, for those who ask thousands of times. A program that once took longer may have been waiting
        for us to read what it prints: it gets the poll from then on.
        """
        alone = encode_array(observation)
        in_turn = self._prompt and self._cause is None and self._parser.empty
        if alone is None or not in_turn or time.monotonic() >= min(self._next_tick, self.deadline):
            return self.request({"act": observation, "seed": None})
        data = frame(self._nonce, alone)
        try:
            sent = self._channel.send(data, socket.MSG_DONTWAIT)
        except OSError:  # full, or the process has ended: what follows finds out which
            sent = 0
        self._body = None
        if sent < len(data):
            self._unsent = memoryview(data)[sent:]
            self._send_more()
            return self._answer()
        try:
            got = self._channel.recv_into(self._room)
        except OSError:  # it takes longer than a tick, or has ended
            self._prompt = False
            return self._answer()
        body = self._parser.whole(self._room[:got])
        if body is not None:
            return self._read_reply(body)
        self._take(got)
        return self._answer()

    @contextlib.contextmanager
    def on_one_core(self) -> Iterator[None]:
        """Keep the calling thread and the process on the core where the thread runs now.

        They take turns: waking each other across cores would take several times as long as the call itself.
        """
        allowed = os.sched_getaffinity(0)
        try:
            core = {libc.current_core()}
            os.sched_setaffinity(0, core)
            if self.pid is not None:
                os.sched_setaffinity(self.pid, core)
        except OSError:  # the process has ended, or the machine does not let us: slower, not wrong
            os.sched_setaffinity(0, allowed)
        try:
            yield
        finally:
            os.sched_setaffinity(0, allowed)

    def _answer(self) -> Any:
        if self._body is None or self._cause is not None:
            self._pump(lambda: self._body is not None)
        body = self._body
        if body is None or not self._parser.empty:
            self._forged()
        self._body = None
        return self._read_reply(body)

    def _read_reply(self, body: bytes) -> Any:
        try:
            if is_array(body):
                return decode_array(body)
            reply = decode(body)
        except MalformedError as error:
            self._end_with(CandidateError(FailureKind.REWARD_HACKING, f"forged result: {error}"))
        if not isinstance(reply, dict) or not ({"ok"} <= reply.keys() or {"fail"} <= reply.keys()):
            self._forged()
        self._note_opened(reply.get("denied"))
        if "ok" in reply:
            return reply["ok"]
        kind = _REPLY_KINDS.get(str(reply["fail"]))
        if kind is None:
            self._forged()
        detail = " ".join(str(reply.get("detail", "")).split())[:400]
        self._end_with(CandidateError(kind, detail, str(reply.get("traceback", ""))[:8000]))

    def _note_opened(self, told: Any) -> None:
        if isinstance(told, dict):
            for key, count in list(told.items())[:_MAX_OPENED]:
                if isinstance(key, str) and key.startswith("open:") and type(count) is int and 0 < count < 10**9:
                    self.account.opened[key[:300]] = count

    def cpu_s(self) -> float:
        """CPU seconds of the process so far, from the kernel's CPU clock of it (clock_gettime(2)); 0 when it has ended.

        Its threads are counted, processes that it started are not. What an idle child costs is taken off.
        """
        if self.pid is None:
            return 0.0
        try:
            used_s = time.clock_gettime((~self.pid << 3) | 2) - self._prepared_cpu_s
            return max(0.0, used_s - self._server.idle_cpu_s)
        except OSError:
            return 0.0  # it has ended

    def finish(self) -> Account:
        """Let the process end and take its account; bytes after the last result are a forgery."""
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_WR)
        grace_ends = time.monotonic() + _END_GRACE_S
        self.deadline = float("inf")  # the results came in time
        self._pump(lambda: time.monotonic() > grace_ends, needs_answer=False)
        if self._ended is None:
            self._kill()
            self._pump(lambda: False, needs_answer=False)
        return self.account

    def abandon(self) -> None:
        """End the process at once, whatever it does."""
        if self._ended is None and self._channel.fileno() != -1:
            self._kill()
            with contextlib.suppress(CandidateError):
                self._pump(lambda: False, needs_answer=False)
        if self._channel.fileno() != -1:
            self._settle()

    def _forged(self) -> NoReturn:
        self._end_with(
            CandidateError(FailureKind.REWARD_HACKING, "forged result: bytes on the channel that nobody asked for")
        )

    def _end_with(self, cause: CandidateError) -> NoReturn:
        self._cause = self._cause or cause
        self.abandon()
        raise self._cause

    def _condemn(self, kind: FailureKind, detail: str) -> None:
        self._cause = self._cause or CandidateError(kind, detail)
        self._kill()

    def _kill(self) -> None:
        if self._kill_at is None:
            self._kill_at = time.monotonic()
            self._server.send({"op": "kill"})

    def _pump(self, done: Callable[[], bool], needs_answer: bool = True) -> None:
        """Serve all descriptors until `done`, or until the process has ended and its account is taken.

        Raises when it was condemned, or ended while it owed an answer.
        """
        while not done():
            if self._ended is not None:
                self._settle_end(needs_answer)
                return
            now = time.monotonic()
            if now >= self.deadline and self._cause is None:
                self._condemn(FailureKind.TIMEOUT, f"no result within {self._limits.case_timeout_s:g} s")
            if self._kill_at is not None and now > self._kill_at + _SILENCE_S:
                self._close()
                raise SlotError("the fork server did not end a process")
            if now >= self._next_tick:
                self._tick()
                spent_s = time.monotonic() - now
                self._next_tick = now + max(_TICK_S, 5 * spent_s)  # many files to count must not stop other slots
            for fd, event in self._poll.poll(1000 * _TICK_S):
                self._handle(fd, event)
        if self._cause is not None:
            self._end_with(self._cause)

    def _tick(self) -> None:
        if self._server.closing.is_set():
            self._close()
            raise SlotError("the evaluator was closed")
        limits = self._limits
        if self._cause is not None or self.pid is None:
            return
        pids = processes.descendants(self._server.pid) if limits.processes else [self.pid]
        if self._server.scratch.exceeds(limits.scratch_mb * 2**20 + 2**16, pids):
            self._condemn(FailureKind.OUTPUT, f"more than {limits.scratch_mb} MB of files written")
        watch, device_mb = self._server.device_memory, limits.device_memory_mb
        if watch is not None and watch.used_bytes(pids) > device_mb * 2**20:
            self._condemn(FailureKind.MEMORY, f"more than {device_mb} MB of GPU memory (limits.device_memory_mb)")

    def _handle(self, fd: int, event: int) -> None:
        if fd == self._server.fileno():
            self._hear_server()
        elif fd in self._tails:
            self._read_pipe(fd)
        else:
            if event & select.POLLOUT:
                self._send_more()
            if event & ~select.POLLOUT:
                self._read_channel()

    def _hear_server(self) -> None:
        try:
            message = self._server.receive(1.0)
        except SlotError:
            self._close()
            raise
        if message["op"] == "forked":
            self.pid = self._server.note_child(message)
            self._prepared_cpu_s = message["prepared_cpu_s"]
        elif message["op"] == "lost":
            self._close()
            raise SlotError("the process that was prepared for a program has died")
        elif message["op"] == "ended":
            self._ended = message
            for pipe in self._pipes:
                self._read_pipe(pipe)
            self._read_channel()

    def _read_pipe(self, fd: int) -> None:
        while True:
            try:
                data = os.read(fd, _CHUNK)
            except BlockingIOError:
                return
            if not data:
                with contextlib.suppress(KeyError):
                    self._poll.unregister(fd)
                return
            self._tails[fd].feed(data)
            if sum(tail.total for tail in self._tails.values()) > _FLOOD_BYTES:
                if self._cause is None:
                    self._condemn(FailureKind.OUTPUT, f"more than {_FLOOD_BYTES >> 20} MB printed")
                return

    def _send_more(self) -> None:
        """Send what goes through now; the poll tells when there is room for the rest."""
        try:
            sent = self._channel.send(self._unsent[:_CHUNK], socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:  # it has ended; the fork server will say how
            sent = len(self._unsent)
        self._unsent = self._unsent[sent:]
        events = select.POLLIN | select.POLLOUT if self._unsent else select.POLLIN
        if events != self._events:
            self._events = events
            with contextlib.suppress(FileNotFoundError):  # no longer polled: the stream has ended
                self._poll.modify(self._channel.fileno(), events)

    def _read_channel(self) -> None:
        while True:
            try:
                got = self._channel.recv_into(self._room, 0, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                got = 0
            self._take(got)
            if not got or (got < _CHUNK and self._ended is None):
                return

    def _take(self, got: int) -> None:
        """What has come over the channel, `got` bytes in `_room`; none: the stream has ended."""
        if not got:
            with contextlib.suppress(KeyError):
                self._poll.unregister(self._channel.fileno())
            return
        if self._cause is not None:
            return
        self._parser.feed(self._room[:got])
        try:
            if self._body is None:
                self._body = self._parser.next_body()
        except ForgedFrameError as error:
            self._condemn(FailureKind.REWARD_HACKING, f"forged result: {error}")
        except OversizedFrameError as error:
            self._condemn(FailureKind.OUTPUT, f"the result is too large: {error}")
        if self._body is not None and not self._parser.empty:
            self._condemn(FailureKind.REWARD_HACKING, "forged result: bytes after the result")

    def _settle_end(self, needs_answer: bool) -> None:
        """The process has ended: raise why, unless it was allowed to."""
        assert self._ended is not None
        ended = self._ended
        self._settle()
        if self._cause is not None:
            raise self._cause
        if ended["setup_error"] is not None:
            said = ended["setup_error"].strip().splitlines()[-1]
            raise SlotError(f"a candidate's process could not be made ready: {said}")
        if needs_answer or ended["reason"] is not None:
            raise cause_of_end(ended, self._limits)
        if self._body is not None or not self._parser.empty:
            raise CandidateError(FailureKind.REWARD_HACKING, "forged result: bytes after the result")

    def _settle(self) -> None:
        ended = self._ended
        if ended is not None:
            self.account.cpu_s = max(0.0, ended["cpu_s"] - self._server.idle_cpu_s)
            self.account.layers = tuple(ended["layers"])
            self.account.denied = ended["denied"]
        self.account.stdout, self.account.stderr = (self._tails[fd].text() for fd in self._pipes)
        self._close()
        try:
            if self.before_renewal is not None and self._cause is None and ended is not None and not ended["reason"]:
                self.before_renewal()
        finally:
            try:
                self._server.scratch.renew()
            except OSError as error:
                raise SlotError(f"cannot renew the scratch folder: {error}") from error

    def _close(self) -> None:
        if self._channel.fileno() != -1:
            self._channel.close()
            for fd in self._pipes:
                os.close(fd)


def measure_idle(server: ForkServer) -> None:
    """Measure the CPU time of a child that does nothing. It also proves that the jail can be entered.

    Raises SlotError when it cannot.
    """
    used = []
    for _ in range(3):
        child = Child(server, time.monotonic() + _IDLE_TIMEOUT_S)
        used.append(child.finish().cpu_s)
    server.idle_cpu_s = min(used)
