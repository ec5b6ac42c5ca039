"""Errors that end a command with one line and an exit code."""


class UsageError(Exception):
    """The user gave something that cannot be used: the message is one line naming what, where and what would be right.

    The command line prints it to standard error and exits with code 2.
    """


class RunError(Exception):
    """A run cannot go on (disk full, journal fenced): one line for the user, exit code 1."""


def one_line(error: object, chars: int = 300) -> str:
    """What an error says, as one line of at most so many characters; its kind when it says nothing."""
    return " ".join(str(error).split())[:chars] or type(error).__name__
