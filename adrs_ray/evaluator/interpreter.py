"""What an interpreter needs to read, and whether an ordinary user could: asked of it before fork servers start.

`main` runs under the interpreter that candidates will use: it reads a JSON request from standard input and writes a
JSON answer. Standard library only: loaded by its path.
"""

from __future__ import annotations

import importlib.util
import json
import os
import site
import sys
import sysconfig
from collections.abc import Iterable

from . import landlock
from .libc import machine_numbers
from .privileges import NOBODY, drop_privileges

_OURS = frozenset({"adrs_ray", "cluster", "tasks", "gpu_eval"})
_SYSTEM = ("/lib", "/lib32", "/lib64", "/libx32", "/usr/lib", "/usr/lib32", "/usr/lib64", "/usr/libx32",
           "/etc/ld.so.cache", "/etc/localtime", "/usr/share/zoneinfo", "/dev/zero", "/dev/random", "/dev/urandom",
           "/proc/cpuinfo", "/proc/meminfo", "/proc/sys/vm/overcommit_memory", "/sys/devices/system/cpu")  # fmt: skip
_PROGRAMS = ("/bin", "/usr/bin")


def main(_arguments: list[str]) -> None:
    """Answer the request {"forbidden": [paths], "needed": [paths]}.

    `forbidden` is left out of what candidates may read; `needed` must be readable by an ordinary user before
    candidates can become one (`nobody` in the answer). `confinement.choose_confinement` reads the answer.
    """
    request = json.load(sys.stdin)
    readable, listable = readable_paths(request["forbidden"])
    answer = {
        "version": list(sys.version_info[:3]),
        "readable": readable,
        "listable": listable,
        "executable": [os.path.realpath(sys.executable), *filter(os.path.isdir, _PROGRAMS)],
        "landlock_abi": landlock.abi(),
        "machine": os.uname().machine,
        "machine_known": machine_numbers() is not None,
        "nobody": can_become_nobody(request["needed"]),
    }
    json.dump(answer, sys.stdout)


def readable_paths(forbidden: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files and folders that running Python takes, without the forbidden ones and without this project's packages.

    Second: folders of which only parts are readable. They must be listable, or the import system finds nothing there.
    """
    packages = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), *site.getsitepackages()]
    roots = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *packages]
    roots += [os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")]
    roots += [sysconfig.get_path("include"), sys.executable, os.path.join(sys.prefix, "pyvenv.cfg"), *_SYSTEM]
    hidden = {os.path.realpath(path) for path in forbidden}
    for folder in map(os.path.realpath, packages):
        if os.path.isdir(os.path.join(folder, "adrs_ray")):
            hidden |= {os.path.join(folder, name) for name in _OURS}
    found: list[str] = []
    listable: list[str] = []
    for root in dict.fromkeys(map(os.path.realpath, roots)):
        if os.path.exists(root):
            found += _without(root, hidden, listable)
    return list(dict.fromkeys(found)), list(dict.fromkeys(listable))


def _entries(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _without(path: str, hidden: set[str], listable: list[str]) -> list[str]:
    if path in hidden:
        return []
    if not any(other.startswith(path + os.sep) for other in hidden):
        return [path]
    listable.append(path)
    inner = [os.path.realpath(os.path.join(path, name)) for name in _entries(path)]
    return [part for entry in inner for part in _without(entry, hidden, listable)]


def can_become_nobody(needed: Iterable[str]) -> bool:
    """Whether this process is root, and an ordinary user could read the interpreter and what else is `needed`."""
    return os.geteuid() == 0 and _readable_by_nobody([*_own_files(), *needed])


def _own_files() -> list[str]:
    modules = [importlib.util.find_spec(name) for name in ("os", "json", "numpy", "_ctypes", "_random")]
    files = [spec.origin for spec in modules if spec is not None and spec.origin is not None]
    return [sys.executable, *(file for file in files if os.path.isabs(file))]


def _readable_by_nobody(paths: list[str]) -> bool:
    """Tried in a process that has become nobody: access(2) alone knows nothing of the folders above being closed."""
    pid = os.fork()
    if pid == 0:
        try:
            drop_privileges(NOBODY)
            for path in paths:
                if os.path.isdir(path):
                    os.listdir(path)
                else:
                    with open(path, "rb") as file:
                        file.read(1)
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0
