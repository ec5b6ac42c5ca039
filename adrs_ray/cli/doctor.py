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
        typer.echo(f"{'ok  ' if good else 'NO  '}{name:<22}{detail}")

    line(
        "python", True, f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    )
    line("cpus", True, str(len(os.sched_getaffinity(0))))
    report = jail_report()
    for layer, holds, detail in report:
        line(f"jail: {layer}", holds, detail)
    for package, needed_for in (
        ("ray", "adrs run without --local"),
        ("numba", "fast simulators"),
        ("torch", "GPU tasks (optional)"),
        ("vllm", "local models (optional)"),
    ):
        found = importlib.util.find_spec(package) is not None
        version = importlib.metadata.version(package) if found else f"not installed: {needed_for}"
        line(package, found, version)
    for entry in data.status():
        typer.echo(f"    data: {entry}")
    if not all(holds for layer, holds, _ in report if layer == "strict"):
        raise typer.Exit(1)
