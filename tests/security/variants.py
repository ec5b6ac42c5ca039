"""The two ways in which a jail takes root's power away, each made available to tests on purpose."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from adrs_ray.candidate import Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator import EvaluationJob, confinement, local
from adrs_ray.evaluator.confinement import Confinement, choose_confinement
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Split, Task

VARIANTS = ("no capabilities", "dropped user", "no listener", "bubblewrap")

_LISTENING = """\
#!{python}
import os, sys
for name in ("adrs_ray", "adrs_ray.evaluator"):
    shell = type(sys)(name)
    shell.__path__ = [os.path.join({root!r}, *name.split("."))]
    sys.modules[name] = shell
from adrs_ray.evaluator.libc import syscall
from adrs_ray.evaluator.privileges import forbid_new_privileges
import ctypes, struct
forbid_new_privileges()
allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("@HxxxxxxP", 1, ctypes.addressof(allow)))
os.set_inheritable(syscall("seccomp", 1, 8, ctypes.addressof(program)), True)
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


def listening_interpreter(folder: Path) -> str:
    """A wrapper that starts the interpreter under a filter which has a listener already: there can be only one."""
    root = str(Path(local.__file__).parent.parent.parent)
    wrapper = folder / "python-with-listener"
    wrapper.write_text(_LISTENING.format(python=sys.executable, root=root), encoding="utf-8")
    wrapper.chmod(0o755)
    return str(wrapper)


def readable_interpreter(folder: Path) -> str:
    """A copy of interpreter, standard library and numpy that every user can read; returns its path."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library = folder / "lib" / version
    skipped = shutil.ignore_patterns("test", "tests", "idlelib", "site-packages", "ensurepip", "lib2to3", "turtledemo")
    shutil.copytree(sysconfig.get_path("stdlib"), library, ignore=skipped)
    (folder / "bin").mkdir()
    shutil.copy2(os.path.realpath(sys.executable), folder / "bin" / version)
    for shared in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython*"):
        shutil.copy2(shared, folder / "lib" / shared.name)
    spec = importlib.util.find_spec("numpy")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    shutil.copytree(package, library / "site-packages" / "numpy", ignore=shutil.ignore_patterns("tests"))
    if (libraries := package.with_name("numpy.libs")).is_dir():
        shutil.copytree(libraries, library / "site-packages" / "numpy.libs")
    folder.chmod(0o755)
    return str(folder / "bin" / version)


class Slot:
    """A started evaluator with one slot, to be used from plain functions."""

    def __init__(self, evaluator: LocalEvaluator, confinement: Confinement) -> None:
        self.evaluator = evaluator
        self.confinement = confinement

    def judge(self, source: str, split: Split = "train") -> Verdict:
        return asyncio.run(self.evaluator.evaluate(EvaluationJob("test", source, split)))


@contextmanager
def one_slot(
    task: Task, variant: str | None = None, python: str | None = None, config: EvaluatorConfig | None = None
) -> Iterator[Slot]:
    """A slot jailed in the given way; None: whichever this machine gives."""
    chosen: list[Confinement] = []
    asked = confinement._probe

    def probe_without_landlock(*args: Any) -> dict[str, Any]:
        return {**asked(*args), "landlock_abi": 0}

    def choose(task: Task, config: EvaluatorConfig) -> Confinement:
        found = choose_confinement(task, config)
        if variant in ("no capabilities", "no listener"):
            found = dataclasses.replace(found, uid=None)
        elif variant == "dropped user" and found.uid is None:
            pytest.fail("the copied interpreter should be readable by nobody")
        chosen.append(found)
        return found

    config = config or EvaluatorConfig(slots=1, retries=0, python=python)
    evaluator = LocalEvaluator(task, config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "choose_confinement", choose)
        if variant == "bubblewrap":
            patch.setattr(confinement, "_probe", probe_without_landlock)
        asyncio.run(evaluator.start())
    try:
        yield Slot(evaluator, chosen[0])
    finally:
        asyncio.run(evaluator.close())


def interpreter_of(variant: str, root: Path) -> str | None:
    """The interpreter with which `one_slot` makes a variant, put into the folder; None: the usual one."""
    if variant == "dropped user":
        return readable_interpreter(root / "python")
    return listening_interpreter(root) if variant == "no listener" else None
