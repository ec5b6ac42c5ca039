"""`adrs doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def register(root: typer.Typer) -> None:
    root.command()(doctor)


def doctor(
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Say what a cluster can host, and what keeps it from more.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help="--cluster: Ray cluster to ask (default: the config's, else this machine).")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="--cluster: config that shall fit.")] = None,
    task: Annotated[str | None, typer.Option(help="--cluster: task whose stages shall fit.")] = None,
    out: Annotated[str | None, typer.Option(help="--cluster: folder or URL of runs, as of `adrs job`.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="--cluster: print JSON.")] = False,
) -> None:
    """Say what this machine can do: Python, the jail's layers, Ray, recorded data; exit code 1 if it cannot judge."""
    from adrs_ray.errors import UsageError

    if cluster:
        _of_cluster(address, config, task, out, as_json)
        return
    given = {"--address": address, "--config": config, "--task": task, "--out": out, "--json": as_json or None}
    if alone := [name for name, value in given.items() if value is not None]:
        raise UsageError(f"{alone[0]} asks about a cluster: add --cluster")
    _of_machine()


def _of_cluster(address: str | None, config: Path | None, task: str | None, out: str | None, as_json: bool) -> None:
    from adrs_ray.cli.models import show_rows
    from adrs_ray.config import RunConfig, read_config
    from adrs_ray.task import load_task
    from adrs_ray.task_spec import Stage
    from cluster.inspect_cluster import inspect
    from cluster.model_lock import read_lock
    from cluster.presets import expand

    resolved = RunConfig() if config is None else expand(read_config(config), read_lock(config.parent))
    stages = (Stage(name="full"),) if task is None else load_task(task).spec.all_stages
    show_rows(inspect(address or resolved.cluster.address, resolved, stages, out), as_json)


def _of_machine() -> None:
    import importlib.metadata
    import importlib.util
    import os
    import platform

    from adrs_ray import data
    from adrs_ray.evaluator.doctor import jail_report

    def line(name: str, good: bool, detail: str) -> None:
        typer.echo(f"{'ok' if good else 'NO':4}{name:<30} {detail}")

    line(
        "python", True, f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    )
    line("cpus", True, str(len(os.sched_getaffinity(0))))
    report = jail_report()
    for layer, holds, detail in report:
        line(f"jail: {layer}", holds, detail)
    for package in ("ray", "numba"):
        line(package, True, importlib.metadata.version(package))
    found = importlib.util.find_spec("torch") is not None
    typer.echo(f"    {'torch':<30} {importlib.metadata.version('torch') if found else 'not installed (optional)'}")
    for entry in data.status():
        typer.echo(f"    data: {entry}")
    if not all(holds for layer, holds, _ in report if layer == "strict"):
        raise typer.Exit(1)
