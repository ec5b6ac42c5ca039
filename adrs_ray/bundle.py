"""Programs of several files as one text: each file behind a comment line that names it.

    # ADRS-FILE: main.py
    import policy
    ...
    # ADRS-FILE: policy.py
    ...

The first file is the program, the others are modules that it imports by name. A text whose first line is no such
comment is a program of one file, whatever comments it holds. Standard library only: candidates' processes load this
file by its path.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping

MAIN = "program.py"
"""What the file of a program of one file is called."""

_PREFIX = "# ADRS-FILE:"
_MARKER = re.compile(r"(?:\A|(?<=[\r\n]))" + _PREFIX + r"([^\r\n]*)(?:\r\n|\r|\n|\Z)")
_NAME = re.compile(r"[a-z_][a-z0-9_]*\.py")
_TAKEN = "candidate.py"
"""The name under which the program itself is known among modules."""
_SHOWN_CHARS = 60


def is_bundle(source: str) -> bool:
    """Whether a text holds files behind names."""
    return source.startswith(_PREFIX)


def check_names(names: Iterable[str]) -> None:
    """Raises ValueError, one line, for a name that no file of a bundle may have, or that occurs twice."""
    seen: set[str] = set()
    for name in names:
        if not _NAME.fullmatch(name):
            shown = name[:_SHOWN_CHARS]
            raise ValueError(f"{shown!r} is no name for a file of a program: expected one such as policy.py")
        if name == _TAKEN or name[:-3] in sys.stdlib_module_names:
            raise ValueError(f"{name[:_SHOWN_CHARS]} is the name of another module: choose a different one")
        if name in seen:
            raise ValueError(f"{name[:_SHOWN_CHARS]} occurs twice among the files of a program")
        seen.add(name)


def spans(source: str) -> list[tuple[str, int, int]]:
    """(name, start, stop) of each file: `source[start:stop]` is its text, the line that names it left out.

    A program of one file is [(`MAIN`, 0, its length)]. Raises ValueError as `check_names` does.
    """
    if not is_bundle(source):
        return [(MAIN, 0, len(source))]
    markers = list(_MARKER.finditer(source))
    names = [marker[1].strip(" \t") for marker in markers]
    check_names(names)
    stops = [marker.start() for marker in markers[1:]] + [len(source)]
    return [(name, marker.end(), stop) for name, marker, stop in zip(names, markers, stops, strict=True)]


def split(source: str) -> dict[str, str]:
    """The files by name, the program first. Raises ValueError as `check_names` does."""
    return {name: source[start:stop] for name, start, stop in spans(source)}


def join(files: Mapping[str, str]) -> str:
    """One text of several files, the program first; `split` gives them back, each ended by a line end.

    A single file named `MAIN` is its own text. Raises ValueError for names that cannot be, for no file at all, and
    for a text that itself holds a line which would begin a file.
    """
    if not files:
        raise ValueError("a program has at least one file")
    check_names(files)
    for name, text in files.items():
        if _MARKER.search(text):
            raise ValueError(f"{name} holds a line that starts with {_PREFIX!r}, which begins a file")
    if list(files) == [MAIN]:
        return files[MAIN]
    parts: list[str] = []
    for name, text in files.items():
        ended = text if not text or text.endswith(("\n", "\r")) else text + "\n"
        parts.append(f"{_PREFIX} {name}\n{ended}")
    return "".join(parts)
