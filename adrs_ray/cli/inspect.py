"""`adrs status`, `adrs best`, `adrs show`: what the journal of a run says. They write nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adrs_ray.cli.remote import reachable

if TYPE_CHECKING:
    from adrs_ray.storage.journal import Event
    from adrs_ray.storage.reader import JournalReader
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.storage.views import Admitted, RunView, SplitResult
    from adrs_ray.task import Task

Run = Annotated[Path, typer.Argument(help="Run folder.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def register(root: typer.Typer) -> None:
    root.command()(status)
    root.command()(best)
    root.command()(show)


@contextmanager
def _opened(run: Path) -> Iterator[tuple[RunFolder, JournalReader, RunView]]:
    from adrs_ray.storage.reader import JournalReader
    from adrs_ray.storage.runfolder import RunFolder
    from adrs_ray.storage.views import RunView

    folder = RunFolder.open(run)
    with JournalReader(folder.journal) as reader:
        yield folder, reader, RunView.of(reader.replay())


@reachable("status")
def status(run: Run, as_json: Json = False) -> None:
    """How far a run is: candidates, best, failures, islands, starts, looks at the test split."""
    from adrs_ray.cli.fidelity import gates_of

    with _opened(run) as (folder, _, view):
        data: dict[str, Any] = {
            "run": str(folder.path),
            "task": folder.task,
            "state": _state(folder, view),
            "candidates": view.terminal,
            "max_candidates": folder.config.budget.max_candidates,
            "under_way": len(view.pending),
            "failures": {kind.value: count for kind, count in sorted(view.failures.items())},
            "best": None if view.best is None else {"id": view.best.candidate, "score": view.best.score},
            "champion": view.champion,
            "islands": {
                "seeds" if n < 0 else str(n): {
                    "candidates": island.terminal,
                    "best": None if island.best is None else island.best.score,
                    "migrants": island.migrants,
                }
                for n, island in sorted(view.islands.items())
            },
            "models": {
                name: {
                    "requests": view.requests[name],
                    "lost": view.lost[name],
                    "tokens_in": usage.tokens_in,
                    "tokens_out": usage.tokens_out,
                    "usd": round(usage.usd, 6),
                    "gpu_s": round(usage.gpu_s, 3),
                }
                for name, usage in sorted(view.usage.items())
            },
            "gates": gates_of(view),
            "arms": {
                f"{model}/{operator}": {
                    "tried": arm.tried,
                    "admitted": arm.admitted,
                    "improved": arm.improved,
                    "gain": round(arm.gain, 6),
                    "cost": round(arm.cost, 6),
                }
                for (model, operator), arm in sorted(view.arms.items())
            },
            "open_requests": len(view.open_requests),
            "found": [_found(event) for event in view.findings[-5:]],
            "interventions": [f"{e.body['kind']} on island {e.island}: {e.body['reason']}" for e in view.interventions],
            "commands": [_order(event) for event in view.orders if event.body["kind"] != "answer"],
            "starts": len(view.epochs),
            "reexecuted": view.reexecuted,
            "test_looks": view.test_looks,
        }
    if as_json:
        typer.echo(json.dumps(data))
        return
    for key, value in data.items():
        if isinstance(value, dict):
            typer.echo(f"{key}:")
            for name, entry in value.items():
                typer.echo(f"  {name}: {_flat(entry)}")
        elif isinstance(value, list):
            typer.echo(f"{key}: {'none' if not value else ''}")
            for entry in value:
                typer.echo(f"  {entry}")
        else:
            typer.echo(f"{key}: {value}")


def _found(event: Event) -> str:
    where = "the run" if event.island < 0 else f"island {event.island}"
    return f"{event.body['detector']} ({where}): {event.body['evidence']}"


def _order(event: Event) -> str:
    """A command as one line."""
    kind, body = event.body["kind"], event.body["body"]
    given = {k: v for k, v in body.items() if v is not None and k != "source"}
    return " ".join([kind, *(f"{k}={v}" for k, v in given.items())])[:200]


def _state(folder: RunFolder, view: RunView) -> str:
    if folder.is_running():
        return "running"
    return "cut off: go on with `adrs resume`" if view.end is None else f"ended: {view.end['reason']}"


def _flat(value: Any) -> str:
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


@reachable("best")
def best(
    run: Run,
    program: Annotated[
        bool, typer.Option("--program", help="Print the program's text alone, of an isomorphic run in native names.")
    ] = False,
    count: Annotated[int, typer.Option("--top", help="How many of the best to list.", min=1)] = 5,
    as_json: Json = False,
) -> None:
    """The best programs of a run on train, and what validation and test said of them. The champion comes first."""
    from adrs_ray.errors import RunError

    with _opened(run) as (folder, reader, view):
        ranked = view.top(count)
        if not ranked:
            raise RunError(f"{folder.path}: no valid candidate yet ({view.terminal} ended, see `adrs status`)")
        champion = view.admitted.get(view.champion or "")
        if champion is not None:
            ranked = [champion, *(entry for entry in ranked if entry is not champion)][:count]
        if program:
            typer.echo(_native(folder, reader.texts([ranked[0].source])[ranked[0].source]), nl=False)
        else:
            near = _nearest(folder, reader, ranked)
            if as_json:
                typer.echo(json.dumps([{**_entry(view, e), "nearest_known": near[e.candidate]} for e in ranked]))
            else:
                _print_best(folder, view, ranked, near)


def _entry(view: RunView, entry: Admitted) -> dict[str, Any]:
    held_out = {s: _result(r[entry.candidate]) for s, r in view.held_out.items() if entry.candidate in r}
    return {
        "id": entry.candidate,
        "score": entry.score,
        "metrics": dict(entry.metrics),
        "operator": entry.operator,
        "parents": list(view.lineage[entry.candidate].parents),
        "held_out": held_out,
    }


def _result(result: SplitResult) -> float | str | None:
    return result.score if result.failure is None else result.failure.value


def _task(folder: RunFolder) -> Task:
    """The task of a run as its programs are written for it. Raises UsageError when it is not here any more."""
    from adrs_ray.configured import configured
    from adrs_ray.task import load_task

    return configured(load_task(folder.task), folder.config)


def _native(folder: RunFolder, source: str) -> str:
    return _task(folder).translated(source) if folder.config.isomorphic else source


def _nearest(folder: RunFolder, reader: JournalReader, ranked: list[Admitted]) -> dict[str, list[dict[str, Any]]]:
    """Known programs that each resembles most; none of a task that is not here any more."""
    from adrs_ray.errors import UsageError
    from adrs_ray.supervision.contamination import known_programs, nearest

    try:
        task = _task(folder)
        known = known_programs(task, folder.config.finish.known)
    except UsageError as error:
        typer.echo(f"known programs are not compared: {error}", err=True)
        return {entry.candidate: [] for entry in ranked}
    texts = reader.texts([entry.source for entry in ranked])
    return {
        entry.candidate: [
            {"name": n.name, "shingles": round(n.shingles, 4), "tree": round(n.tree, 4)}
            for n in nearest(task.translated(texts[entry.source]), known)
        ]
        for entry in ranked
    }


def _print_best(
    folder: RunFolder, view: RunView, ranked: list[Admitted], near: dict[str, list[dict[str, Any]]]
) -> None:
    from rich.table import Table

    from adrs_ray.cli.console import table_console

    splits = [split for split in ("validation", "test", "stress") if split in view.held_out]
    table = Table("candidate", "train", *splits, "operator", "parents", "nearest known (tokens, tree)")
    for entry in ranked:
        held_out = _entry(view, entry)["held_out"]
        cells = [_number(held_out.get(split)) for split in splits]
        name = f"{entry.candidate} (champion)" if entry.candidate == view.champion else entry.candidate
        table.add_row(
            name,
            _number(entry.score),
            *cells,
            entry.operator,
            ", ".join(view.lineage[entry.candidate].parents),
            "".join(f"{n['name']} {n['shingles']:.2f} {n['tree']:.2f}" for n in near[entry.candidate][:1]),
        )
    others = sorted({name for results in view.held_out.values() for name in results} - {e.candidate for e in ranked})
    for name in others:
        if name.startswith("baseline-") or name == "seed-0":
            cells = [_number(_of(view, split, name)) for split in splits]
            table.add_row(name.removeprefix("baseline-"), "-", *cells, "", "", "")
    console = table_console()
    console.print(table)
    console.print(f"program: {folder.best_program}", soft_wrap=True)


def _of(view: RunView, split: str, name: str) -> float | str | None:
    result = view.held_out[split].get(name)
    return None if result is None else _result(result)


def _number(value: float | str | None) -> str:
    return "-" if value is None else value if isinstance(value, str) else f"{value:.6g}"


@reachable("show")
def show(
    run: Run,
    candidate: Annotated[
        str | None, typer.Argument(help="A candidate's id; without one, the run's improvements.")
    ] = None,
) -> None:
    """One candidate in full (program, verdicts, lineage), or how the best score of a run rose."""
    from adrs_ray.errors import UsageError

    with _opened(run) as (_, reader, view):
        if candidate is None:
            typer.echo("ended  candidate   train score  operator")
            for step in view.improvements:
                best_one = step.best
                typer.echo(f"{step.terminal:5}  {best_one.candidate:10}  {best_one.score:11.6g}  {best_one.operator}")
            typer.echo(f"{view.terminal:5}  in all")
            return
        if candidate not in view.candidates:
            raise UsageError(f"no candidate {candidate!r} in {run}: `adrs best {run}` lists some")
        _show_candidate(reader, view, candidate)


def _show_candidate(reader: JournalReader, view: RunView, candidate: str) -> None:
    from adrs_ray.storage.journal import EventKind

    lineage = view.lineage.get(candidate)
    typer.echo(f"candidate: {candidate}, {view.candidates[candidate].name.lower()}")
    if lineage is not None:
        typer.echo(f"operator:  {lineage.operator}")
        chain = [candidate]
        while (step := view.lineage.get(chain[-1])) is not None and step.parents:
            chain.append(step.parents[0])
        typer.echo(f"lineage:   {' <- '.join(chain)}")
    source = None
    for event in reader.replay():
        if event.candidate != candidate:
            continue
        body = event.body
        source = body.get("source") or source
        if event.kind is EventKind.MEASURED:
            verdict = body["verdict"]
            outcome = (
                f"score {verdict['score']:.6g}" if "score" in verdict else f"{verdict['failure']}: {verdict['detail']}"
            )
            typer.echo(f"{body['split']}: {outcome} ({verdict['wall_s']:.2f} s, trust {verdict['trust']})")
            for name, value in verdict.get("metrics", {}).items():
                typer.echo(f"  {name}: {value:.6g}")
            for name, ref in verdict["artifacts"].items():
                typer.echo(f"  {name}:\n{reader.texts([ref])[ref]}")
        elif event.kind is EventKind.REJECTED:
            typer.echo(f"rejected: {body['failure']}: {body['detail']}")
    if source is not None:
        typer.echo(reader.texts([source])[source], nl=False)
