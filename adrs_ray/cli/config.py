"""`adrs config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Show and check run configurations.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="config")


@app.command()
def show(
    file: Annotated[Path | None, typer.Argument(help="A config file; without one, all defaults.")] = None,
) -> None:
    """Print the resolved configuration as YAML: every key with its value, and what it means."""
    from adrs_ray.config import RunConfig, read_config, to_yaml

    typer.echo(to_yaml(RunConfig() if file is None else read_config(file)), nl=False)
