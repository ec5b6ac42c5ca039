"""What an exception says, as one short line for a table or a message."""

from __future__ import annotations


def one_line(error: BaseException, chars: int = 300) -> str:
    """Its message alone: for errors whose text was written for a reader."""
    return " ".join(str(error).split())[:chars] or "no message"


def typed_line(error: BaseException, chars: int = 300) -> str:
    """Its type and its message."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:chars]
