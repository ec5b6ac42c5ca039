"""`adrs task` and `adrs tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Make and check task folders.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="task")
    root.command("tasks")(list_tasks)


def list_tasks() -> None:
    """List the built-in tasks."""
    from adrs_ray.task import builtin_tasks, load_task

    for name in builtin_tasks():
        typer.echo(f"{name}  {load_task(name).spec.summary}")


@app.command()
def check(folder: Annotated[str, typer.Argument(help="A task folder, or the name of a built-in task.")]) -> None:
    """Say what a task folder lacks or has wrong; exit code 1 if anything."""
    from adrs_ray.scaffold import check_folder
    from adrs_ray.task import builtin_tasks

    findings = check_folder(builtin_tasks().get(folder, Path(folder)))
    for finding in findings:
        hint = f"  -> {finding.hint}" if finding.hint else ""
        typer.echo(f"{finding.level:8}{finding.what}{hint}")
    if any(finding.level in ("missing", "wrong") for finding in findings):
        raise typer.Exit(1)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the task: lower case, digits, underscores.")],
    into: Annotated[Path, typer.Option("--into", help="Folder in which to make it.")] = Path(),
) -> None:
    """Write a working task folder to start from."""
    from adrs_ray.scaffold import new_folder

    folder = new_folder(name, into)
    typer.echo(f"made {folder}; next: adrs task check {folder}; adrs run {folder}")
