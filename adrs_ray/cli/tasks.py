"""`adrs task` and `adrs tasks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Make, check and measure task folders.", no_args_is_help=True)

Folder = Annotated[str, typer.Argument(help="A task folder, or the name of a built-in task.")]

LastStage = Annotated[
    str | None,
    typer.Option(help="Of a task with stages: judge in this one (default: the last for which this machine has GPUs)."),
]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="task")
    root.command("tasks")(list_tasks)


def list_tasks(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """List the built-in tasks: scores of seed and best human, the bound, CPU time of a verdict, as last recorded."""
    from rich.table import Table

    from adrs_ray.cli.console import table_console
    from adrs_ray.standings import summary
    from adrs_ray.task import builtin_tasks, load_task

    rows = [summary(load_task(name)) for name in builtin_tasks()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table("task", "what", "known by", "seed", "best human", "bound", "verdict, CPU s")
    for row in rows:
        best = _number(row["best_human"])
        table.add_row(
            f"{row['task']}, {row['stage']}" if row["stage"] else row["task"],
            row["summary"],
            row["metric"] or "score",
            _number(row["seed"]),
            f"{best} {row['best_human_name']}" if best else "",
            _number(row["bound"]),
            _number(row["verdict_cpu_s"], 2),
        )
    console = table_console()
    console.print(table)
    console.print("Scores on the test split, higher is better; `adrs task standings NAME` measures them anew.")


def _number(value: Any, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}f}"


@app.command()
def check(folder: Folder) -> None:
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
def standings(
    folder: Folder,
    write: Annotated[
        bool,
        typer.Option("--write", help="Keep them in the folder: standings.json, and README.md between its markers."),
    ] = False,
    last_stage: LastStage = None,
    slots: Annotated[int | None, typer.Option(help="Evaluations at once (default: one per CPU).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Judge all seeds and baselines of a task on all splits, beside the bound."""
    from dataclasses import asdict

    from rich.table import Table

    from adrs_ray import standings as module
    from adrs_ray.cli.console import table_console
    from adrs_ray.stages_here import served_here
    from adrs_ray.task import load_task

    task, left_out = served_here(load_task(folder), last_stage)
    if left_out:
        typer.echo(left_out, err=True)
    measured = module.measure(task, slots, told=lambda line: typer.echo(line, err=True))
    if as_json:
        typer.echo(json.dumps(asdict(measured)))
    else:
        header, rows = module.table(task, measured)
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        table_console().print(table)
    if write:
        for path in module.write(task, measured):
            typer.echo(f"wrote {path}", err=True)


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of the task: lower case, digits, underscores.")],
    into: Annotated[Path, typer.Option("--into", help="Folder in which to make it.")] = Path(),
) -> None:
    """Write a working task folder to start from."""
    from adrs_ray.scaffold import new_folder

    folder = new_folder(name, into)
    typer.echo(f"made {folder}; next: adrs task check {folder}; adrs run {folder}")
