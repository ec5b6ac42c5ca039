"""`adrs eval`."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from adrs_ray.candidate import Verdict
    from adrs_ray.task import Task


def register(root: typer.Typer) -> None:
    root.command("eval")(evaluate)


def evaluate(
    task: Annotated[str, typer.Argument(help="Built-in task or task folder.")],
    program: Annotated[
        str, typer.Argument(help="A program file, `seed`, a seed's level (weak, medium, strong) or a baseline's name.")
    ],
    split: Annotated[str, typer.Option(help="train, validation, test or stress.")] = "train",
    stage: Annotated[str, typer.Option(help="Of a task with stages: which one measures (default: the last).")] = "",
    scoring: Annotated[
        str, typer.Option(help="sound, as searches do, or paper: the public evaluator's figures, faults included.")
    ] = "sound",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    sandbox: Annotated[str, typer.Option(help="strict, or unsafe: no jail, the verdict says so.")] = "strict",
    python: Annotated[str | None, typer.Option(help="Interpreter that runs the program.")] = None,
) -> None:
    """Judge one program: score, metrics, cases, evidence. Exit code 1 if the verdict is a failure."""
    from adrs_ray.candidate import Failure
    from adrs_ray.config import EvaluatorConfig, RunConfig, override
    from adrs_ray.errors import UsageError
    from adrs_ray.evaluator.doctor import evaluate_once
    from adrs_ray.task import load_task

    if scoring not in ("sound", "paper"):
        raise UsageError(f"--scoring {scoring}: accepted are sound and paper")
    loaded = load_task(task, "paper" if scoring == "paper" else "sound")
    if split not in loaded.spec.splits:
        raise UsageError(f"--split {split}: {loaded.name} has {', '.join(loaded.spec.splits)}")
    config: EvaluatorConfig = override(
        RunConfig(), {"evaluator.sandbox": sandbox, "evaluator.python": python, "evaluator.slots": 1}
    ).evaluator
    source = _read_program(loaded.seed_source, loaded.programs(), program)
    # A judge may print; the JSON must stay alone.
    with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
        verdict = evaluate_once(loaded, source, split, config, loaded.stage(stage).name)
        note = loaded.split_note(split)
    if as_json:
        typer.echo(json.dumps(_report(loaded, split, loaded.stage(stage).name, verdict, note)))
    else:
        _print(loaded, split, loaded.stage(stage).name, verdict, note)
    if isinstance(verdict, Failure):
        raise typer.Exit(1)


def _read_program(seed: str, programs: dict[str, Path], program: str) -> str:
    from adrs_ray.errors import UsageError

    path = Path(program).expanduser()
    if not path.is_file():
        if program == "seed":
            return seed
        if program in programs:
            path = programs[program]
        else:
            known = ", ".join(["seed", *programs])
            raise UsageError(f"no program {program!r}: neither a file nor one of {known}")
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {error}") from None


def _report(task: Task, split: str, stage: str, verdict: Verdict, note: str | None) -> dict[str, Any]:
    from adrs_ray.candidate import Evaluation, Failure

    valid = isinstance(verdict, Evaluation)
    cases = (
        [{"case": c.case, "metrics": dict(c.metrics), "cpu_s": c.cpu_s, "wall_s": c.wall_s} for c in verdict.cases]
        if isinstance(verdict, Evaluation)
        else []
    )
    failure = (
        {"kind": verdict.kind.value, "detail": verdict.detail, "case": verdict.case}
        if isinstance(verdict, Failure)
        else None
    )
    return {
        "task": task.name,
        "split": split,
        "stage": stage,
        "scoring": task.scoring,
        "split_note": note,
        "valid": valid,
        "score": verdict.score if isinstance(verdict, Evaluation) else None,
        "metrics": dict(verdict.metrics) if isinstance(verdict, Evaluation) else {},
        "cases": cases,
        "artifacts": dict(verdict.artifacts),
        "failure": failure,
        "trust": verdict.trust,
        "jail": list(verdict.evidence.jail),
        "denied": dict(verdict.evidence.denied),
        "wall_s": verdict.wall_s,
    }


def _print(task: Task, split: str, stage: str, verdict: Verdict, note: str | None) -> None:
    from rich.table import Table

    from adrs_ray.candidate import Failure
    from adrs_ray.cli.console import table_console

    console = table_console()
    if note:
        console.print(f"{split}: {note}")
    staged = f", stage {stage}" if task.spec.stages else ""
    what = f"{task.name} {split}{staged}" + (", public scoring" if task.scoring == "paper" else "")
    if isinstance(verdict, Failure):
        where = f" in case {verdict.case}" if verdict.case else ""
        console.print(f"{what}: no score. {verdict.kind.value}{where}: {verdict.detail}")
    else:
        console.print(f"{what}: score {verdict.score:.6g}")
        metrics = Table("metric", "value")
        for name, value in verdict.metrics.items():
            metrics.add_row(name, f"{value:.6g}")
        console.print(metrics)
        measured = dict.fromkeys(name for case in verdict.cases for name in case.metrics)
        # what is not declared, a judge has passed on to itself
        names = [name for name in measured if name in task.spec.metrics] or list(measured)
        cases = Table("case", *names, "cpu s")
        for case in verdict.cases:
            shown = (f"{case.metrics[name]:.6g}" if name in case.metrics else "" for name in names)
            cases.add_row(case.case, *shown, f"{case.cpu_s:.3f}")
        console.print(cases)
    for name, text in verdict.artifacts.items():
        console.rule(name)
        console.print(text)
    denied = ", ".join(f"{what} x{n}" for what, n in verdict.evidence.denied.items()) or "nothing"
    console.print(f"trust: {verdict.trust}; jail: {', '.join(verdict.evidence.jail) or 'none'}; denied: {denied}")
    console.print(f"wall {verdict.wall_s:.2f} s")
