"""`adrs restore`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def register(root: typer.Typer) -> None:
    root.command()(restore)


def restore(
    url: Annotated[str, typer.Argument(help="The mirror: mirror.url of the run's config, a path or a URL.")],
    run: Annotated[Path, typer.Argument(help="Run folder to make; it must be missing or empty.")],
) -> None:
    """Make a run folder again from its mirror; `adrs resume` goes on with it. The mirror is only read."""
    import asyncio

    from adrs_ray.storage.mirror import restore as restored_from

    restored = asyncio.run(restored_from(url, run))
    typer.echo(f"restored {restored.events} events; go on with: adrs resume {shlex.quote(str(run))}")
