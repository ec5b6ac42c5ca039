"""Where commands print tables."""

from __future__ import annotations

from typing import TextIO

from rich.console import Console

NARROWEST = 140
"""Columns of a table that goes to a file or a pipe."""


def table_console(stream: TextIO | None = None) -> Console:
    """A console as wide as the terminal, or wide enough for a table where there is none.

    What programs and judges say is printed as it is: no markup, no emoji.
    """
    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, NARROWEST)
    return console
