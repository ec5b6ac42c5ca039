"""A candidate's process: from the fork to the end of its stream of requests.

The worker at the other end of the channel trusts nothing from here: the candidate shares this process and may change
any of this code. What counts is decided elsewhere: by the jail, by the fork server's accounts, by the judge.

Requests (codec values): {"load": source, "seed": n}, {"run": public, "seed": n}, {"act": observation, "seed": n}
(the seed of an act after the first is None); an array alone is the observation of such an act.
Replies: {"ok": value, "denied": {...}} or {"fail": kind, "detail": line, "traceback": text, "denied": {...}}; an array
alone is a value, with nothing denied.
Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import linecache
import os
import random
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from .channel import FrameReceiver, frame, send_message
from .codec import UnencodableError, decode, decode_array, encode, encode_array, is_array
from .jail import Jail, enter
from .seccomp import SETUP_FD

PROGRAM_FILE = "<candidate>"
TRACEBACK_CHARS = 4000
DETAIL_CHARS = 300
_MAX_DENIED = 32
_CHANNEL_FD = 3
_ROUNDS_BETWEEN_FLUSHES = 64
"""Of a game's quick rounds: what a program prints is shown when it ends or fails, and rarely needed before."""
_KEPT_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_TOLERATED = ("chmod", "fchmod", "lchmod", "chown", "fchown", "lchown", "utime")


@dataclass(frozen=True)
class Program:
    """What the fork server knows about running programs of its task."""

    adapter: ModuleType
    entry: tuple[str, ...]
    scratch: str
    readable: tuple[str, ...]
    output_bytes: int
    processes: int


class _InterfaceError(Exception):
    """The program does not define what the task asks for; adapters that look have an `InterfaceError` too."""


def main(jail: Jail, program: Program, parent: int, cpu_s: int, descriptors: Sequence[int]) -> None:
    """Everything a child does after the fork; never returns."""
    code = 70
    try:
        _take_over(descriptors)
        setup_socket = socket.socket(fileno=SETUP_FD)
        try:
            layers, listener = _prepare(jail, program, parent, cpu_s)
        except BaseException:
            send_message(setup_socket, {"error": traceback.format_exc()[-TRACEBACK_CHARS:]})
            raise
        send_message(setup_socket, {"layers": list(layers)}, [] if listener is None else [listener])
        if listener is not None:
            os.close(listener)
        setup_socket.close()
        _serve(socket.socket(fileno=_CHANNEL_FD), program)
        code = 0
    except BaseException:  # the boundary: what goes wrong here is told on standard error, which the worker reads
        traceback.print_exc()
        _flush()
    finally:
        os._exit(code)


def _take_over(descriptors: Sequence[int]) -> None:
    """A session of its own, and the descriptors (channel, stdout, stderr, setup) at fixed numbers."""
    os.setsid()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_DFL)
    # first out of the way, so that none is overwritten before it is moved
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in descriptors]
    for fd, wanted in zip(moved, (_CHANNEL_FD, 1, 2, SETUP_FD), strict=True):
        os.dup2(fd, wanted, inheritable=wanted <= 2)


def _prepare(jail: Jail, program: Program, parent: int, cpu_s: int) -> tuple[tuple[str, ...], int | None]:
    os.chdir(program.scratch)
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    if program.processes:
        kept |= {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": program.scratch, "TMPDIR": program.scratch}
    os.environ.clear()
    os.environ.update(kept)
    if jail.strict:
        for name in _TOLERATED:
            if hasattr(os, name):
                setattr(os, name, _tolerant(getattr(os, name)))
    return enter(jail, parent, cpu_s, keep=(0, 1, 2, _CHANNEL_FD, SETUP_FD))


def _tolerant(call: Callable[..., None]) -> Callable[..., None]:
    """Library code sets modes and times as a courtesy; that the jail forbids it shall not make it fail."""

    def tolerate(*args: Any, **named: Any) -> None:
        with contextlib.suppress(PermissionError):
            call(*args, **named)

    return tolerate


def _serve(channel: socket.socket, program: Program) -> None:
    denied = _watch_opens(program)
    loaded: Any = None
    first = True
    rounds = 0
    told: dict[str, int] = {}
    frames = FrameReceiver(channel)
    while (received := frames.receive()) is not None:
        nonce, body = received
        request = {"act": decode_array(body)} if is_array(body) else decode(body, max_values=None)
        del received, body
        if request.get("seed") is not None:
            _seed(request["seed"])
        if first:
            first = False
            gc.enable()
        try:
            if "load" in request:
                loaded = _load(program, request["load"])
                result: Any = None
            elif "run" in request:
                result = program.adapter.run(loaded, request["run"])
            else:
                result = program.adapter.act(loaded, request["act"])
            alone = encode_array(result) if denied == told else None
            reply = alone or encode({"ok": result, "denied": dict(denied)}, program.output_bytes)
            told = dict(denied) if denied else told
        except BaseException as error:  # the boundary: whatever a program raises becomes a reply
            reply = encode({**_describe(error, program), "denied": dict(denied)})
        rounds += 1
        if not is_array(reply) or rounds % _ROUNDS_BETWEEN_FLUSHES == 0:
            _flush()
        channel.sendall(frame(nonce, reply))
    _flush()


def _flush() -> None:
    for stream in (sys.__stdout__, sys.__stderr__, sys.stdout, sys.stderr):
        try:  # contextlib.suppress would cost as much as the flush
            stream.flush()  # type: ignore[union-attr]
        except Exception:
            pass


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def _load(program: Program, source: str) -> Any:
    load = getattr(program.adapter, "load", None)
    if load is not None:
        return load(source)
    try:
        code = compile(source, PROGRAM_FILE, "exec", dont_inherit=True)
    except ValueError as error:  # lone surrogates; before 3.11.4 also null characters
        raise SyntaxError(str(error)) from None
    module = ModuleType("candidate")
    module.__file__ = PROGRAM_FILE
    sys.modules["candidate"] = module
    linecache.cache[PROGRAM_FILE] = (len(source), None, source.splitlines(keepends=True), PROGRAM_FILE)
    exec(code, module.__dict__)
    if program.entry and not any(callable(getattr(module, name, None)) for name in program.entry):
        raise _InterfaceError(f"the program must define {' or '.join(program.entry)} (a function or class)")
    return module


def _describe(error: BaseException, program: Program) -> dict[str, str]:
    """The kind, one line, and the traceback of the candidate's own frames."""
    if isinstance(error, SyntaxError) and error.filename in (None, PROGRAM_FILE, os.path.abspath("program.py")):
        kind, line = "syntax", f"line {error.lineno}: {error.msg}" if error.lineno else error.msg
    elif isinstance(error, _InterfaceError) or _is_adapters(error, program):
        kind, line = "interface", str(error)
    elif isinstance(error, UnencodableError):
        kind, line = "output", str(error)
    elif isinstance(error, MemoryError):
        kind, line = "memory", _one_line(error)
    elif isinstance(error, SystemExit):
        kind, line = "crash", f"the program called exit({error.code!r:.40})"
    else:
        kind, line = "crash", _one_line(error)
    frames = [] if kind == "syntax" else _own_frames(error)
    if frames and kind in ("crash", "memory"):
        line += f" (line {frames[-1].lineno})" if frames[-1].filename == PROGRAM_FILE else ""
    text = "".join(traceback.format_list(frames)) + "".join(_exception_only(error))
    return {"fail": kind, "detail": line[:DETAIL_CHARS], "traceback": text[-TRACEBACK_CHARS:]}


def _is_adapters(error: BaseException, program: Program) -> bool:
    kind = getattr(program.adapter, "InterfaceError", None)
    return type(error) is kind  # no subclass: a program's own could fail to print


def _one_line(error: BaseException) -> str:
    try:
        said = " ".join(str(error).split())
    except Exception:  # a program's exception may fail even at this
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _exception_only(error: BaseException) -> Sequence[str]:
    try:
        return traceback.format_exception_only(error)
    except Exception:  # see _one_line
        return [type(error).__name__]


def _own_frames(error: BaseException) -> list[traceback.FrameSummary]:
    walked = traceback.walk_tb(error.__traceback__)
    # lines are read of the frames that are kept only: files of ours cannot be opened here
    frames = list(traceback.StackSummary.extract(walked, lookup_lines=False))[-50:]
    scratch = os.getcwd() + os.sep
    own = [f for f in frames if f.filename == PROGRAM_FILE or f.filename.startswith(scratch)]
    return own or [f for f in frames if f.filename != __file__]


def _watch_opens(program: Program) -> dict[str, int]:
    """Counts of opens outside of what the jail lets be opened: the candidate's own account, and bounded."""
    denied: dict[str, int] = {}
    allowed = (program.scratch, *program.readable, "/dev/null", "/proc/self", f"/proc/{os.getpid()}")
    folders = tuple(path + os.sep for path in allowed)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(args[0], str | bytes):
            return
        path = os.path.realpath(os.fsdecode(args[0]))
        if path in allowed or path.startswith(folders):
            return
        key = f"open:{path[:200]}"
        if key in denied or len(denied) < _MAX_DENIED:
            denied[key] = denied.get(key, 0) + 1

    sys.addaudithook(hook)
    return denied
