"""A candidate's process: from the fork to the end of its stream of requests.

The worker at the other end of the channel trusts nothing from here: the candidate shares this process and may change
any of this code. What counts is decided elsewhere: by the jail, by the fork server's accounts, by the judge.

Requests (codec values): {"load": source, "seed": n}, {"run": public, "seed": n}, {"act": observation, "seed": n}
(the seed of an act after the first is None); an array alone is the observation of such an act.
Replies: {"ok": value, "denied": {...}} or {"fail": kind, "detail": line, "traceback": text, "denied": {...}}; an array
alone is a value, with nothing denied. In the build step {"build": true} follows the load, and is answered with None.
A program of several files (`adrs_ray.bundle`) is its first file; the others are modules that it imports by name.
Standard library only: fork servers load this file by its path.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib.abc
import importlib.machinery
import importlib.util
import linecache
import os
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

from ..bundle import MAIN, split
from . import numba_cache
from .channel import FrameReceiver, frame, receive_message, send_message
from .codec import UnencodableError, decode, decode_array, encode, encode_array, is_array
from .jail import Jail, enter, limit_program
from .seccomp import SETUP_FD

PROGRAM_FILE = "<candidate>"
"""The file of a program in tracebacks; of a program of several files `<candidate>/<name>`."""
TRACEBACK_CHARS = 4000
DETAIL_CHARS = 300
_MAX_DENIED = 32
_CHANNEL_FD = 3
_ROUNDS_BETWEEN_FLUSHES = 64
"""Of a game's quick rounds: what a program prints is shown when it ends or fails, and rarely needed before."""
_DEVICES = "CUDA_VISIBLE_DEVICES"
_KEPT_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS",
                   _DEVICES, "CUDA_DEVICE_ORDER", "CUDA_CACHE_DISABLE")  # fmt: skip
_CACHES = {"TRITON_CACHE_DIR": "triton", "TORCHINDUCTOR_CACHE_DIR": "inductor", "TORCH_EXTENSIONS_DIR": "extensions",
           "NUMBA_CACHE_DIR": "numba", "CUDA_CACHE_PATH": "cuda"}  # fmt: skip
"""Where compilers keep their products: folders of the built one."""
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
    devices: str
    """What CUDA_VISIBLE_DEVICES must say before a program is loaded."""
    built: str | None
    """The folder of what the program had built, or in the build step what it is to fill; None: no such step."""
    builds: bool
    """Whether this is the build step."""


class _InterfaceError(Exception):
    """The program does not define what the task asks for; adapters that look have an `InterfaceError` too."""


def main(jail: Jail, program: Program, parent: int, cpu_s: int, descriptors: Sequence[int]) -> None:
    """Everything a child does after the fork; never returns. `descriptors`: channel, stdout, stderr, setup."""

    def life() -> None:
        _leave_the_servers_session()
        _place(descriptors, (_CHANNEL_FD, 1, 2, SETUP_FD))
        with socket.socket(fileno=SETUP_FD) as setup_socket, _told(setup_socket):
            layers, listener = _enter_jail(jail, program, parent)
            limit_program(jail, cpu_s)
            _tell_jailed(setup_socket, layers, listener, prepared_cpu_s=0.0)
        _serve(socket.socket(fileno=_CHANNEL_FD), program)

    _live(life)


def main_of_spare(jail: Jail, program: Program, parent: int, setup: int) -> None:
    """As `main`, of a child that prepares itself and then waits for its program: for the message {"cpu_s": n} with the
    descriptors channel, stdout and stderr, over `setup`, where it says that it has them."""

    def life() -> None:
        _leave_the_servers_session()
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        # the channel's number is taken too, or something that prepare() opens would lie there
        _place([nowhere, os.dup(nowhere), setup], (_CHANNEL_FD, 2, SETUP_FD))
        with socket.socket(fileno=SETUP_FD) as setup_socket:
            with _told(setup_socket):
                layers, listener = _enter_jail(jail, program, parent)
                _tell_jailed(setup_socket, layers, listener)
                prepare = getattr(program.adapter, "prepare", None)
                if prepare is not None:
                    prepare()
                _flush()
                send_message(setup_socket, {"prepared_cpu_s": time.process_time()})
            received = receive_message(setup_socket)
            if received is None:
                return
            message, descriptors = received
            _place(descriptors, (_CHANNEL_FD, 1, 2))
            limit_program(jail, message["cpu_s"])
            send_message(setup_socket, {"taken": True})
        _serve(socket.socket(fileno=_CHANNEL_FD), program)

    _live(life)


def _live(life: Callable[[], None]) -> None:
    code = 70
    try:
        life()
        code = 0
    except BaseException:  # the boundary: what goes wrong here is told on standard error, which the worker reads
        traceback.print_exc()
        _flush()
    finally:
        os._exit(code)


def _leave_the_servers_session() -> None:
    os.setsid()
    for sig in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sig, signal.SIG_DFL)


def _place(descriptors: Sequence[int], numbers: Sequence[int]) -> None:
    """Put the descriptors at fixed numbers, and nowhere else."""
    # first out of the way, so that none is overwritten before it is moved
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 16) for fd in descriptors]
    for fd in descriptors:
        os.close(fd)
    for fd, wanted in zip(moved, numbers, strict=True):
        os.dup2(fd, wanted, inheritable=wanted <= 2)
        os.close(fd)


@contextlib.contextmanager
def _told(setup_socket: socket.socket) -> Iterator[None]:
    """What goes wrong before there is a program is told to the fork server."""
    try:
        yield
    except BaseException:
        send_message(setup_socket, {"error": traceback.format_exc()[-TRACEBACK_CHARS:]})
        raise


def _tell_jailed(setup_socket: socket.socket, layers: Sequence[str], listener: int | None, **more: float) -> None:
    send_message(setup_socket, {"layers": list(layers), **more}, [] if listener is None else [listener])
    if listener is not None:
        os.close(listener)


def _enter_jail(jail: Jail, program: Program, parent: int) -> tuple[tuple[str, ...], int | None]:
    seen = os.environ.get(_DEVICES)
    if seen != program.devices:  # the adapter or what it imports has changed it
        raise RuntimeError(f"{_DEVICES} is {seen!r} in a candidate's process, this slot has {program.devices!r}")
    os.chdir(program.scratch)
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    if program.processes:
        kept |= {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": program.scratch, "TMPDIR": program.scratch}
    if program.built is not None:
        kept.pop("CUDA_CACHE_DISABLE", None)
        kept |= {name: os.path.join(program.built, folder) for name, folder in _CACHES.items()}
        kept |= {"ADRS_BUILD_DIR": program.built, "TMPDIR": program.scratch}
    os.environ.clear()
    os.environ.update(kept)
    if jail.strict:
        for name in _TOLERATED:
            if hasattr(os, name):
                setattr(os, name, _tolerant(getattr(os, name)))
    entered = enter(jail, parent, keep=(0, 1, 2, _CHANNEL_FD, SETUP_FD))
    if program.builds and program.built is not None:
        os.mkdir(program.built)
    return entered


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
            elif "build" in request:
                program.adapter.build(loaded, program.built)
                result = None
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
    try:
        files = split(source)
    except ValueError as error:
        raise SyntaxError(str(error)) from None
    if program.built is not None and "numba" in source:
        numba_cache.use(os.environ["NUMBA_CACHE_DIR"], source, _is_programs, program.builds)
    main, *others = files
    if others:
        for name in others:  # a process that is shared may have loaded them before
            sys.modules.pop(_module_name(name), None)
        sys.meta_path.insert(0, _Files({_module_name(name): files[name] for name in others}))
    load = getattr(program.adapter, "load", None)
    if load is not None:
        return load(files[main])
    file = PROGRAM_FILE if files.keys() == {MAIN} else _path(main)
    code = _compiled(files[main], file)
    module = ModuleType("candidate")
    module.__file__ = file
    sys.modules["candidate"] = module
    if others:
        sys.modules[_module_name(main)] = module
    exec(code, module.__dict__)
    if program.entry and not any(callable(getattr(module, name, None)) for name in program.entry):
        raise _InterfaceError(f"the program must define {' or '.join(program.entry)} (a function or class)")
    return module


class _Files(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the further files of a program, by module name."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._files:
            return None
        return importlib.util.spec_from_loader(fullname, self, origin=_path(fullname + ".py"))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = _path(module.__name__ + ".py")
        exec(_compiled(self._files[module.__name__], module.__file__), module.__dict__)


def _module_name(file: str) -> str:
    return file.removesuffix(".py")


def _path(name: str) -> str:
    return f"{PROGRAM_FILE}/{name}"


def _compiled(source: str, file: str) -> CodeType:
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    try:
        return compile(source, file, "exec", dont_inherit=True)
    except ValueError as error:  # lone surrogates; before 3.11.4 also null characters
        raise SyntaxError(str(error)) from None


def _is_programs(file: str) -> bool:
    return file == PROGRAM_FILE or file.startswith(_path(""))


def _line_in(file: str, line: int | None) -> str:
    name = file.removeprefix(PROGRAM_FILE).removeprefix("/")
    return f"{name} line {line}" if name else f"line {line}"


def _describe(error: BaseException, program: Program) -> dict[str, str]:
    """The kind, one line, and the traceback of the candidate's own frames."""
    if isinstance(error, SyntaxError) and _is_its_own(error):
        file = error.filename if error.filename and _is_programs(error.filename) else PROGRAM_FILE
        kind, line = "syntax", f"{_line_in(file, error.lineno)}: {error.msg}" if error.lineno else error.msg
    elif isinstance(error, _InterfaceError) or _is_adapters(error, program):
        kind, line = "interface", str(error)
    elif isinstance(error, UnencodableError):
        kind, line = "output", str(error)
    elif isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a device
        kind, line = "memory", _one_line(error)
    elif isinstance(error, SystemExit):
        kind, line = "crash", f"the program called exit({error.code!r:.40})"
    else:
        kind, line = "crash", _one_line(error)
    frames = [] if kind == "syntax" else _own_frames(error)
    if frames and kind in ("crash", "memory"):
        last = frames[-1]
        line += f" ({_line_in(last.filename, last.lineno)})" if _is_programs(last.filename) else ""
    text = "".join(traceback.format_list(frames)) + "".join(_exception_only(error))
    return {"fail": kind, "detail": line[:DETAIL_CHARS], "traceback": text[-TRACEBACK_CHARS:]}


def _is_its_own(error: SyntaxError) -> bool:
    """Whether it is about the program's text, not about another module or a string that it compiled."""
    return error.filename is None or error.filename == os.path.abspath("program.py") or _is_programs(error.filename)


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
    own = [f for f in frames if _is_programs(f.filename) or f.filename.startswith(scratch)]
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
