"""`adrs doctor`."""

from __future__ import annotations

import typer


def register(root: typer.Typer) -> None:
    root.command()(doctor)


def doctor() -> None:
    """Say what this machine can do: Python, the jail's layers, Ray, recorded data; exit code 1 if it cannot judge."""
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
