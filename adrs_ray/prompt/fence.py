"""Text that nobody has read, inside a prompt: escaped, on one line where a line is due, fenced so that it stays inside.

Candidates, their output, models' notes and evaluators' names are all of this kind.
"""

from __future__ import annotations

import re

LINE_CHARS = 300

_UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_LINE_END = re.compile("\r\n|\r")
_BACKTICKS = re.compile("`+")


def printable(text: str) -> str:
    """Control characters, direction marks and lone surrogates escaped; tab and newline stay, CRLF and CR become LF."""
    return _UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], _LINE_END.sub("\n", text))


def line(text: str, chars: int = LINE_CHARS) -> str:
    """The text on one line of at most `chars` characters, cut with `...`."""
    flat = printable(" ".join(text[: 2 * chars].split()))
    return flat if len(flat) <= chars and len(text) <= 2 * chars else f"{flat[: max(0, chars - 3)].rstrip()}..."[:chars]


def fenced(text: str, language: str = "") -> str:
    """A fenced block that the text cannot end: its fence is longer than any run of backticks in the text."""
    body = printable(text).strip("\n")
    longest = max((len(run) for run in _BACKTICKS.findall(body)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{body}\n{fence}"
