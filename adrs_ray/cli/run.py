"""`adrs run`, `adrs resume`, `adrs stop`."""

from __future__ import annotations

import sys
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
    target_score: Annotated[float | None, typer.Option(help="Stop when a train score reaches this.")] = None,
    patience: Annotated[int | None, typer.Option(help="Stop after so many candidates without a new best.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all randomness of the search.")] = None,
    slots: Annotated[int | None, typer.Option(help="Evaluations at once (default: one per CPU).")] = None,
    sandbox: Annotated[str | None, typer.Option(help="strict, or unsafe: no jail, every verdict says so.")] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(help="Start from this run's best programs or this program file, too; repeatable."),
    ] = None,
    baselines: Baselines = True,
    as_json: Json = False,
) -> None:
    """Search for a better program. Interrupted or killed, it goes on with `adrs resume`."""
    from adrs_ray.config import RunConfig, override, read_config
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
            "evaluator.slots": slots,
            "evaluator.sandbox": sandbox,
            "cluster.address": address,
        },
    )
    _refuse_both(local, resolved)
    seeds = _seeds(loaded, warm_start or [])
    folder = RunFolder.create(out or _default_folder(loaded.name), resolved, task_reference(task), local)
    _execute(loaded, resolved, folder, seeds, local, baselines, as_json, fence=False)


def resume(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    max_candidates: MaxCandidates = None,
    max_wall_s: MaxWall = None,
    local: Annotated[bool | None, typer.Option("--local/--ray", help="Where to go on (default: as before).")] = None,
    address: Address = None,
    fence: Annotated[
        bool, typer.Option("--fence", help="Take the run over from a process that still holds it; that one ends.")
    ] = False,
    baselines: Baselines = True,
    as_json: Json = False,
) -> None:
    """Go on with a run that was stopped or killed, or extend a finished one with --max-candidates."""
    from adrs_ray.config import override
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import load_task

    folder = RunFolder.open(run)
    changes: dict[str, Any] = {
        "budget.max_candidates": max_candidates,
        "budget.max_wall_s": max_wall_s,
        "cluster.address": address,
    }
    resolved = override(folder.config, changes)
    here = folder.local if local is None else local
    _refuse_both(here, resolved)
    if resolved != folder.config or here != folder.local:
        folder = folder.rewrite(resolved, here)
    task = load_task(folder.task)
    _execute(task, resolved, folder, [], here, baselines, as_json, fence=fence)


def stop(run: Annotated[Path, typer.Argument(help="Run folder.")]) -> None:
    """Ask a running run to drain: what is under way is finished and recorded, nothing new is begun."""
    from adrs_ray.storage.runfolder import RunFolder, post_command

    folder = RunFolder.open(run)
    post_command(folder, "stop", {})
    typer.echo(f"asked {folder.path} to stop; go on later with: adrs resume {folder.path}")


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


def _seeds(task: Task, warm_starts: list[str]) -> list[Seed]:
    """The task's seed, then what --warm-start names: a program file, or the best programs of a run."""
    from adrs_ray.errors import UsageError
    from adrs_ray.search import Seed
    from adrs_ray.storage.runfolder import RunFolder

    seeds = [Seed(task.seed_source, "seed")]
    for name in warm_starts:
        path = Path(name).expanduser()
        if path.is_dir():
            best = RunFolder.open(path).best_program
            if not best.is_file():
                raise UsageError(f"--warm-start {name}: this run has no best program yet")
            path = best
        try:
            seeds.append(Seed(path.read_text(encoding="utf-8"), f"warm start {name}"))
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--warm-start {name}: neither a run folder nor a readable program: {error}") from None
    return seeds


def _execute(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    local: bool,
    baselines: bool,
    as_json: bool,
    fence: bool,
) -> None:
    import asyncio

    from adrs_ray.cli.report import print_result, result_json
    from adrs_ray.supervision.live import status_view

    stream = sys.stderr if as_json else sys.stdout
    print(f"run {folder.path}: {task.name}, {'one process' if local else 'on Ray'}", file=stream, flush=True)
    for split in task.spec.splits:
        note = task.split_note(split)
        if note:
            print(f"{split}: {note}", file=stream, flush=True)
    with status_view(config.budget, stream) as view:
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
            f"\nfinishing what is under way (again to stop at once); go on later with: adrs resume {folder.path}",
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
        print(f"adrs: stopped at once; go on with: adrs resume {folder.path}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None
