"""What a program printed or raised, cut down to what helps: its own frames, head and tail, a bounded size."""

from __future__ import annotations

import re
from collections.abc import Mapping

from adrs_ray.program import FILENAME
from adrs_ray.prompt.fence import line, printable

MAX_ARTIFACTS = 8
_NAME_CHARS = 60
_HEAD_SHARE = 0.4
"""Of a text that is cut: what went wrong stands at the end more often than at the beginning."""
_FOREIGN_FRAMES = 3
_FRAME = re.compile(r'(\s*)File "([^"\n]*)", line (\d+)(.*)')
_PROGRAM_FILE = "program.py"
"""What a candidate is called in the scratch folder of OpenEvolve-style tasks."""


def is_error(name: str) -> bool:
    """Whether an artifact tells what went wrong rather than what a program said on its way."""
    lowered = name.lower()
    return any(word in lowered for word in ("traceback", "stderr", "error"))


def trimmed_artifacts(artifacts: Mapping[str, str], tokens: int, chars_per_token: float) -> dict[str, str]:
    """The artifacts to show, errors first, at most MAX_ARTIFACTS of them, each within `tokens`; empty ones left out."""
    most = int(tokens * chars_per_token)
    shown: dict[str, str] = {}
    for name in sorted(artifacts, key=lambda name: not is_error(name)):
        text = artifacts[name].strip("\n")
        if "traceback" in name.lower():
            text = own_frames(text)
        if (cut := shortened(printable(text), most)).strip() and len(shown) < MAX_ARTIFACTS:
            shown[line(name, _NAME_CHARS)] = cut
    return shown


def shortened(text: str, chars: int) -> str:
    """At most `chars` characters: head and tail, and between them a line saying how much was left out."""
    if len(text) <= chars:
        return text
    room = chars - len(_gap(len(text)))
    if room < 2:
        return text[: max(0, chars)]
    head = int(room * _HEAD_SHARE)
    tail = room - head
    return f"{text[:head]}{_gap(len(text) - head - tail)}{text[len(text) - tail :]}"


def _gap(count: int) -> str:
    return f"\n[... {count} characters left out ...]\n"


def own_frames(text: str) -> str:
    """A traceback without the frames of evaluators and libraries, and a line that counts them.

    A traceback without any frame of the program keeps its last three. What follows no frame (headers, the exception)
    stays as it is. Paths of machines are left out.
    """
    parts = _parts(text.splitlines())
    frames = [index for index, (file, _) in enumerate(parts) if file is not None]
    kept = {index for index in frames if _is_own(parts[index][0])} or set(frames[-_FOREIGN_FRAMES:])
    out: list[str] = []
    skipped = 0
    for index, (file, lines) in enumerate(parts):
        if file is not None and index not in kept:
            skipped += 1
            continue
        if skipped:
            out.append(_skipped(skipped))
            skipped = 0
        out += lines
    return "\n".join([*out, _skipped(skipped)] if skipped else out)


def _skipped(count: int) -> str:
    return f"  [{count} frame{'' if count == 1 else 's'} outside of the program left out]"


def _is_own(file: str | None) -> bool:
    return file in (FILENAME, _PROGRAM_FILE)


def _parts(lines: list[str]) -> list[tuple[str | None, list[str]]]:
    """Frames with the lines that belong to them, as (file, lines), and lines between them, as (None, [line])."""
    parts: list[tuple[str | None, list[str]]] = []
    indent = ""
    for text in lines:
        found = _FRAME.match(text)
        if found is not None:
            indent, file = found[1], found[2].replace("\\", "/").rsplit("/", 1)[-1]
            parts.append((file, [f'{indent}File "{file}", line {found[3]}{found[4]}']))
        elif parts and parts[-1][0] is not None and text.startswith(indent + "  "):
            parts[-1][1].append(text)
        else:
            parts.append((None, [text]))
    return parts
