"""`adrs watch`: a run as its own terminal shows it, from another one."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adrs_ray.cli.remote import Address

if TYPE_CHECKING:
    from adrs_ray.config import BudgetConfig
    from adrs_ray.following import Follower
    from adrs_ray.ledger import RunStatus
    from adrs_ray.supervision.live import StatusView

LOOK_EVERY_S = 1.0
BEGINS_WITHIN_S = 30.0
"""How long we wait for the journal of a run that is just being started."""
FOOTER = "Ctrl-C ends this view alone; the run goes on."


def register(root: typer.Typer) -> None:
    root.command()(watch)


def watch(
    run: Annotated[Path, typer.Argument(help="Run folder; with --address the name of a run.")],
    address: Address = None,
) -> None:
    """Watch a run until it ends, or Ctrl-C: the run goes on all the same. It is read, never written."""
    try:
        if address is None:
            asyncio.run(_watch_folder(run))
        elif "://" in address:
            _watch_by_job(address, str(run))
        else:
            asyncio.run(_watch_actor(address, str(run)))
    except KeyboardInterrupt:
        print("the run goes on", file=sys.stderr)


async def _watch_folder(run: Path) -> None:
    follower = await _followed(run)
    try:
        with other_view(follower.folder.config.budget) as view:
            while True:
                running = follower.is_running()
                # After the last look nothing is written any more.
                view.show(await follower.look())
                if not running:
                    break
                await asyncio.sleep(LOOK_EVERY_S)
    finally:
        follower.close()
    typer.echo(f"{run} is not running any more: `adrs status {run}` says how it ended")


async def _followed(run: Path) -> Follower:
    from adrs_ray.errors import UsageError
    from adrs_ray.following import Follower

    deadline = time.monotonic() + BEGINS_WITHIN_S
    while True:
        try:
            return Follower(run)
        except UsageError:
            if time.monotonic() > deadline or not (run / "run.yaml").is_file():
                raise
            await asyncio.sleep(LOOK_EVERY_S)


async def _watch_actor(address: str, run: str) -> None:
    from cluster.control import joined, snapshots

    with joined(address, run) as actor, other_view(await actor.budget.remote()) as view:
        async for status in snapshots(actor, LOOK_EVERY_S):
            view.show(status)
    typer.echo(f"{run} does not go on any more on the cluster at {address}")


@contextmanager
def other_view(budget: BudgetConfig) -> Iterator[StatusView]:
    """As `status_view`, for who only looks on."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from adrs_ray.supervision.live import StatusView

    class OtherView(StatusView):
        def _panel(self, status: RunStatus) -> Group:
            return Group(*super()._panel(status).renderables[:-1], Text(FOOTER))

    console = Console(file=sys.stdout, markup=False, emoji=False)
    if not console.is_terminal:
        yield OtherView(console, budget, None)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield OtherView(console, budget, live)


def _watch_by_job(address: str, run: str) -> None:
    from cluster.control import follow_by_job

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    if rc := follow_by_job(address, run, write):
        raise typer.Exit(rc)
