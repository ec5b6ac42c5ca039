"""What `adrs task check` says of a judge: its functions, its cases in every stage, and that it fits its adapter."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from adrs_ray.case_checks import overlaps, problem_of_cases, remade_differently
from adrs_ray.errors import UsageError
from adrs_ray.openevolve import defined_functions
from adrs_ray.task import Case, Split, Task, load_task

NATIVE_FILES = {
    "task.yaml": "name, summary, entry, metrics and limits of the task",
    "seed.py": "the program that the search starts from, with EVOLVE-BLOCK markers",
    "judge.py": "cases(split), score(case, raw) and combine(results), or for_stage(stage) where task.yaml has stages",
    "adapter.py": "run(program, public), or act(program, observation) for an interactive task",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a folder. `missing` and `wrong` must be mended, `warn` is worth knowing, `ok` holds."""

    level: Literal["ok", "warn", "missing", "wrong"]
    what: str
    hint: str = ""
    """What to write or do instead; empty for `ok`."""

    @property
    def usable(self) -> bool:
        """Whether a search can start in spite of it."""
        return self.level in ("ok", "warn")


def check_judge(folder: Path) -> Iterator[Finding]:
    """Of a native folder that has all its files. Imports the judge, which makes its cases here and in a second process,
    as evaluators on other machines do; never raises for what stands in the folder."""
    try:
        task = load_task(folder)
        stages = {stage.name: task.in_stage(stage.name) for stage in task.spec.all_stages}
        referees = {name: alone.referee is not None for name, alone in stages.items()}
    except (UsageError, UnicodeDecodeError) as error:
        yield Finding("wrong", str(error), "mend the file named: adrs task new shows what works")
        return
    if task.spec.stages:
        yield Finding("ok", f"judge.py has cases, score and combine for the stages {', '.join(stages)}")
    else:
        yield Finding("ok", "judge.py defines cases, score and combine")
    for name, alone in stages.items():
        yield from _check_call(folder / "adapter.py", referees[name])
        yield from _check_cases(task, alone, name if task.spec.stages else "")


def _check_cases(task: Task, alone: Task, stage: str) -> Iterator[Finding]:
    """Of one stage of a task, which `alone` has only; `stage` is '' where the task has no stages."""
    where = f"stage {stage}: " if stage else ""
    made: dict[Split, list[Case]] = {}
    for split in task.spec.splits:
        try:
            cases = list(alone.judge.cases(split))
        except Exception as error:  # the task author's code
            yield Finding("wrong", f"judge.py: {where}cases({split!r}) raises {_describe(error)}", "mend judge.py")
            continue
        problem = problem_of_cases(cases)
        if problem:
            hint = "see adrs_ray.task.Case for what a case is"
            yield Finding("wrong", f"judge.py: {where}cases({split!r}) {problem}", hint)
            continue
        made[split] = cases
        yield Finding("ok", f"{where}{split}: {len(cases)} case{'s' if len(cases) > 1 else ''}")
    shared = overlaps(made)
    for overlap in shared:
        one, other = overlap.splits
        count = f"{overlap.count} input{'s' if overlap.count > 1 else ''}"
        what = f"{where}{one} and {other} share {count} ({overlap.example})"
        yield Finding("warn", what, "an input that the search saw says nothing about new ones: make them differ")
    if not shared:
        yield Finding("ok", f"{where}no input stands in two of train, validation and test")
    if len(made) == len(task.spec.splits):
        change = remade_differently(task, made, stage)
        if change:
            hint = "draw all from a generator with a fixed seed, in a fixed order"
            yield Finding("wrong", f"judge.py: {where}{change}", hint)
        else:
            yield Finding("ok", f"{where}the cases are the same when they are made again, here and in another process")


def _check_call(adapter: Path, referee: bool) -> Iterator[Finding]:
    """Whether the adapter has the one of run and act that the judge needs; one that has neither is told elsewhere."""
    try:
        defined = defined_functions(adapter)
    except UsageError:
        return  # told by the check of the adapter itself
    needed = "act" if referee else "run"
    if defined is not None and needed not in defined and defined.intersection(("run", "act")):
        reason = "judge.py has a referee" if referee else "judge.py has no referee"
        yield Finding("wrong", f"adapter.py lacks {needed}: {reason}", "referee goes with act, cases alone with run")


def _describe(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
