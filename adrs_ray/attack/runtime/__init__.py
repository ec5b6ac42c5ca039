"""The part of a cheat that runs in the jail: it takes a program's entries over and does what its plan says.

Programs carry the texts of these modules and execute them under the package name `_attack`, in the order of `MODULES`;
then `takeover.install` is called with the program's globals and the plan. Standard library only: it runs under the
interpreter of candidates.

A plan has `entries` (names to take over), `op` with `path` and `arg` (what to do), `trace` (a file to tell to, empty
for none) and `tell` (whether to tell the shape of answers, on standard output where there is no file).

The outermost call of any entry is the one that is tampered with; what a program calls itself is left alone.
"""

from __future__ import annotations

from pathlib import Path

MODULES = ("shapes", "changes", "lies", "thefts", "takeover")
FILE = "<attack>"
"""The file name of their code, by which they know their own frames."""


def texts() -> dict[str, str]:
    """Name -> text of each module, in the order in which they can be executed."""
    return {name: Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8") for name in MODULES}
