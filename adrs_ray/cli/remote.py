"""`--address`: the same command about a run that goes on elsewhere, named instead of its folder."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

Address = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="RUN is the name of a run that goes on on this cluster: host:port or auto of Ray, from one of its nodes; "
        "http://head:8265, its dashboard, from anywhere.",
    ),
]


def reachable(command: str, files: Sequence[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command that takes a run folder as `run` the option --address: with it, the command runs beside the run.

    `command`: its words, such as `inbox list`. `files`: parameters that name a file here; its content goes along, and
    there they read it as `-`.
    """

    def give(function: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(function)
        def with_address(*args: Any, context: typer.Context, address: str | None = None, **kwargs: Any) -> None:
            if address is None:
                function(*args, **kwargs)
            else:
                _forward(command.split(), files, address, context)

        added = {"context": typer.Context, "address": Address}
        signature = inspect.signature(function, eval_str=True)
        keywords = [
            inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context),
            inspect.Parameter("address", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Address),
        ]
        parameters = [*signature.parameters.values(), *keywords]
        with_address.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        with_address.__annotations__ = {**function.__annotations__, **added}
        return with_address

    return give


def _forward(command: list[str], files: Sequence[str], address: str, context: typer.Context) -> None:
    from cluster.control import ask

    given = {name: value for name, value in context.params.items() if _is_given(context, name)}
    run = str(given.pop("run"))
    del given["address"]
    stdin = ""
    for name in files:
        if given.get(name) is not None:
            stdin, given[name] = _content(given[name]), "-"
    answer = ask(address, run, [*command, *words(context.command.params, given)], stdin)
    sys.stdout.write(answer.stdout)
    sys.stdout.flush()
    sys.stderr.write(answer.stderr)
    sys.stderr.flush()
    if answer.rc:
        raise typer.Exit(answer.rc)


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def words(parameters: Sequence[Any], given: Mapping[str, Any]) -> list[str]:
    """The command line that gives these values to the parameters of a command, options first."""
    arguments: list[str] = []
    options: list[str] = []
    for parameter in parameters:
        if parameter.name not in given:
            continue
        value = given[parameter.name]
        if parameter.param_type_name == "argument":
            arguments.append(str(value))
        elif parameter.is_flag:
            options += [parameter.opts[0]] if value else parameter.secondary_opts[:1]
        else:
            long = next((name for name in parameter.opts if name.startswith("--")), parameter.opts[0])
            values = value if isinstance(value, list | tuple) else [value]
            options += [f"{long}={each}" for each in values]
    return [*options, *(["--", *arguments] if arguments else [])]


def _content(path: Path) -> str:
    from adrs_ray.errors import UsageError

    try:
        return sys.stdin.read() if str(path) == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
