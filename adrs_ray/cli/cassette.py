"""`adrs cassette`, `adrs replay`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adrs_ray.cassette import Cassette
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import Task


def register(root: typer.Typer) -> None:
    root.command()(cassette)
    root.command()(replay)


def cassette(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    file: Annotated[Path, typer.Argument(help="File to write, such as run.cassette.gz.")],
) -> None:
    """Record a run: its completions, verdicts and the order of its decisions, for `adrs replay`."""
    from adrs_ray.cassette import record
    from adrs_ray.storage.cassette_file import write
    from adrs_ray.storage.reader import JournalReader
    from adrs_ray.storage.runfolder import RunFolder

    folder = RunFolder.open(run)
    with JournalReader(folder.journal) as reader:
        recorded = record(reader, folder)
    write(recorded, file)
    typer.echo(
        f"{file}: {len(recorded.ended)} candidates, {len(recorded.completions)} completions, "
        f"{len(recorded.verdicts)} verdicts"
    )
    if recorded.obstacle is not None:
        typer.echo(f"for `adrs replay --loose` only: {recorded.obstacle}")


def replay(
    file: Annotated[Path, typer.Argument(metavar="CASSETTE", help="File made by `adrs cassette`.")],
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    loose: Annotated[
        bool, typer.Option("--loose", help="A new run with the recorded completions; candidates are evaluated here.")
    ] = False,
    slots: Annotated[int | None, typer.Option(min=1, help="Evaluations at once (default: as recorded).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Run a recorded run again, in one process, and say whether it came out the same. Exits with 1 when it did not."""
    import contextlib

    from adrs_ray.configured import configured
    from adrs_ray.replay import config_of, refuse_unfit
    from adrs_ray.storage.cassette_file import read
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    recorded = read(file)
    config = config_of(recorded, slots)
    task = configured(load_task(recorded.task), config)
    if not loose:
        refuse_unfit(recorded, task)
    folder = RunFolder.create(out, config, recorded.task, local=True, replay_of=str(file.absolute()))
    stream = sys.stderr if as_json else sys.stdout
    with contextlib.redirect_stdout(stream):
        print(f"run {folder.path}: {task.name} from {file} (adrs-ray {recorded.version})", flush=True)
    if loose:
        _loosely(recorded, task, folder, as_json)
    else:
        _strictly(recorded, task, folder, as_json)


def _strictly(recorded: Cassette, task: Task, folder: RunFolder, as_json: bool) -> None:
    import asyncio
    import json

    from adrs_ray.replay import replay_strictly

    slots = folder.config.evaluator.slots or 1
    replayed = asyncio.run(replay_strictly(recorded, task, folder, slots, lambda status: None))
    candidates, difference = replayed.result.status.candidates, replayed.difference
    if as_json:
        verdict = {"identical": difference is None, "difference": difference}
        typer.echo(json.dumps({"run": str(folder.path), "candidates": candidates, **verdict}))
    elif difference is None:
        typer.echo(f"identical to the recording: {candidates} candidates")
    else:
        typer.echo(f"differs from the recording: {difference}")
    if difference is not None:
        raise typer.Exit(1)


def _loosely(recorded: Cassette, task: Task, folder: RunFolder, as_json: bool) -> None:
    import asyncio
    import contextlib

    from adrs_ray.cli.report import print_result, result_json
    from adrs_ray.replay import replay_loosely
    from adrs_ray.supervision.live import status_view

    stream = sys.stderr if as_json else sys.stdout
    # A judge may print; the line of JSON must stay alone.
    with contextlib.redirect_stdout(stream), status_view(folder.config.budget, stream) as view:
        result = asyncio.run(replay_loosely(recorded, task, folder, view.show))
    if as_json:
        typer.echo(result_json(folder, result))
    else:
        print_result(task, folder, result, stream)
