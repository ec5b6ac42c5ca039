"""The process above one program in the jail (`confined`): it puts the jail on, watches, and removes what is left.

Begun with a clean environment, since the program can read what the process that it was forked from was begun with.
Standard library only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import runpy
import select
import signal
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from adrs_ray.errors import UsageError

from . import interpreter, landlock, processes
from .builds import BUILD_FILES, BUILD_PROGRAMS
from .confined import KILLED, MEMORY_MB, THREADS, exit_code, open_descriptors
from .device_nodes import DeviceAccess, device_access
from .jail import Jail, enter, open_rules
from .libc import PR_SET_CHILD_SUBREAPER, machine_numbers, prctl
from .privileges import NOBODY, limit_memory
from .scratch import Scratch, sweep_abandoned
from .watch import Caps, end_child, end_descendants, excess

_SCRATCH_MB = 512
_TICK_S = 0.05
_ROOT = Path(__file__).resolve().parents[2]
_NO_JAIL = 2
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main(arguments: Sequence[str]) -> None:
    """Run the program; raises SystemExit with its code. SIGTERM, which also comes when the command ends, ends it.

    In the program's own process it raises what the program raises, so that the interpreter ends as it would have.
    """
    inherited = open_descriptors()
    options = _options(arguments)
    if not landlock.abi() or machine_numbers() is None:
        print("confined: this machine has no Landlock (Linux 5.13), or is not known to our jail", file=sys.stderr)
        raise SystemExit(_NO_JAIL)
    try:
        access = device_access(options.devices)
    except (UsageError, OSError) as error:
        print(f"confined: {error}", file=sys.stderr)
        raise SystemExit(_NO_JAIL) from None
    sweep_abandoned()
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    script = [options.program] if options.program.endswith(".py") else []
    needed = [*options.readable, *script, str(_ROOT / "gpu_eval")]
    uid = NOBODY if interpreter.can_become_nobody(needed) else None
    for number in _ENDING:
        signal.signal(number, _stop)
    pid = parent = os.getpid()
    scratch = Scratch(uid)
    try:
        jail = _jail(options, [*needed, *access.readable], access, uid, str(scratch.path))
        pid = os.fork()
        if pid == 0:
            _become_the_program(jail, options, access, parent, inherited)
            return
        for fd in inherited - {2}:
            os.close(fd)
        code = _watch(pid, options, scratch, watch_memory=jail.devices)
    finally:
        if pid:
            end_descendants()
            scratch.remove()
    raise SystemExit(code)


def _stop(_signal: int, _frame: FrameType | None) -> NoReturn:
    for number in _ENDING:
        signal.signal(number, signal.SIG_IGN)  # once is enough: cleaning up is not to be interrupted
    raise SystemExit(KILLED)


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


def _jail(
    options: argparse.Namespace, also_readable: Sequence[str], access: DeviceAccess, uid: int | None, scratch: str
) -> Jail:
    readable, listable = interpreter.readable_paths([])
    readable += [*also_readable, *(BUILD_FILES if options.processes else ())]
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
    """In the forked process: run it to its end."""
    os.setsid()
    for number in _ENDING:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    os.environ.update(TMPDIR=jail.scratch, HOME=jail.scratch)
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
    resident_bytes = options.memory_mb * 2**20 if watch_memory else None
    caps, base_bytes = Caps(options.processes, options.threads, resident_bytes), processes.held_bytes(os.getpid())
    told = {
        "processes": f"{options.processes} processes",
        "threads": f"{options.threads} threads",
        "memory": f"{options.memory_mb} MB of memory",
    }
    pidfd = os.pidfd_open(pid)
    while not select.select([pidfd], [], [], _TICK_S)[0]:
        members = processes.descendants(os.getpid())
        passed = excess(members, caps, base_bytes)
        if passed is not None or scratch.exceeds(_SCRATCH_MB * 2**20, members):
            more = f"{_SCRATCH_MB} MB of files written" if passed is None else told[passed]
            print(f"confined: killed: more than {more}", file=sys.stderr)
            break
    return exit_code(end_child(pid, ())[0])
