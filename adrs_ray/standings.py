"""Where the programs of a task stand: seeds and baselines, judged on every split, beside the bound.

`standings.json` in the task's folder keeps what was measured; the table in its README is made from it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from adrs_ray.candidate import Failure, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.staged import local_evaluator
from adrs_ray.storage.runfolder import write_atomically
from adrs_ray.task import LEVELS, Scoring, Split, Task, load_task, read_program
from adrs_ray.verdict_cost import verdict_cost

FILE = "standings.json"
BEGIN, END = "<!-- standings -->", "<!-- /standings -->"


@dataclass(frozen=True, slots=True)
class Standing:
    """One program on one split. `score` is None when it failed, and `failure` says how."""

    program: str
    split: Split
    scoring: Scoring
    score: float | None
    metrics: Mapping[str, float]
    failure: str | None = None

    @property
    def is_seed(self) -> bool:
        return self.program in LEVELS


@dataclass(frozen=True, slots=True)
class Standings:
    """All of a task. `notes`: what a reader must know of a split; `verdict`: what judging the seed on test costs."""

    task: str
    rows: tuple[Standing, ...]
    notes: Mapping[str, str]
    verdict: Mapping[str, float]
    stage: str | None = None
    """Of a task with stages, the one that judged."""

    def find(self, program: str, split: Split, scoring: Scoring = "sound") -> Standing | None:
        """The row of a program, None when it was not measured. `seed` is the medium one."""
        name = "medium" if program == "seed" else program
        return next((r for r in self.rows if (r.program, r.split, r.scoring) == (name, split, scoring)), None)


def measure(task: Task, slots: int | None = None, told: Callable[[str], None] = lambda line: None) -> Standings:
    """Judge every seed and baseline on every split, and by `paper` scoring on test where the task has it.

    A task with stages is judged in its last one. `told` hears a line per verdict. Raises UsageError when the task
    cannot be judged here.
    """
    if task.kind != "native":
        raise UsageError(f"{task.folder}: standings are for native task folders (task.yaml)")
    programs = {name: read_program(path) for name, path in task.programs().items()}
    if "medium" not in programs:
        programs = {"medium": task.seed_source, **programs}
    rows = asyncio.run(_judge_all(task, programs, task.spec.splits, slots, told))
    stage = task.stage("").name if task.spec.stages else None
    if (task.folder / "paper.py").is_file() and "test" in task.spec.splits:
        public = load_task(task.folder, "paper")
        public = public.up_to(stage) if stage else public
        rows += asyncio.run(_judge_all(public, programs, ("test",), slots, told))
    notes: dict[str, str] = {split: note for split in task.spec.splits if (note := task.split_note(split))}
    cost = verdict_cost(task, task.spec.splits[-1] if "test" not in task.spec.splits else "test")
    return Standings(task.name, tuple(rows), notes, cost.to_json(), stage)


async def _judge_all(
    task: Task,
    programs: Mapping[str, str],
    splits: Sequence[Split],
    slots: int | None,
    told: Callable[[str], None],
) -> list[Standing]:
    async with local_evaluator(task, EvaluatorConfig(slots=slots), [""]) as evaluator:

        async def one(name: str, split: Split) -> Standing:
            standing = _standing(
                name, split, task, await evaluator.evaluate(EvaluationJob(name, programs[name], split))
            )
            shown = standing.failure or f"{standing.score:.6g}"
            told(f"{name} on {split} ({task.scoring}): {shown}")
            return standing

        return list(await asyncio.gather(*(one(name, split) for split in splits for name in programs)))


def _standing(name: str, split: Split, task: Task, verdict: Verdict) -> Standing:
    if isinstance(verdict, Failure):
        where = f" in case {verdict.case}" if verdict.case else ""
        return Standing(name, split, task.scoring, None, {}, f"{verdict.kind.value}{where}: {verdict.detail}")
    return Standing(name, split, task.scoring, verdict.score, dict(verdict.metrics))


def recorded(folder: Path) -> Standings | None:
    """What stands in the folder's standings.json, None without one. Raises UsageError when it is not ours."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(Standing(**row) for row in data["rows"])
        return Standings(data["task"], rows, data["notes"], data["verdict"], data.get("stage"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{path} is no standings file ({type(error).__name__}: {error}): `adrs task standings` writes it"
        ) from None


def write(task: Task, standings: Standings) -> list[Path]:
    """Put standings.json in place and the table between the README's markers, where it has them; what was written."""
    written = [task.folder / FILE]
    data = asdict(standings)
    write_atomically(written[0], json.dumps(data, indent=1, sort_keys=True, allow_nan=False) + "\n")
    readme = task.folder / "README.md"
    if readme.is_file():
        text = readme.read_text(encoding="utf-8")
        head, begin, rest = text.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if begin and end:
            table = "\n".join(markdown(task, standings))
            write_atomically(readme, f"{head}{BEGIN}\n{table}\n{END}{tail}")
            written.append(readme)
    return written


def markdown(task: Task, standings: Standings) -> list[str]:
    """The lines of the README's section: how it was made, notes, the table, failures in words."""
    option = f" --last-stage {standings.stage}" if standings.stage else ""
    lines = [f"`adrs task standings {task.name}{option} --write` made this table. Scores: higher is better."]
    lines += [f"The {split} split was {note}." for split, note in standings.notes.items()]
    header, rows = table(task, standings)
    lines += ["", "| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    failures = [f"- {r.program} on {r.split} ({r.scoring}): {r.failure}" for r in standings.rows if r.failure]
    if failures:
        lines += ["", "No score:", "", *failures]
    if task.spec.bound:
        lines += ["", f"The bound: {task.spec.bound.rstrip('.')}."]
    cost = standings.verdict
    lines += [
        "",
        f"A verdict on the seed and the test split takes {cost['cpu_s']:.2f} s of CPU time in all, "
        f"{cost['candidate_cpu_s']:.2f} s of it the program's own.",
    ]
    return lines


def table(task: Task, standings: Standings) -> tuple[list[str], list[list[str]]]:
    """Header and rows: programs by score on test, worst first, then the bound."""
    splits = task.spec.splits
    last: Split = "test" if "test" in splits else splits[-1]
    extra = _shown_metrics(task, standings, last)
    public = any(r.scoring == "paper" for r in standings.rows)
    header = ["program", *splits, *(f"{name} ({last})" for name in extra), *(["public score (test)"] if public else [])]
    names = sorted({r.program for r in standings.rows}, key=lambda name: (_score(standings, name, last), name))
    rows = [[_shown_name(task, name), *_cells(standings, name, splits, last, extra, public)] for name in names]
    bounds = {split: _bound(standings, split) for split in splits}
    if any(bound is not None for bound in bounds.values()):
        cells = ["" if (bound := bounds[split]) is None else f"{bound:.4f}" for split in splits]
        rows.append(["*bound*", *cells, *[""] * (len(header) - 1 - len(splits))])
    return header, rows


def _shown_metrics(task: Task, standings: Standings, split: Split) -> list[str]:
    """The headline and what stands beside every score; the leaderboard's formula only where all its data is here."""
    rows = [r.metrics for r in standings.rows if (r.split, r.scoring) == (split, "sound") and r.score is not None]
    wanted = [*([task.spec.headline] if task.spec.headline else []), "cpu_s_per_case", "worst_decile"]
    if any(metrics.get("leaderboard_coverage") == 100.0 for metrics in rows):
        wanted.append("leaderboard_formula")
    return [name for name in dict.fromkeys(wanted) if any(name in metrics for metrics in rows)]


def _cells(
    standings: Standings, name: str, splits: Sequence[Split], last: Split, extra: Sequence[str], public: bool
) -> Iterator[str]:
    for split in splits:
        yield _number(standings.find(name, split), None)
    for metric in extra:
        yield _number(standings.find(name, last), metric)
    if public:
        yield _number(standings.find(name, "test", "paper"), None)


def _number(row: Standing | None, metric: str | None) -> str:
    if row is None or row.score is None:
        return "" if row is None else f"({cast(str, row.failure).partition(' ')[0].rstrip(':')})"
    value = row.score if metric is None else row.metrics.get(metric)
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 100 else f"{value:.2f}"


def _shown_name(task: Task, name: str) -> str:
    roles = {task.spec.trivial: "trivial", task.spec.best_human: "best human"}
    if name in LEVELS:
        return f"seed: {name}" + (" (default)" if name == "medium" else "")
    return f"{name} ({roles[name]})" if name in roles else name


def _score(standings: Standings, name: str, split: Split) -> float:
    row = standings.find(name, split)
    return float("-inf") if row is None or row.score is None else row.score


def _bound(standings: Standings, split: Split) -> float | None:
    rows = (r.metrics for r in standings.rows if r.split == split and r.scoring == "sound")
    return next((metrics["score_bound"] for metrics in rows if "score_bound" in metrics), None)


def summary(task: Task) -> dict[str, Any]:
    """What `adrs tasks` tells of a task: plain values, None where nothing was recorded."""
    standings = recorded(task.folder)
    split: Split = "test" if "test" in task.spec.splits else task.spec.splits[-1]

    def score(name: str | None) -> float | None:
        row = standings.find(name, split) if standings and name else None
        return row.score if row else None

    return {
        "task": task.name,
        "summary": task.spec.summary,
        "metric": task.spec.headline,
        "split": split,
        "seed": score("seed"),
        "best_human": score(task.spec.best_human),
        "best_human_name": task.spec.best_human,
        "bound": _bound(standings, split) if standings else None,
        "stage": standings.stage if standings else None,
        "verdict_cpu_s": standings.verdict["cpu_s"] if standings else None,
    }
