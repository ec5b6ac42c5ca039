"""Puts the evaluators of `tests/attack/evaluators` into OpenEvolve-style folders."""

from __future__ import annotations

import shutil
from pathlib import Path

_EVALUATORS = Path(__file__).with_name("evaluators")


def write_folder(parent: Path, problem: str, evaluator: str) -> Path:
    """A folder with the problem's program as `initial_program.py` and one of its evaluators as `evaluator.py`."""
    source = _EVALUATORS / problem
    folder = parent / f"{problem}_{evaluator}"
    folder.mkdir(parents=True)
    shutil.copyfile(source / "program.py", folder / "initial_program.py")
    shutil.copyfile(source / f"{evaluator}.py", folder / "evaluator.py")
    text = (source / f"{evaluator}.py").read_text()
    for extra in (_EVALUATORS / "apart.py", source / "simulate.py", source / "expected.json"):
        named = extra.stem if extra.stem == "apart" else extra.name
        if named in text and extra.is_file():
            shutil.copyfile(extra, folder / extra.name)
    return folder
