"""`adrs ...`: each command parses, calls one function, prints. Heavy modules are imported inside the commands.

Exit codes: 0 done, 1 a verdict against the program or run, 2 wrong use (one line on standard error).
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from adrs_ray import __version__
from adrs_ray.errors import RunError, UsageError

app = typer.Typer(
    name="adrs",
    help="AI-driven research for systems: evolve programs, judge them where they cannot cheat, lose nothing.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"adrs-ray {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


def _register() -> None:
    from adrs_ray.cli import (
        attack,
        bench,
        cassette,
        config,
        data,
        doctor,
        evaluate,
        fidelity,
        inbox,
        inspect,
        job,
        models,
        restore,
        run,
        steer,
        submit,
        tasks,
        watch,
    )

    at_work = (run, job, submit, evaluate, inspect, watch, steer, inbox, restore, fidelity, cassette)
    for module in (*at_work, tasks, models, config, data, doctor, bench):
        module.register(app)
    attack.register(tasks.app)


_register()


def fail(message: str, code: int) -> None:
    """Print one line to standard error and exit."""
    print("adrs: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code)


def guarded(command: Callable[[], None]) -> None:
    """Run a command; UsageError ends it with exit code 2, RunError and what the system refuses with 1, in one line."""
    try:
        command()
    except UsageError as error:
        fail(str(error), 2)
    except RunError as error:
        fail(str(error), 1)
    except OSError as error:
        fail(f"{error.strerror or error}{'' if error.filename is None else f': {error.filename}'}", 1)


def main() -> None:
    """Entry point of the `adrs` script."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # Programs and what they print may hold text that no encoding has.
            stream.reconfigure(errors="backslashreplace")
    guarded(app)
