"""`adrs job`: the entrypoint of a job on a cluster. The same command starts a run, and continues it."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from adrs_ray.config import RunConfig
    from adrs_ray.search import Seed
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import Task
    from cluster.job import Place


ENDED_BY_SIGNAL = 143
"""Exit code of a job that is not done: who retries failed jobs shall start it again."""


def register(root: typer.Typer) -> None:
    root.command()(job)


def job(
    task: Annotated[str, typer.Argument(help="Built-in task (see `adrs tasks`) or a task folder.")],
    config: Annotated[Path | None, typer.Option(help="Config file (see `adrs config show`).")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: from task and config file).")] = None,
    out: Annotated[
        str | None,
        typer.Option(
            help="Folder of runs, a path on the head or a URL such as s3://bucket/runs (default ~/adrs-runs)."
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to join (default: the one this job runs on, else an embedded Ray).")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A setting in place of the config's, KEY=VALUE; repeatable.")
    ] = None,
    warm_start: Annotated[
        list[str] | None, typer.Option(help="As of `adrs run`: a run, a program file or a checkpoint; repeatable.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return at once; the run goes on on the cluster without this job.")
    ] = False,
    baselines: Annotated[bool, typer.Option(help="Judge the task's baselines beside the champion at the end.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")] = False,
) -> None:
    """Start the run of this name, or go on with it where it was, and block until it ends.

    The run is found on this disk or in its mirror, so that a retry on another machine continues it. SIGTERM drains for
    `cluster.drain_s` seconds, then stops; every GPU is free afterwards.
    """
    from adrs_ray.cli.execution import resolved
    from adrs_ray.config import RunConfig, override, read_config
    from adrs_ray.storage.runfolder import RUN_YAML, RunFolder
    from cluster.job import bring_here, continued, parse_settings, place_of, run_name

    explicit = parse_settings(settings or [])
    given = override(RunConfig() if config is None else read_config(config), explicit)
    given = override(given, {"cluster.address": address or given.cluster.address or _this_cluster()})
    run = run_name(task, config, name)
    place = place_of(run, out, given)
    given = resolved(override(given, {"mirror.url": place.mirror}), config)
    if detach:
        _detach(task, given, run, sys.argv[1:], as_json)
        return
    notes = [line for line in (place.note, bring_here(place)) if line]
    if not (place.path / RUN_YAML).exists():
        _start(task, given, run, place, notes, warm_start or [], baselines, as_json)
        return
    folder = RunFolder.open(place.path)
    chosen, note = continued(folder.config, given, explicit, run)
    _resume(task, chosen, folder, [*notes, *([note] if note else [])], baselines, as_json)


def _start(
    task: str,
    config: RunConfig,
    name: str,
    place: Place,
    notes: list[str],
    warm_start: list[str],
    baselines: bool,
    as_json: bool,
) -> None:
    from adrs_ray.cli.execution import model_notes, planted_seeds, split_notes, task_reference, told
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    loaded = told(load_task(task), config)
    warm_starts = [str(Path(each).expanduser().absolute()) for each in warm_start]
    seeds = planted_seeds(loaded, warm_starts, config)
    notes = [*notes, *split_notes(loaded), *model_notes(config)]
    folder = RunFolder.create(place.path, config, task_reference(task), False, name, warm_starts)
    _execute(loaded, config, folder, seeds, notes, baselines, as_json)


def _resume(task: str, config: RunConfig, folder: RunFolder, notes: list[str], baselines: bool, as_json: bool) -> None:
    from adrs_ray.cli.execution import is_planted, planted_seeds, split_notes, task_reference, told
    from adrs_ray.errors import UsageError
    from adrs_ray.task import load_task

    loaded = told(load_task(task), config)
    recorded = Path(folder.task).name
    if recorded != Path(task_reference(task)).name:
        raise UsageError(
            f"the run {folder.reference.name} is of task {recorded}, not {loaded.name}: give another --name"
        )
    # A job's working directory is another one each time.
    folder = folder.of_task(task_reference(task))
    seeds = [] if is_planted(folder) else planted_seeds(loaded, folder.reference.warm_start, config)
    notes = [*notes, *split_notes(loaded)]
    _execute(loaded, config, folder, seeds, notes, baselines, as_json)


def _execute(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    notes: list[str],
    baselines: bool,
    as_json: bool,
) -> None:
    from adrs_ray.cli.execution import STOPPED_BY_SIGNAL, execute

    result = execute(
        task,
        config,
        folder,
        seeds,
        notes,
        local=False,
        baselines=baselines,
        as_json=as_json,
        fence=False,
        drain_s=config.cluster.drain_s,
        cut_short=ENDED_BY_SIGNAL,
    )
    if result.reason == STOPPED_BY_SIGNAL:
        raise SystemExit(ENDED_BY_SIGNAL)


def _this_cluster() -> str | None:
    """The cluster that this job was submitted to."""
    return "auto" if os.environ.get("RAY_ADDRESS") else None


def _detach(task: str, config: RunConfig, name: str, argv: list[str], as_json: bool) -> None:
    from adrs_ray.cli.execution import split_notes, told
    from adrs_ray.errors import UsageError
    from adrs_ray.task import load_task
    from cluster.detached import start_detached

    if config.cluster.address is None:
        raise UsageError("--detach needs a cluster that stays: give --address, or submit this as a job")
    # What is wrong with either is said here, where somebody looks.
    split_notes(told(load_task(task), config))
    command = [argument for argument in argv if argument != "--detach"]
    where = start_detached(config.cluster.address, name, command)
    watch = f"adrs watch {name} --address {config.cluster.address}"
    typer.echo(f"run {name} goes on on {where}; watch it with: {watch}", err=as_json)
