"""`adrs bench`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adrs_ray.task import PublicEvaluator, Split, Task
    from adrs_ray.verdict_cost import VerdictCost
    from gpu_eval.results import Bench

app = typer.Typer(help="Measure what this machine and these tasks cost.", no_args_is_help=True)


def register(root: typer.Typer) -> None:
    root.add_typer(app, name="bench")


@app.command()
def tasks(
    names: Annotated[list[str] | None, typer.Argument(help="Tasks or task folders; without any, all built-in.")] = None,
    split: Annotated[str | None, typer.Option(help="Split to judge (default: test).")] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Verdicts of which the mean is shown, after one that is not.")
    ] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON list.")] = False,
) -> None:
    """CPU seconds of a verdict on each task's seed, beside the public evaluator's. Keep the machine otherwise idle."""
    from rich.table import Table

    from adrs_ray.cli.console import table_console
    from adrs_ray.errors import UsageError
    from adrs_ray.stages_here import served_here
    from adrs_ray.task import SPLITS, builtin_tasks, load_task
    from adrs_ray.verdict_cost import verdict_cost

    wanted = next((known for known in SPLITS if known == (split or "test")), None)
    if wanted is None:
        raise UsageError(f"--split {split}: accepted are {', '.join(SPLITS)}")
    loaded = []
    for name in names or builtin_tasks():
        task, left_out = served_here(load_task(name))
        if left_out:
            typer.echo(f"{name}: {left_out}", err=True)
        loaded.append(task)
    rows: list[tuple[Task, VerdictCost, PublicEvaluator | None]] = []
    for task in loaded:
        if wanted not in task.spec.splits:
            raise UsageError(f"--split {wanted}: {task.name} has {', '.join(task.spec.splits)}")
        typer.echo(f"{task.name}: {1 + repeats} verdicts on {wanted}", err=True)
        cost = verdict_cost(task, wanted, repeats=repeats)
        rows.append((task, cost, task.spec.public_evaluator if wanted == "test" else None))
    if as_json:
        typer.echo(json.dumps([_plain(task, wanted, cost, public) for task, cost, public in rows]))
        return
    table = Table("task", "CPU s", "of it the program", "wall s", "public, CPU s", "ratio", "source of the public")
    for task, cost, public in rows:
        table.add_row(
            f"{task.name}{' *' if task.split_note(wanted) else ''}",
            f"{cost.cpu_s:.3f}",
            f"{cost.candidate_cpu_s:.3f}",
            f"{cost.wall_s:.3f}",
            f"{public.cpu_s:g}" if public else "",
            f"{public.cpu_s / cost.cpu_s:.0f}" if public else "",
            public.source if public else "",
        )
    console = table_console()
    console.print(table)
    for task, _, _ in rows:
        if note := task.split_note(wanted):
            console.print(f"* {task.name}, {wanted}: {note}")


@app.command()
def throughput(
    rows: Annotated[
        list[str] | None,
        typer.Option(help="Rows whose names begin so, such as 0.2/64 or overnight; may be given again (default: all)."),
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=100, help="Candidates of every row, in place of the row's own number.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Two short rows, to see that it works.")] = False,
) -> None:
    """Candidates per second and CPU per candidate of whole runs on an embedded Ray, with a model that only waits.

    Prints a table in Markdown, row by row; all rows take half an hour. The CPU of the HTTP client is not in it:
    `python -m tests.benchmarks.model_client` in the repository. Keep the machine otherwise idle.
    """
    from dataclasses import replace

    from adrs_ray.errors import UsageError
    from cluster.throughput import all_rows, chosen_rows, measure, quick_rows, table

    if quick and rows:
        raise UsageError("--quick has rows of its own: leave out --rows")
    chosen = quick_rows() if quick else chosen_rows(rows) if rows else all_rows()
    if candidates is not None:
        chosen = [replace(row, load=replace(row.load, candidates=candidates)) for row in chosen]
    table(map(measure, chosen), typer.echo)


Device = Annotated[str | None, typer.Option(help="cpu or cuda (default: cuda where there is a GPU).")]
Candidates = Annotated[list[Path] | None, typer.Option(help="A program file to measure beside ours; repeatable.")]
Regimes = Annotated[list[str] | None, typer.Option("--regime", help="Of generated loads; repeatable (default: all).")]
Shapes = Annotated[list[str] | None, typer.Option("--shape", help="As 58x256-288/32/4/8; repeatable.")]
Loads = Annotated[Path | None, typer.Option(help="Recorded loads in place of generated ones: docs/load_traces.md.")]
Entries = Annotated[int | None, typer.Option(min=1, help="Of recorded loads that count in smaller pieces.")]
Quick = Annotated[bool, typer.Option("--quick", help="One shape and two regimes, shortly.")]
Seed = Annotated[int, typer.Option(min=0, help="Of generated loads.")]
Out = Annotated[Path | None, typer.Option(help="Folder for results.json and page.html (default: in results/).")]
Sandbox = Annotated[str, typer.Option(help="strict, or unsafe: programs run without a jail.")]


def _add_gpu_bench(bench: Bench, explained: str) -> None:
    """Both benches have the same options."""

    def command(
        device: Device = None,
        candidates: Candidates = None,
        regime: Regimes = None,
        shape: Shapes = None,
        loads: Loads = None,
        entries_per_window: Entries = None,
        quick: Quick = False,
        seed: Seed = 0,
        out: Out = None,
        sandbox: Sandbox = "strict",
    ) -> None:
        from importlib.util import find_spec

        from adrs_ray.errors import UsageError, one_line

        if sandbox not in ("strict", "unsafe"):
            raise UsageError(f"--sandbox {sandbox}: accepted are strict and unsafe")
        if find_spec("torch") is None:
            raise UsageError("this bench needs torch: pip install 'adrs-ray[gpu]'")
        from gpu_eval.bench_options import run_bench

        try:
            results = run_bench(
                bench,
                device=device,
                candidates=candidates or [],
                regimes=regime or [],
                shapes=shape or [],
                loads=loads,
                entries_per_window=entries_per_window,
                quick=quick,
                seed=seed,
                out=out,
                launcher=_jailed(bench, candidates) if candidates and sandbox == "strict" else (),
                told=lambda line: typer.echo(line, err=True),
                show=typer.echo,
            )
        except ValueError as error:
            raise UsageError(one_line(error, 1000)) from None
        if "interrupted" in results.settings:
            raise typer.Exit(130)

    app.command(bench, help=explained)(command)


_add_gpu_bench(
    "eplb",
    "Balancers of experts: balance beside the bounds, time on host and device, all baselines and your programs.\n\n"
    "Writes results.json and page.html. All of it takes an hour or so; keep the machine otherwise idle.",
)
_add_gpu_bench(
    "moe_placement",
    "Placement over time: steps, decisions and moves of whole traces, all policies and your programs.\n\n"
    "By a cost model, which a GPU is fitted to first and then measured against. Writes results.json and page.html.",
)


def _jailed(bench: Bench, programs: list[Path]) -> tuple[str, ...]:
    """The command that starts a program's process in the jail; it sees the GPUs that this process sees."""
    from adrs_ray.evaluator.confined import confined_command
    from adrs_ray.evaluator.gpus import visible_devices

    module = {"eplb": "gpu_eval.program_child", "moe_placement": "gpu_eval.placement_child"}[bench]
    readable = [str(path.resolve()) for path in programs]
    return tuple(confined_command([module], readable=readable, devices=",".join(visible_devices())))


def _plain(task: Task, split: Split, cost: VerdictCost, public: PublicEvaluator | None) -> dict[str, Any]:
    return {
        "task": task.name,
        "split": split,
        "split_note": task.split_note(split),
        **cost.to_json(),
        "public_cpu_s": public.cpu_s if public else None,
        "public_source": public.source if public else None,
    }
