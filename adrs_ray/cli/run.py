"""`adrs run`, `adrs resume`, `adrs stop`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adrs_ray.config import RunConfig
    from adrs_ray.search import RunResult, Seed
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import Task

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
    from adrs_ray.config import RunConfig, override, read_config
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    loaded = load_task(task)
    resolved = override(
        RunConfig() if config is None else read_config(config),
        {
            "islands.count": islands,
            "budget.max_candidates": max_candidates,
            "budget.max_wall_s": max_wall_s,
            "budget.target_score": target_score,
            "budget.patience": patience,
            "seed": seed,
            "start": start,
            "evaluator.slots": slots,
            "evaluator.sandbox": sandbox,
            "cluster.address": address,
            "isomorphic": isomorphic,
        },
    )
    _refuse_both(local, resolved)
    loaded = _told(loaded, resolved)
    warm_starts = [str(Path(name).expanduser().absolute()) for name in warm_start or []]
    seeds = _seeds(loaded, warm_starts)
    if len(seeds) > resolved.budget.max_candidates:
        raise UsageError(
            f"budget.max_candidates {resolved.budget.max_candidates} is below the {len(seeds)} programs to start from"
        )
    # What is wrong with the task is said before a folder is made.
    notes = [*_split_notes(loaded), *_model_notes(resolved)]
    path = out or _default_folder(loaded.name)
    folder = RunFolder.create(path, resolved, task_reference(task), local, warm_start=warm_starts)
    _execute(loaded, resolved, folder, seeds, notes, local, baselines, as_json, fence=False)


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
    resolved = override(folder.config, changes)
    here = folder.local if local is None else local
    if local and address is None:
        # Asked for by name, one process wins over the cluster that the run was on before.
        resolved = resolved.model_copy(update={"cluster": ClusterConfig()})
    _refuse_both(here, resolved)
    task = _told(load_task(folder.task), resolved)
    seeds = [] if _is_planted(folder) else _seeds(task, folder.reference.warm_start)
    _execute(task, resolved, folder, seeds, _split_notes(task), here, baselines, as_json, fence=fence)


def stop(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Ask a running run to drain: what is under way is finished and recorded, nothing new is begun."""
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.runfolder import RunFolder, post_command

    folder = RunFolder.open(run)
    if not folder.is_running():
        raise UsageError(f"{folder.path} is not running: nothing to stop")
    post_command(folder, "stop", {})
    typer.echo(f"asked {folder.path} to stop; go on later with: adrs resume {shlex.quote(str(folder.path))}")


def task_reference(task: str) -> str:
    """What run.yaml says of the task: a built-in name, or the absolute path of a folder."""
    from adrs_ray.task import builtin_tasks

    return task if task in builtin_tasks() else str(Path(task).expanduser().resolve())


def _refuse_both(local: bool, config: RunConfig) -> None:
    from adrs_ray.errors import UsageError

    if local and config.cluster.address is not None:
        raise UsageError(f"--local and a Ray address ({config.cluster.address}) exclude each other: give one")


def _default_folder(task: str) -> Path:
    import time

    return Path("runs") / f"{task}-{time.strftime('%Y%m%d-%H%M%S')}"


def _is_planted(folder: RunFolder) -> bool:
    """Whether the journal holds the programs to start from."""
    from adrs_ray.errors import UsageError
    from adrs_ray.island import SEED_ISLAND
    from adrs_ray.storage.journal import EventKind
    from adrs_ray.storage.reader import JournalReader

    try:
        with JournalReader(folder.journal) as reader:
            return bool(reader.read(kinds=[EventKind.GENERATED], island=SEED_ISLAND, limit=1))
    except UsageError:  # none was made yet; what is wrong with another file is said by who writes there
        return False


def _seeds(task: Task, warm_starts: Sequence[str]) -> list[Seed]:
    """The task's seed, then what --warm-start names: a program file, or a run with its best program; none twice.

    Raises UsageError for one that is no program.
    """
    from adrs_ray.errors import UsageError
    from adrs_ray.openevolve_checkpoint import checkpoint_programs, is_checkpoint
    from adrs_ray.search import Seed, seed_candidates
    from adrs_ray.storage.runfolder import RunFolder

    seeds = [Seed(task.seed_source, "seed")]
    for name in warm_starts:
        path = Path(name)
        if is_checkpoint(path):
            found = checkpoint_programs(path)
            seeds += [Seed(each.source, f"checkpoint {name} {each.id}") for each in found]
            continue
        if path.is_dir():
            best = RunFolder.open(path).best_program
            if not best.is_file():
                raise UsageError(f"--warm-start {name}: this run has no best program yet")
            path = best
        try:
            seeds.append(Seed(path.read_text(encoding="utf-8"), f"warm start {name}"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--warm-start {name}: neither a run folder nor a readable program: {error}") from None
    by_source = {seed.source: seed for seed in reversed(seeds)}
    return [by_source[candidate.source] for candidate in seed_candidates(seeds)]


def _told(task: Task, config: RunConfig) -> Task:
    """The task as the run starts from it. Raises UsageError for what cannot work: a seed level, a disguise, prompts
    that a user's templates cannot make, models without a key."""
    from adrs_ray.isomorphic import disguised
    from adrs_ray.local import make_models
    from adrs_ray.prompt.brief import brief_of
    from adrs_ray.prompt.render import check_templates

    task = task.starting_from(config.start)
    if config.isomorphic:
        task = disguised(task)
    brief_of(task, config)
    folders = {config.prompt.folder, *(override.prompts for override in config.islands.overrides.values())}
    for folder in sorted(name for name in folders if name is not None):
        check_templates(folder)
    if config.generator.kind == "openai":
        make_models(config)
    return task


def _model_notes(config: RunConfig) -> list[str]:
    """What a reader must know about the ensemble."""
    if config.generator.kind != "openai" or len(config.models) <= 2:
        return []
    return [
        f"{len(config.models)} models: the ADRS paper advises an ensemble of two, as more of them pull the search into "
        "different directions"
    ]


def _split_notes(task: Task) -> list[str]:
    """What a reader must know about the task's splits. Raises UsageError when its judge cannot be used."""
    notes = ((split, task.split_note(split)) for split in task.spec.splits)
    return [f"{split}: {note}" for split, note in notes if note]


def _execute(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    notes: list[str],
    local: bool,
    baselines: bool,
    as_json: bool,
    fence: bool,
) -> None:
    import asyncio
    import contextlib

    from adrs_ray.cli.report import print_result, result_json
    from adrs_ray.supervision.live import status_view

    stream = sys.stderr if as_json else sys.stdout
    print(f"run {folder.path}: {task.name}, {'one process' if local else 'on Ray'}", file=stream, flush=True)
    for note in notes:
        print(note, file=stream, flush=True)
    # A judge may print; the line of JSON must stay alone.
    with contextlib.redirect_stdout(stream), status_view(config.budget, stream) as view:
        result = asyncio.run(_supervised(task, config, folder, seeds, local, baselines, fence, view.show))
    if as_json:
        typer.echo(result_json(folder, result))
    else:
        print_result(task, folder, result, stream)


async def _supervised(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    local: bool,
    baselines: bool,
    fence: bool,
    on_status: Any,
) -> RunResult:
    """Run with signals: the first SIGINT or SIGTERM drains, the second stops at once."""
    import asyncio
    import signal

    from adrs_ray.search import StopSwitch

    again = f"adrs resume {shlex.quote(str(folder.path))}"
    switch = StopSwitch()
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None

    def interrupt() -> None:
        if switch.reason is not None and switch.reason.startswith("stopped"):
            this.cancel()
            return
        switch.reason = "stopped by a signal"
        print(
            f"\nfinishing what is under way (again to stop at once); go on later with: {again}",
            file=sys.stderr,
            flush=True,
        )

    def attach() -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, interrupt)

    attach()
    try:
        if local:
            from adrs_ray.local import run_local

            return await run_local(task, config, folder, seeds, on_status, switch, baselines, fence)
        from cluster.driver import run_on_ray

        return await run_on_ray(task, config, folder, seeds, on_status, switch, baselines, fence, attach)
    except asyncio.CancelledError:
        print(f"adrs: stopped at once; go on with: {again}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
