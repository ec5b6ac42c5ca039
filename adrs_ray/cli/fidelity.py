"""`adrs fidelity`: how faithful the cheap stages of a run's task are to the last one. It writes nothing."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adrs_ray.cli.remote import reachable

if TYPE_CHECKING:
    from adrs_ray.fidelity import Fidelity, Interval
    from adrs_ray.storage.views import RunView


def register(root: typer.Typer) -> None:
    root.command()(fidelity)


@reachable("fidelity")
def fidelity(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """How well each cheap stage foretells the last one, what its gate did, and whether a search exploits it."""
    from adrs_ray.errors import UsageError
    from adrs_ray.stage_pairs import fidelities, gate_counts
    from adrs_ray.storage.reader import JournalReader
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.storage.views import RunView

    folder = RunFolder.open(run)
    with JournalReader(folder.journal) as reader:
        view = RunView.of(reader.replay())
    found = fidelities(view, folder.config.evaluator.cascade, folder.config.seed)
    if not found:
        known = "no candidate was admitted yet" if not view.admitted else f"task {folder.task} has no stages"
        raise UsageError(f"{folder.path}: there is no fidelity to report, {known}")
    if as_json:
        stages = [{**asdict(one), "text": one.text, "gate": gate_counts(view, one.cheap)} for one in found]
        typer.echo(json.dumps({"run": str(folder.path), "stages": stages}))
        return
    _print(found, view)


def _print(found: tuple[Fidelity, ...], view: RunView) -> None:
    from rich.table import Table

    from adrs_ray.cli.console import table_console
    from adrs_ray.stage_pairs import gate_counts

    console = table_console()
    for one in found:
        table = Table(f"{one.cheap} against {one.dear}", "value", "95 % interval")
        table.add_row("pairs (let through at random)", f"{one.pairs} ({one.random})", "")
        counts = gate_counts(view, one.cheap)
        table.add_row("gate", ", ".join(f"{name} {count}" for name, count in counts.items()), "")
        if one.spearman is not None and one.bias is not None:
            bias = f"{one.dear} - {one.cheap}" if one.one_scale else f"{one.dear} - line({one.cheap})"
            table.add_row("Spearman", *_cells(one.spearman))
            table.add_row(f"bias: {bias}", *_cells(one.bias))
            table.add_row(f"regret of picking by {one.cheap}", f"{one.regret:.4g}", "")
        for growth in one.growths:
            table.add_row(f"flattery per step to {growth.candidate} ({growth.steps})", *_cells(growth.slope))
        console.print(table)
        console.print(one.text, soft_wrap=True)


def _cells(figure: Interval) -> tuple[str, str]:
    return f"{figure.value:.4g}", f"{figure.low:.4g} to {figure.high:.4g}"


def gates_of(view: RunView) -> dict[str, dict[str, int]]:
    """What the gate behind each stage did, by stage; {} for a task without stages."""
    from adrs_ray.stage_pairs import gate_counts, stages_of

    return {stage: gate_counts(view, stage) for stage in stages_of(view)[:-1]}
