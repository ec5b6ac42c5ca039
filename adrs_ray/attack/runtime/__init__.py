"""The part of a cheat that runs in the jail: it takes a program's entries over and does what its plan says.

Programs carry the texts of those of these modules that their plan needs and execute them under the package name
`_attack`; then `takeover.install` is called with the program's globals and the plan. Standard library only: it runs
under the interpreter of candidates.

A plan has `entries` (names to take over), `op` with `path` and `arg` (what to do), `trace` (a file to tell to, empty
for none) and `tell` (whether to tell the shape of answers, on standard output where there is no file).

The outermost call of any entry is the one that is tampered with; what a program calls itself is left alone.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

_NEEDS = {
    "crash": ("shapes",),
    "echo": ("shapes",),
    "clock": ("shapes", "lies"),
    "print": ("shapes", "lies"),
    "inputs": ("shapes", "lies"),
    "modules": ("shapes", "overrides"),
    "files": ("shapes", "overrides", "thefts"),
    "memory": ("shapes", "overrides", "thefts"),
    "none": (),
    "whole": (),
    "nested": (),
}
"""What a plan's `op` needs; any other is a change to an answer."""


@cache
def text(module: str) -> str:
    """The text of one of these modules."""
    return Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8")


def modules_for(op: str, watched: bool) -> tuple[str, ...]:
    """The modules that a plan needs, in the order in which they can be executed; `watched`: it tells of its answers."""
    needed = _NEEDS.get(op, ("shapes", "changes"))
    return ("shapes", "takeover") if watched and not needed else (*needed, "takeover")
