"""`python -m adrs_ray.evaluator.confined [options] -- MODULE_OR_SCRIPT [arguments]`: a Python program in the jail, for
benchmarks that time programs themselves.

The jail is that of candidates (docs/jail.md), without seccomp's listener: calls are denied and not counted. Descriptors
that are open at the start stay open, so pipes and sockets that the caller passes on lead straight to the program; this
process keeps none of them but standard error. It stays beside the program as its watchdog, and ends as it did. Of this
project only `gpu_eval` can be imported. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import runpy
import select
import signal
import sys
import traceback
from collections.abc import Collection, Sequence
from pathlib import Path

from . import interpreter, landlock, processes
from .builds import BUILD_FILES, BUILD_PROGRAMS
from .device_nodes import DeviceAccess, device_access
from .jail import Jail, enter, open_rules
from .libc import PR_SET_CHILD_SUBREAPER, machine_numbers, prctl
from .privileges import NOBODY, limit_memory
from .scratch import Scratch, sweep_abandoned
from .watch import end_child, end_descendants

MEMORY_MB, THREADS = 4096, 16
_SCRATCH_MB = 512
_TICK_S = 0.05
_KEPT_VARIABLES = ("LANG", "PYTHONHASHSEED", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS",
                   "NUMBA_NUM_THREADS", "LD_LIBRARY_PATH")  # fmt: skip
_ROOT = Path(__file__).resolve().parents[2]
_NO_JAIL, _KILLED = 2, 137


def confined_command(
    program: Sequence[str],
    *,
    readable: Sequence[str] = (),
    devices: str = "",
    memory_mb: int = MEMORY_MB,
    threads: int = THREADS,
    processes: int = 0,
    python: str = sys.executable,
) -> list[str]:
    """The command that runs a module or a script (`program`, with its arguments) in the jail.

    `readable`: files and folders that it may read besides libraries and gpu_eval. `devices`: GPUs, as
    CUDA_VISIBLE_DEVICES names them. `memory_mb`: address space; with devices what is resident. `processes`: 0: none and
    no exec; else compilers can be run too. It ends with the program's exit code, 137 when it was killed or more than it
    may, 2 with one line on standard error when there is no jail to be had here.
    """
    options = [word for path in readable for word in ("--readable", path)]
    options += ["--memory-mb", str(memory_mb), "--threads", str(threads), "--processes", str(processes)]
    options += ["--devices", devices] if devices else []
    bootstrap = str(Path(__file__).with_name("bootstrap.py"))
    return [python, "-s", "-P", "-B", bootstrap, "confined", *options, "--", *program]


def main(arguments: Sequence[str]) -> None:
    """Run the program; raises SystemExit with its code."""
    inherited = _open_descriptors()
    options = _options(arguments)
    if not landlock.abi() or machine_numbers() is None:
        print("confined: this machine has no Landlock (Linux 5.13), or is not known to our jail", file=sys.stderr)
        raise SystemExit(_NO_JAIL)
    try:
        access = device_access(options.devices)
    except Exception as error:  # one line for whoever called; the type is not importable there
        print(f"confined: {error}", file=sys.stderr)
        raise SystemExit(_NO_JAIL) from None
    sweep_abandoned()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    uid = NOBODY if interpreter.can_become_nobody([*options.readable, str(_ROOT / "gpu_eval")]) else None
    scratch = Scratch(uid)
    try:
        jail = _jail(options, access, uid, str(scratch.path))
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become_the_program(jail, options, access, parent, inherited)
        for fd in inherited - {2}:
            os.close(fd)
        code = _watch(pid, options, scratch, watch_memory=bool(access.visible))
    finally:
        end_descendants()
        scratch.remove()
    raise SystemExit(code)


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m adrs_ray.evaluator.confined", description="Run in the jail.")
    parser.add_argument("--readable", action="append", default=[], metavar="PATH", help="may be read, with all below")
    parser.add_argument("--devices", default="", help="GPUs, as CUDA_VISIBLE_DEVICES names them")
    parser.add_argument("--memory-mb", type=int, default=MEMORY_MB, help="address space; with devices what is resident")
    parser.add_argument("--threads", type=int, default=THREADS, help="killed beyond twice as many")
    parser.add_argument("--processes", type=int, default=0, help="that it may start; killed beyond twice as many")
    parser.add_argument("program", help="a module, or a file that ends in .py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser.parse_args(arguments)


def _open_descriptors() -> set[int]:
    found = set()
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):  # the listing's own
            os.fstat(fd)
            found.add(fd)
    return found


def _jail(options: argparse.Namespace, access: DeviceAccess, uid: int | None, scratch: str) -> Jail:
    readable, listable = interpreter.readable_paths([])
    script = [options.program] if options.program.endswith(".py") else []
    compilers = BUILD_FILES if options.processes else ()
    readable += [*options.readable, *script, *access.readable, *compilers, str(_ROOT / "gpu_eval")]
    programs = (os.path.realpath(sys.executable), "/bin", "/usr/bin", *BUILD_PROGRAMS)
    return Jail(
        strict=True,
        landlock_abi=landlock.abi(),
        uid=uid,
        rules=open_rules(readable, listable, programs, options.processes, access.nodes),
        scratch=scratch,
        memory_mb=options.memory_mb,
        scratch_mb=_SCRATCH_MB,
        processes=options.processes,
        devices=bool(access.visible),
        listener=False,
    )


def _become_the_program(
    jail: Jail, options: argparse.Namespace, access: DeviceAccess, parent: int, keep: Collection[int]
) -> None:
    """In the forked process; never returns."""
    code = 1
    try:
        os.setsid()
        files = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        path = os.environ.get("PATH", "/usr/bin:/bin")
        os.environ.clear()
        os.environ.update(files, PATH=path, TMPDIR=jail.scratch, HOME=jail.scratch)
        os.environ.update(CUDA_VISIBLE_DEVICES=access.visible, CUDA_DEVICE_ORDER="PCI_BUS_ID", CUDA_CACHE_DISABLE="1")
        program = os.path.abspath(options.program) if options.program.endswith(".py") else options.program
        os.chdir(jail.scratch)
        enter(jail, parent, keep)
        if not jail.devices:
            limit_memory(jail.memory_mb)
        _hide_this_project()
        sys.argv[:] = [program, *options.arguments]
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # the boundary: what the interpreter would do with it
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):
                stream.flush()
        os._exit(code & 0xFF)


def _hide_this_project() -> None:
    """Nothing of ours can be imported from here on but gpu_eval."""
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) != str(_ROOT)]
    sys.meta_path[:] = [finder for finder in sys.meta_path if "adrs_ray" not in getattr(finder, "__module__", "")]
    for name in ("adrs_ray", "adrs_ray.evaluator"):
        sys.modules[name].__path__ = []
    folder = _ROOT / "gpu_eval"
    spec = importlib.util.spec_from_file_location(
        "gpu_eval", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is not None and spec.loader is not None and folder.is_dir():
        module = importlib.util.module_from_spec(spec)
        sys.modules["gpu_eval"] = module
        spec.loader.exec_module(module)


def _watch(pid: int, options: argparse.Namespace, scratch: Scratch, watch_memory: bool) -> int:
    """Until the program has ended, or must: its exit code."""
    caller = os.getppid()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: processes.kill(pid))
    base_bytes = processes.resident_bytes(os.getpid())
    pidfd = os.pidfd_open(pid)
    try:
        while not select.select([pidfd], [], [], _TICK_S)[0]:
            members = processes.descendants(os.getpid())
            excess = _excess(members, options, base_bytes if watch_memory else None)
            if excess is None and scratch.exceeds(_SCRATCH_MB * 2**20, members):
                excess = f"more than {_SCRATCH_MB} MB of files written"
            if excess is not None:
                print(f"confined: killed: {excess}", file=sys.stderr)
            if excess is not None or os.getppid() != caller:
                break
    finally:
        os.close(pidfd)
    status, _ = end_child(pid, ())
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else _KILLED


def _excess(members: Sequence[int], options: argparse.Namespace, base_bytes: int | None) -> str | None:
    if len(members) > 1 + 2 * options.processes:
        return f"more than {options.processes} processes"
    if any(processes.thread_count(pid) > 2 * options.threads for pid in members):
        return f"more than {options.threads} threads"
    if base_bytes is not None:
        grown = sum(max(0, processes.resident_bytes(pid) - base_bytes) for pid in members)
        if grown > options.memory_mb * 2**20:
            return f"more than {options.memory_mb} MB of memory"
    return None


if __name__ == "__main__":
    command = confined_command([])[:-1]
    os.execv(command[0], [*command[: command.index("confined") + 1], *sys.argv[1:]])
