"""`adrs task attack`."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adrs_ray.cli.tasks import LastStage

if TYPE_CHECKING:
    from adrs_ray.attack import Report
    from adrs_ray.attack.campaign import Progress


def register(task_app: typer.Typer) -> None:
    """Add the command to `adrs task`."""
    task_app.command("attack")(attack)


def attack(
    folder: Annotated[str, typer.Argument(help="A task folder, native or OpenEvolve-style, or a built-in task.")],
    program: Annotated[
        str | None, typer.Option(help="Make the cheats from this file, seed level or baseline (default: the seed).")
    ] = None,
    split: Annotated[str, typer.Option(help="train, validation, test or stress.")] = "train",
    scoring: Annotated[str, typer.Option(help="sound, or paper: the public evaluator's formula.")] = "sound",
    last_stage: LastStage = None,
    max_candidates: Annotated[int, typer.Option(min=1, help="Cheats to try at most.")] = 200,
    max_wall_s: Annotated[float, typer.Option(min=1.0, help="Start no cheat after so many seconds.")] = 120.0,
    seed: Annotated[int, typer.Option(min=0, help="Which cheats, where not all are tried, and which mutants.")] = 0,
    slots: Annotated[int | None, typer.Option(min=1, help="Evaluations at once (default: one per CPU).")] = None,
    keep: Annotated[Path | None, typer.Option(help="Write every program tried into this folder.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Try to cheat a task's evaluator with programs made from its seed; exit code 1 if any gets away with it."""
    from dataclasses import replace

    from adrs_ray.attack import Options, report_json
    from adrs_ray.attack import attack as run
    from adrs_ray.config import EvaluatorConfig
    from adrs_ray.errors import UsageError
    from adrs_ray.stages_here import served_here
    from adrs_ray.task import load_task, read_program

    if scoring not in ("sound", "paper"):
        raise UsageError(f"--scoring {scoring}: expected sound or paper")
    task, left_out = served_here(load_task(folder, "paper" if scoring == "paper" else "sound"), last_stage)
    if left_out:
        typer.echo(left_out, err=True)
    judged = next((known for known in task.spec.splits if known == split), None)
    if judged is None:
        raise UsageError(f"--split {split}: {task.name} has {', '.join(task.spec.splits)}")
    if program is not None:
        path = Path(program).expanduser()
        named = {} if path.is_file() else task.programs()
        task = replace(task, seed_source=read_program(named.get(program, path)))
    if keep is not None and keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise UsageError(f"--keep {keep}: it is no empty folder; name one that is empty or not there yet")
    options = Options(max_candidates=max_candidates, max_wall_s=max_wall_s, seed=seed, keep=keep, split=judged)
    # A judge may print; the JSON must stay alone.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout), _progress() as progress:
        report = run(task, options, EvaluatorConfig(slots=slots), progress)
    if as_json:
        typer.echo(json.dumps(report_json(report)))
    else:
        _print(report)
    if not report.is_clean:
        raise typer.Exit(1)


@contextlib.contextmanager
def _progress() -> Iterator[Progress | None]:
    """A line on standard error that counts, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return

    def told(done: int, planned: int) -> None:
        print(f"\r{done} of {planned} cheats judged", end="", file=sys.stderr, flush=True)

    try:
        yield told
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print(report: Report) -> None:
    from rich.table import Table

    from adrs_ray.cli.console import table_console

    console = table_console()
    low, high = min(report.seed_scores), max(report.seed_scores)
    spread = f"{high:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    console.print(
        f"{report.task} {report.split}: {report.tried} of {report.planned} cheats tried; the seed scores {spread}"
    )
    families = Table("family", "tried", "valid", "other answers", "findings")
    for name, count in report.families.items():
        found = sum(finding.family.value == name for finding in report.findings)
        families.add_row(name, *(str(count[key]) for key in ("tried", "valid", "changed")), str(found or "-"))
    console.print(families)
    if report.findings:
        table = Table("hole: family", "what the cheat does", "score", "seed", "answers", "metrics")
        for finding in report.findings:
            metrics = ", ".join(f"{name} {value:.6g}" for name, value in list(finding.metrics.items())[:4])
            scores = (f"{finding.score:.6g}", f"{finding.seed_score:.6g}")
            table.add_row(finding.family.value, finding.idea, *scores, finding.answers, metrics)
        console.print(table)
        for finding in report.findings:
            if finding.program is not None:
                console.print(f"{finding.family.value}: {finding.program}")
    if report.blind is not None:
        blind = report.blind
        console.print(
            f"blind: {blind.unmoved} of {blind.changed} valid programs with other answers than the seed's have its "
            f"score ({blind.refused} cheats were refused): the score does not depend on what a program answers"
        )
    for note in report.notes:
        console.print(f"note: {note}")
    if report.is_clean:
        console.print("no finding. That is no proof: it says what was tried, not that nothing else would work")
