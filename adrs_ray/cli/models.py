"""`adrs models`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adrs_ray.config import RunConfig
    from cluster.inspection import Row

app = typer.Typer(help="Open-weight models: which, whether they are here, fetching them.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option(help="Config whose `pool` says which models.")]
Preset = Annotated[str | None, typer.Option(help="A preset in place of a config (see `adrs models list`).")]
To = Annotated[
    Path | None, typer.Option(help="Folder for plain copies, REPOSITORY below it (default: the hub's cache).")
]
Address = Annotated[str | None, typer.Option(help="Do it on every GPU node of this Ray cluster (default: here).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="models")


@app.command("list")
def list_(
    as_json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the tables of docs/models.md.")] = False,
) -> None:
    """Presets by GPU budget, and the models that they are made of."""
    from rich.table import Table

    from adrs_ray.cli.console import table_console
    from cluster import model_tables
    from cluster.presets import catalogue

    known = catalogue()
    if as_json:
        typer.echo(json.dumps(known.model_dump()))
        return
    if markdown:
        typer.echo(model_tables.markdown(known))
        return
    console = table_console()
    for headings, rows in model_tables.tables(known):
        table = Table()
        for number, heading in enumerate(headings):
            table.add_column(heading, no_wrap=number < 2)
        for row in rows:
            table.add_row(*row)
        console.print(table)


@app.command()
def check(
    config: Config = None,
    preset: Preset = None,
    to: To = None,
    task: Annotated[str | None, typer.Option(help="Task whose stages shall fit, too.")] = None,
    address: Address = None,
    as_json: Json = False,
) -> None:
    """Say of each model whether it is pinned, here and whole, or can be fetched, and whether all fits; exit 1 if no."""
    from cluster.model_check import model_rows
    from cluster.model_lock import read_lock
    from cluster.pull import wants

    resolved, folder = _resolved(config, preset)
    stages = _stages(task)
    if address is None:
        from cluster.inspection import fit_rows
        from cluster.nodes import this_machine
        from cluster.presets import footprints

        wanted = wants(resolved, read_lock(folder))
        rows = [row for want in wanted for row in model_rows(want, to)]
        rows += fit_rows([this_machine()], resolved, stages, footprints(resolved))
    else:
        from cluster.inspect_cluster import check_models

        rows = check_models(address, resolved, wants(resolved, read_lock(folder)), stages, to)
    show_rows(rows, as_json)


@app.command()
def pull(
    config: Config = None,
    preset: Preset = None,
    to: To = None,
    address: Address = None,
    update: Annotated[
        bool, typer.Option("--update", help="Look for newer commits in place of those in models.lock.yaml.")
    ] = False,
) -> None:
    """Fetch what engines need, check every checksum, and write the commits to models.lock.yaml beside the config."""
    from cluster.model_lock import Locked, read_lock, write_lock
    from cluster.pull import look_up, wants

    resolved, folder = _resolved(config, preset)
    lock = read_lock(folder)
    for want in wants(resolved, None if update else lock):
        if want.folder is not None:
            _require_whole(want.folder, ", ".join(want.names))
            continue
        listing = look_up(want)
        _pull_one(listing, to, address)
        if want.revision != listing.commit:
            # At once, so that what is here stays pinned when the next one fails.
            pulled = Locked(revision=want.revision, commit=listing.commit, bytes=listing.bytes)
            typer.echo(f"commit written to {write_lock(folder, {want.source: pulled})}")


def _pull_one(listing: Any, to: Path | None, address: str | None) -> None:
    from cluster.pull import pull as fetch

    if address is None:
        where = fetch(listing, to, lambda line: typer.echo(line, err=True))
        typer.echo(f"{listing.repository}@{listing.commit}: {where}")
    else:
        from cluster.inspect_cluster import pull_on_nodes

        for node, place in pull_on_nodes(address, listing, to).items():
            typer.echo(f"{listing.repository}@{listing.commit}: {place} on node {node[:8]}")
    if to is not None:
        typer.echo(f"to use it: pool.models.<name>.source: {to / listing.repository}")


def _require_whole(folder: Path, names: str) -> None:
    from adrs_ray.errors import RunError
    from cluster.model_files import folder_bytes, folder_problem

    problem = folder_problem(folder)
    if problem is not None:
        raise RunError(f"{names}: {folder} {problem}")
    typer.echo(f"{names}: {folder}, {folder_bytes(folder) / 2**30:.2f} GiB, nothing to fetch")


def _resolved(config: Path | None, preset: str | None) -> tuple[RunConfig, Path]:
    """The config with its preset filled in, and the folder of its lock."""
    from adrs_ray.config import parse_config, read_config
    from adrs_ray.errors import UsageError
    from cluster.presets import expand

    if (config is None) == (preset is None):
        raise UsageError("which models? give one of --config FILE and --preset NAME (`adrs models list`)")
    if config is None:
        return expand(parse_config({"pool": {"preset": preset}}, "--preset")), Path()
    resolved = expand(read_config(config))
    if not resolved.pool.models:
        raise UsageError(f"{config} has no `pool.models` and no `pool.preset`: there is nothing to fetch")
    return resolved, config.parent


def _stages(task: str | None) -> tuple[Any, ...]:
    from adrs_ray.task import load_task

    return () if task is None else load_task(task).spec.all_stages


def show_rows(rows: list[Row], as_json: bool) -> None:
    """Print rows as doctor does; exit code 1 when one says NO."""
    if as_json:
        typer.echo(json.dumps([{"state": row.state or "info", "name": row.name, "detail": row.detail} for row in rows]))
    else:
        for row in rows:
            typer.echo(f"{row.state:4}{row.name:<30} {row.detail}")
    if any(row.state == "NO" for row in rows):
        raise typer.Exit(1)
