"""`adrs run`, `adrs resume`, `adrs stop`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrs_ray.cli.remote import reachable

if TYPE_CHECKING:
    from adrs_ray.config import RunConfig

Local = Annotated[bool, typer.Option("--local", help="One process, no Ray.")]
Address = Annotated[str | None, typer.Option(help="Join this Ray cluster (default: start an embedded Ray).")]
Json = Annotated[bool, typer.Option("--json", help="End with one line of JSON on standard output.")]
Baselines = Annotated[bool, typer.Option(help="Judge the task's baselines beside the champion at the end.")]
MaxCandidates = Annotated[int | None, typer.Option(help="Candidates in all, seeds and duplicates included.")]
MaxWall = Annotated[float | None, typer.Option(help="Wall time of this start, in seconds.")]
TargetScore = Annotated[float | None, typer.Option(help="Stop when a train score reaches this.")]
Patience = Annotated[int | None, typer.Option(help="Stop after so many candidates without a new best.")]


def register(root: typer.Typer) -> None:
    root.command()(run)
    root.command()(resume)
    root.command()(stop)


def run(
    task: Annotated[str, typer.Argument(help="Built-in task (see `adrs tasks`) or a task folder.")],
    config: Annotated[Path | None, typer.Option(help="Config file (see `adrs config show`).")] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder to make (default: runs/TASK-<time>).")] = None,
    local: Local = False,
    address: Address = None,
    islands: Annotated[int | None, typer.Option(help="Number of islands.")] = None,
    max_candidates: MaxCandidates = None,
    max_wall_s: MaxWall = None,
    target_score: TargetScore = None,
    patience: Patience = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness of the search.")] = None,
    start: Annotated[
        str | None, typer.Option(help="Seed program to start from: weak, medium (default) or strong.")
    ] = None,
    last_stage: Annotated[
        str | None, typer.Option(help="Of a task with stages: end with this one, its score counts (default: all).")
    ] = None,
    slots: Annotated[int | None, typer.Option(help="Evaluations at once (default: one per CPU).")] = None,
    sandbox: Annotated[str | None, typer.Option(help="strict, or unsafe: no jail, every verdict says so.")] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(
            help="Start from this run's best program, this program file, or the best programs of this OpenEvolve "
            "checkpoint, too; repeatable."
        ),
    ] = None,
    isomorphic: Annotated[
        bool | None,
        typer.Option("--isomorphic", help="The task under other names and another story: discovery, not recall."),
    ] = None,
    baselines: Baselines = True,
    as_json: Json = False,
) -> None:
    """Search for a better program. Interrupted or killed, it goes on with `adrs resume`."""
    from adrs_ray.cli.execution import execute, model_notes, planted_seeds, resolved, split_notes, task_reference, told
    from adrs_ray.config import RunConfig, override, read_config
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    loaded = load_task(task)
    chosen = override(
        RunConfig() if config is None else read_config(config),
        {
            "islands.count": islands,
            "budget.max_candidates": max_candidates,
            "budget.max_wall_s": max_wall_s,
            "budget.target_score": target_score,
            "budget.patience": patience,
            "seed": seed,
            "start": start,
            "last_stage": last_stage,
            "evaluator.slots": slots,
            "evaluator.sandbox": sandbox,
            "cluster.address": address,
            "isomorphic": isomorphic,
        },
    )
    chosen = resolved(chosen, config)
    _refuse_mixture(local, chosen)
    loaded = told(loaded, chosen)
    warm_starts = [str(Path(name).expanduser().absolute()) for name in warm_start or []]
    seeds = planted_seeds(loaded, warm_starts, chosen)
    # What is wrong with the task, or missing on the machine, is said before a folder is made.
    if local:
        from adrs_ray.evaluator.staged import local_evaluator

        local_evaluator(loaded, chosen.evaluator)
    notes = [*split_notes(loaded), *model_notes(chosen)]
    path = out or _default_folder(loaded.name)
    folder = RunFolder.create(path, chosen, task_reference(task), local, warm_start=warm_starts)
    execute(loaded, chosen, folder, seeds, notes, local, baselines, as_json, fence=False)


def resume(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    max_candidates: MaxCandidates = None,
    max_wall_s: MaxWall = None,
    target_score: TargetScore = None,
    patience: Patience = None,
    local: Annotated[
        bool | None, typer.Option("--local/--ray", help="One process, or on Ray (default: as before).")
    ] = None,
    address: Address = None,
    fence: Annotated[
        bool, typer.Option("--fence", help="Take the run over from a process that still holds it; that one ends.")
    ] = False,
    baselines: Baselines = True,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed, or extend a finished one with --max-candidates."""
    from adrs_ray.cli.execution import execute, is_planted, planted_seeds, split_notes, told
    from adrs_ray.config import ClusterConfig, override
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    folder = RunFolder.open(run)
    if folder.reference.replay_of is not None:
        raise UsageError(f"{run} replays {folder.reference.replay_of}: it is not resumed, `adrs replay` makes it anew")
    changes: dict[str, Any] = {
        "budget.max_candidates": max_candidates,
        "budget.max_wall_s": max_wall_s,
        "budget.target_score": target_score,
        "budget.patience": patience,
        "cluster.address": address,
    }
    chosen = override(folder.config, changes)
    here = folder.local if local is None else local
    if local and address is None:
        # Asked for by name, one process wins over the cluster that the run was on before.
        chosen = chosen.model_copy(update={"cluster": ClusterConfig()})
    _refuse_mixture(here, chosen)
    task = told(load_task(folder.task), chosen)
    seeds = [] if is_planted(folder) else planted_seeds(task, folder.reference.warm_start, chosen)
    execute(task, chosen, folder, seeds, split_notes(task), here, baselines, as_json, fence=fence)


@reachable("stop")
def stop(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Ask a running run to drain: what is under way is finished and recorded, nothing new is begun."""
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.runfolder import RunFolder, post_command

    folder = RunFolder.open(run)
    if not folder.is_running():
        raise UsageError(f"{folder.path} is not running: nothing to stop")
    post_command(folder, "stop", {})
    typer.echo(f"asked {folder.path} to stop; go on later with: adrs resume {shlex.quote(str(folder.path))}")


def _refuse_mixture(local: bool, config: RunConfig) -> None:
    from adrs_ray.errors import UsageError
    from adrs_ray.local import check_local

    if not local:
        return
    if config.cluster.address is not None:
        raise UsageError(f"--local and a Ray address ({config.cluster.address}) exclude each other: give one")
    check_local(config)


def _default_folder(task: str) -> Path:
    import time

    return Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"
