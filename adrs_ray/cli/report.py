"""How the end of a run is printed: for people, and as one line of JSON."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from rich.table import Table

from adrs_ray.candidate import Evaluation, Verdict
from adrs_ray.cli.console import table_console
from adrs_ray.search import RunResult
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.supervision.contamination import Nearness
from adrs_ray.supervision.live import model_line
from adrs_ray.task import SPLITS, Task


def result_json(folder: RunFolder, result: RunResult) -> str:
    """One line: run, candidates, best {id, score, metrics}, failures, wall_s, and what the held-out splits said."""
    best = result.champion
    held_out = {
        name: {split: _verdict_json(verdict) for split, verdict in verdicts.items()}
        for name, verdicts in result.verdicts.items()
    }
    return json.dumps(
        {
            "run": str(folder.path),
            "reason": result.reason,
            "finished": result.finished,
            "candidates": result.status.candidates,
            "best": None
            if best is None
            else {"id": best.candidate, "score": best.score, "metrics": dict(best.metrics)},
            "failures": dict(result.status.failures),
            "wall_s": round(result.wall_s, 3),
            "reexecuted": result.status.reexecuted,
            "held_out": held_out,
            "nearest_known": [{"name": n.name, "shingles": n.shingles, "tree": n.tree} for n in result.nearest],
            "models": {
                name: {"requests": model.requests, "lost": model.lost, **asdict(model.usage)}
                for name, model in result.status.models.items()
            },
        }
    )


def _verdict_json(verdict: Verdict) -> dict[str, object]:
    if isinstance(verdict, Evaluation):
        return {"score": verdict.score, "metrics": dict(verdict.metrics)}
    return {"failure": verdict.kind.value, "detail": verdict.detail}


def print_result(task: Task, folder: RunFolder, result: RunResult, stream: TextIO) -> None:
    """The champion beside the seed and the baselines, and where things lie."""
    console = table_console(stream)
    status = result.status
    failures = ", ".join(f"{kind} {count}" for kind, count in sorted(status.failures.items())) or "none"
    console.print(f"ended: {result.reason} ({result.wall_s:.1f} s)", soft_wrap=True)
    console.print(f"{status.candidates} candidates in a terminal state; failures: {failures}", soft_wrap=True)
    for name, model in status.models.items():
        console.print(f"model {name}: {model_line(model)}", soft_wrap=True)
    if status.reexecuted:
        console.print(f"{status.reexecuted} evaluations were started again after a loss", soft_wrap=True)
    if result.champion is None:
        console.print("no valid candidate")
        return
    if result.verdicts:
        console.print(comparison_table(task, result))
    else:
        console.print(f"best so far: {result.champion.candidate}, train score {result.champion.score:.6g}")
    if result.nearest:
        console.print(nearest_line(result.nearest), soft_wrap=True)
    console.print(f"program: {folder.best_program}", soft_wrap=True)
    run = shlex.quote(str(folder.path))
    console.print(f"look closer: adrs best {run}; adrs show {run}", soft_wrap=True)
    more = f" --max-candidates {2 * status.max_candidates}" if status.candidates >= status.max_candidates else ""
    console.print(f"go on:       adrs resume {run}{more}", soft_wrap=True)


def nearest_line(near: Sequence[Nearness]) -> str:
    """Known programs that a program resembles, in words."""
    each = (f"{n.name} (tokens {100 * n.shingles:.0f} %, syntax tree {100 * n.tree:.0f} %)" for n in near)
    return f"nearest known programs: {', '.join(each)}"


def comparison_table(task: Task, result: RunResult) -> Table:
    """Champion, seed and baselines side by side: the score on each held-out split, then the task's metrics on test."""
    assert result.champion is not None
    judged = {split for verdicts in result.verdicts.values() for split in verdicts}
    splits = [split for split in SPLITS if split in judged]
    last = splits[-1]
    caption = f"metrics: on {last}"
    table = Table("", *(_label(name, result.champion.candidate) for name in result.verdicts), caption=caption)
    for split in splits:
        scores = [_cell(verdicts.get(split)) for verdicts in result.verdicts.values()]
        table.add_row(f"score on {split}", *scores, end_section=split == last)
    for metric in task.spec.metrics:
        values = [_metric(verdicts.get(last), metric) for verdicts in result.verdicts.values()]
        if any(value != "-" for value in values):
            table.add_row(metric, *values)
    return table


def _label(name: str, champion: str) -> str:
    if name == champion:
        return f"champion {name}"
    return "seed" if name == "seed-0" else name.removeprefix("baseline-")


def _metric(verdict: Verdict | None, name: str) -> str:
    if not isinstance(verdict, Evaluation) or name not in verdict.metrics:
        return "-"
    return f"{verdict.metrics[name]:.5g}"


def _cell(verdict: Verdict | None) -> str:
    if verdict is None:
        return "-"
    return f"{verdict.score:.5g}" if isinstance(verdict, Evaluation) else verdict.kind.value
