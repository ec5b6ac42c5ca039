"""What `adrs run`, `adrs resume` and `adrs job` have in common: from a task and a config to a run that ends."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from adrs_ray.config import RunConfig
    from adrs_ray.search import RunResult, Seed
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.task import Task

STOPPED_BY_SIGNAL = "stopped by a signal"


def resolved(config: RunConfig, file: Path | None) -> RunConfig:
    """The config as run.yaml shall have it: the preset's models written out, with the commits that the lock beside the
    config's file has of them; paths that hold from anywhere.

    Raises UsageError for a preset that is not known, and a mirror that cannot be used.
    """
    from adrs_ray.errors import UsageError
    from adrs_ray.storage.mirror import absolute_url
    from cluster.model_lock import read_lock
    from cluster.presets import expand

    config = expand(config, None if file is None else read_lock(file.parent))
    if config.mirror.url is None:
        if config.mirror.ack == "mirror":
            raise UsageError("mirror.ack: mirror needs mirror.url, or an --out of `adrs job` that is remote")
        return config
    mirror = config.mirror.model_copy(update={"url": absolute_url(config.mirror.url)})
    return config.model_copy(update={"mirror": mirror})


def task_reference(task: str) -> str:
    """What run.yaml says of the task: a built-in name, or the absolute path of a folder."""
    from adrs_ray.task import builtin_tasks

    return task if task in builtin_tasks() else str(Path(task).expanduser().resolve())


def is_planted(folder: RunFolder) -> bool:
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


def planted_seeds(task: Task, warm_starts: Sequence[str], config: RunConfig) -> list[Seed]:
    """The task's seed, then what --warm-start names: a program file, or a run with its best program; none twice.

    Raises UsageError for one that is no program, and for more of them than the budget has candidates.
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
    planted = [by_source[candidate.source] for candidate in seed_candidates(seeds)]
    if len(planted) > config.budget.max_candidates:
        raise UsageError(
            f"budget.max_candidates {config.budget.max_candidates} is below the {len(planted)} programs to start from"
        )
    return planted


def told(task: Task, config: RunConfig) -> Task:
    """The task as the run starts from it. Raises UsageError for what cannot work: a stage, a seed level, a disguise,
    prompts that a user's templates cannot make, models without a key."""
    from adrs_ray.configured import configured
    from adrs_ray.local import make_models
    from adrs_ray.prompt.brief import brief_of
    from adrs_ray.prompt.render import check_templates

    task = configured(task, config)
    brief_of(task, config)
    folders = {config.prompt.folder, *(override.prompts for override in config.islands.overrides.values())}
    for folder in sorted(name for name in folders if name is not None):
        check_templates(folder)
    if config.generator.kind == "openai":
        make_models(config)
    return task


def model_notes(config: RunConfig) -> list[str]:
    """What a reader must know about the ensemble."""
    if config.generator.kind != "openai" or len(config.models) <= 2:
        return []
    return [
        f"{len(config.models)} models: the ADRS paper advises an ensemble of two, as more of them pull the search into "
        "different directions"
    ]


def split_notes(task: Task) -> list[str]:
    """What a reader must know about the task's splits. Raises UsageError when its judge cannot be used."""
    notes = ((split, task.split_note(split)) for split in task.spec.splits)
    return [f"{split}: {note}" for split, note in notes if note]


def execute(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    notes: list[str],
    local: bool,
    baselines: bool,
    as_json: bool,
    fence: bool,
    drain_s: float | None = None,
    cut_short: int = 130,
) -> RunResult:
    """Run it and print how it ended. `drain_s`: after a signal it is stopped at once when so long has passed.

    Exits with `cut_short` when it was stopped at once.
    """
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
        result = asyncio.run(
            _supervised(task, config, folder, seeds, local, baselines, fence, view.show, drain_s, cut_short)
        )
    if as_json:
        typer.echo(result_json(folder, result))
    else:
        print_result(task, folder, result, stream)
    return result


async def _supervised(
    task: Task,
    config: RunConfig,
    folder: RunFolder,
    seeds: list[Seed],
    local: bool,
    baselines: bool,
    fence: bool,
    on_status: Any,
    drain_s: float | None,
    cut_short: int,
) -> RunResult:
    """Run with signals: the first SIGINT or SIGTERM drains, the second, or the end of `drain_s`, stops at once."""
    import asyncio
    import signal

    from adrs_ray.search import StopSwitch

    again = f"adrs resume {shlex.quote(str(folder.path))}"
    switch = StopSwitch()
    loop = asyncio.get_running_loop()
    this = asyncio.current_task()
    assert this is not None

    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            this.cancel()
            return
        interrupted = True
        if switch.reason is None or not switch.reason.startswith("stopped"):
            switch.reason = STOPPED_BY_SIGNAL
        if drain_s is not None:
            # What has ended is only being put away: that is not cut short.
            loop.call_later(drain_s, lambda: None if switch.ended else this.cancel())
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
        raise SystemExit(cut_short) from None
