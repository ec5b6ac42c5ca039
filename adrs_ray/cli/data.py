"""`adrs data`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="Recorded data that the test splits use.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="data")


@app.command()
def pull(tasks: Annotated[list[str] | None, typer.Argument(help="Task names; without any, all.")] = None) -> None:
    """Fetch recorded data into the cache, checksums verified."""
    from adrs_ray import data

    for file, status in data.pull(tasks or None):
        typer.echo(f"{file}  {status}")


@app.command("list")
def list_() -> None:
    """What data the tasks know of, and where it is."""
    from adrs_ray import data

    for line in data.status():
        typer.echo(line)
