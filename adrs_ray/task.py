"""What a task is: a folder with `task.yaml`, `seed.py`, a trusted `judge.py` and an untrusted `adapter.py`.

The trusted side (`judge.py`) makes cases, scores raw outputs and combines them; it runs in the evaluator's process
and alone sees `Case.hidden`. The untrusted side (`adapter.py`, `shims/`) runs in the jail beside the candidate.
This is the only module of ours that a task may import.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast

from adrs_ray import bundle, program
from adrs_ray.candidate import CaseResult
from adrs_ray.errors import UsageError
from adrs_ray.figures import quality, shown
from adrs_ray.private_import import import_private
from adrs_ray.task_spec import (
    SPLITS,
    DataFile,
    Limits,
    Metric,
    PublicEvaluator,
    Split,
    Stage,
    TaskSpec,
    data_dirs,
    data_file,
    describe_validation_error,
    read_spec,
    register_for_messages,
)

if TYPE_CHECKING:
    from adrs_ray.isomorphic import Disguise

__all__ = [
    "SPLITS",
    "Case",
    "CaseResult",
    "Combined",
    "DataFile",
    "InvalidOutput",
    "Judge",
    "Limits",
    "MalformedOutput",
    "Metric",
    "PublicEvaluator",
    "RewardHacking",
    "Scoring",
    "Split",
    "Stage",
    "Task",
    "TaskSpec",
    "UsageError",
    "builtin_tasks",
    "data_dirs",
    "data_file",
    "describe_validation_error",
    "import_private",
    "load_task",
    "quality",
    "read_spec",
    "register_for_messages",
    "shown",
]

Scoring: TypeAlias = Literal["sound", "paper"]
"""`sound`: by judge.py, what searches use. `paper`: by paper.py, the public evaluator's figures, faults included."""

LEVELS = ("weak", "medium", "strong")
"""Of seed programs and hints: a start that is too good leads nowhere else, one that is too weak costs candidates."""


class InvalidOutput(Exception):
    """Raised by a judge: the answer breaks a constraint of the task (failure kind `invalid`)."""


class MalformedOutput(Exception):
    """Raised by a judge: the answer has the wrong shape or is not finite (failure kind `output`)."""


class RewardHacking(Exception):
    """Raised by a judge: the answer cannot have been reached honestly (failure kind `reward_hacking`)."""


@dataclass(frozen=True, slots=True)
class Case:
    """One input: `public` goes to the candidate (JSON values and numpy arrays), `hidden` never leaves the judge."""

    id: str
    seed: int
    """Seeds `random` and numpy's global generator in the candidate's process before it runs."""
    public: Any
    hidden: Any = None


@dataclass(frozen=True, slots=True)
class Combined:
    """The result of a split: `score` is one finite float, higher is better."""

    score: float
    metrics: Mapping[str, float]
    artifacts: Mapping[str, str] = field(default_factory=dict)


class Judge(Protocol):
    """What `judge.py` defines at module level. `referee` only for interactive tasks.

    Of a task with `stages` it defines `for_stage(stage)` instead, which gives an object with these functions.
    """

    def cases(self, split: Split) -> Sequence[Case]:
        """The cases of a split, always the same ones in the same order."""
        ...

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        """Metrics of one raw output, recomputed here from the case.

        Raises InvalidOutput, MalformedOutput or RewardHacking.
        """
        ...

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """The score of a split from its cases, in the order of `cases`."""
        ...


Referee: TypeAlias = Generator[Any, Any, Any]
"""Yields observations, receives the candidate's actions; its return value is the `raw` that `score` gets."""


@dataclass(frozen=True)
class Task:
    """A loaded task. Cheap to make: `judge` is imported when first used."""

    spec: TaskSpec
    folder: Path
    kind: Literal["native", "openevolve"]
    seed_source: str
    adapter_path: Path
    judge_factory: Callable[[], Judge] = field(repr=False)
    """Gives what has the functions of `Judge`, or `for_stage` where the task has stages."""
    foreign: Mapping[str, Any] = field(default_factory=dict)
    """For an OpenEvolve-style folder: what its adapter must know (file names, stages, thresholds)."""
    scoring: Scoring = "sound"
    disguise: Disguise | None = field(default=None, repr=False)
    """Of a task that is told under other names (`adrs_ray.isomorphic.disguised`)."""

    @property
    def name(self) -> str:
        """As load_task knows it; a disguised task is told to models as `spec.name`."""
        return self.native.spec.name

    @property
    def native(self) -> Task:
        """The task that is judged: the one behind a disguise, else this one."""
        return self if self.disguise is None else self.disguise.native

    @property
    def case_metric(self) -> str | None:
        """The metric of each case that tells how good its answer is; None where task.yaml names none."""
        return self.spec.case_metric or self.spec.headline

    def translated(self, source: str) -> str:
        """A program between the names that models are told and those of the judge; its own inverse, linear time.

        The same text for a task without disguise. Never raises, whatever the text.
        """
        return source if self.disguise is None else self.disguise.swap.program(source)

    def disguise_text(self, text: str) -> str:
        """What an evaluator said, in the names and words that models are told; the same text without disguise."""
        return text if self.disguise is None else self.disguise.text(text)

    @property
    def shims(self) -> Path | None:
        """Stand-ins for public modules, importable only in the jail."""
        folder = self.folder / "shims"
        return folder if folder.is_dir() else None

    @cached_property
    def judge(self) -> Judge:
        """The trusted judge, of a task with stages that of the last one, whose score counts.

        Raises UsageError when judge.py does not import or lacks a function.
        """
        return self.judge_of("")

    @cached_property
    def _judges(self) -> Judge:
        return self.judge_factory()

    def judge_of(self, stage: str) -> Judge:
        """The trusted judge of a stage; '' is the last one.

        Raises UsageError, one line, when there is no such stage, or judge.py does not import, lacks a function, or has
        no judge for the stage.
        """
        name = self.stage(stage).name
        if not self.spec.stages:
            return self._judges
        where = f"{self.folder / ('judge' if self.scoring == 'sound' else 'paper')}.py"
        for_stage = getattr(self._judges, "for_stage", None)
        if not callable(for_stage):
            names = ", ".join(each.name for each in self.spec.stages)
            raise UsageError(f"{where} must define for_stage(stage): task.yaml has the stages {names}")
        try:
            judge = for_stage(name)
        except UsageError:
            raise
        except Exception as error:  # the judge is the task's own code
            raise UsageError(f"{where}: for_stage({name!r}) raised {type(error).__name__}: {error}") from error
        missing = _missing(judge)
        if missing:
            raise UsageError(f"{where}: what for_stage({name!r}) gives must have {', '.join(missing)}")
        return cast(Judge, judge)

    def stage(self, name: str) -> Stage:
        """The stage of this name; '' is the last one. Raises UsageError when the task has none of that name."""
        stages = self.spec.all_stages
        if not name:
            return stages[-1]
        for stage in stages:
            if stage.name == name:
                return stage
        raise UsageError(f"task {self.name} has no stage {name!r}: it has {', '.join(each.name for each in stages)}")

    def in_stage(self, name: str) -> Task:
        """The task as one that has this stage alone, with its judge and its needs; '' is the last one.

        The same task where it has no stages. Raises UsageError when it has none of that name.
        """
        stage = self.stage(name)
        if not self.spec.stages:
            return self
        needs = {"cpus": stage.cpus, "memory_mb": stage.memory_mb, "gpus": stage.gpus, "stages": ()}
        spec = self.spec.model_copy(update=needs)
        return replace(self, spec=spec, judge_factory=lambda: self.judge_of(stage.name))

    def up_to(self, name: str) -> Task:
        """The task with this stage as its last one, whose score then counts.

        Raises UsageError when it has no stages, or none of that name.
        """
        if not self.spec.stages:
            raise UsageError(f"task {self.name} has no stages: leave out last_stage {name}")
        end = self.spec.stages.index(self.stage(name)) + 1
        return replace(self, spec=self.spec.model_copy(update={"stages": self.spec.stages[:end]}))

    @cached_property
    def referee(self) -> Callable[[Case], Referee] | None:
        """The referee of an interactive task, else None."""
        return cast("Callable[[Case], Referee] | None", getattr(self.judge, "referee", None))

    def split_note(self, split: Split) -> str | None:
        """What a reader must know about a split, such as 'generated: the recorded workloads are not here'.

        Raises UsageError when judge.py cannot say it.
        """
        note: Callable[[Split], str | None] | None = getattr(self.judge, "split_note", None)
        note = note or getattr(self._judges, "split_note", None)
        if note is None:
            return None
        try:
            return note(split)
        except UsageError:
            raise
        except Exception as error:  # the judge is the task's own code
            where = self.folder / "judge.py"
            raise UsageError(f"{where}: split_note({split!r}) raised {type(error).__name__}: {error}") from error

    def baselines(self) -> dict[str, Path]:
        """Baseline programs by name: `baselines/*.py`, sorted."""
        return {p.stem: p for p in sorted((self.folder / "baselines").glob("*.py")) if p.stem != "__init__"}

    def seeds(self) -> dict[str, Path]:
        """Seed programs by level: `seeds/weak.py`, `medium.py`, `strong.py`, those that there are."""
        return {level: path for level in LEVELS if (path := self.folder / "seeds" / f"{level}.py").is_file()}

    def starting_from(self, level: str) -> Task:
        """This task with the seed program of another level. Raises UsageError when it has none."""
        seeds = self.seeds()
        if self.disguise is not None and level != "medium":
            raise UsageError(f"task {self.name}: an isomorphic run starts from medium, not from {level}")
        if self.disguise is None and level in seeds:
            return replace(self, seed_source=read_program(seeds[level]))
        if level == "medium":
            return self
        known = ", ".join(["medium", *(name for name in seeds if name != "medium")])
        raise UsageError(f"task {self.name} has no seed program {level!r}: it has {known}")

    def hints(self) -> dict[str, Path]:
        """Hints for models by level: `hints/weak.md`, `medium.md`, `strong.md`, those that there are.

        None for a disguised task: they speak of the native one.
        """
        if self.disguise is not None:
            return {}
        return {level: path for level in LEVELS if (path := self.folder / "hints" / f"{level}.md").is_file()}

    def programs(self) -> dict[str, Path]:
        """What has a name here: the seeds by level, then the baselines. `seed` is the medium one."""
        return {**self.seeds(), **self.baselines()}


def repository_root() -> Path:
    """The folder that holds `adrs_ray`, `cluster` and `tasks` side by side."""
    return Path(__file__).resolve().parent.parent


def builtin_tasks() -> dict[str, Path]:
    """Built-in task folders by name."""
    root = repository_root() / "tasks"
    return {p.parent.name: p.parent for p in sorted(root.glob("*/task.yaml"))}


def load_task(name_or_folder: str | os.PathLike[str], scoring: Scoring = "sound") -> Task:
    """Load a built-in task by name, or a folder: native (`task.yaml`) or OpenEvolve-style (`evaluator.py`).

    With `scoring` paper the task's paper.py judges in place of judge.py. Raises UsageError with one line when nothing
    of that name exists, the folder cannot be used, or it has no paper.py.
    """
    text = os.fspath(name_or_folder)
    builtin = builtin_tasks()
    if text in builtin:
        return _load_native(builtin[text], scoring)
    folder = Path(text).expanduser()
    if not os.path.isdir(folder):
        raise UsageError(f"no task {text!r}: neither a folder nor a built-in task ({', '.join(builtin) or 'none'})")
    folder = folder.resolve()
    if (folder / "task.yaml").is_file():
        return _load_native(folder, scoring)
    from adrs_ray.openevolve import is_openevolve_folder, load_openevolve

    if is_openevolve_folder(folder):
        if scoring == "paper":
            raise UsageError(f"{folder} is scored by its own evaluator.py: `paper` is for tasks with a paper.py")
        return load_openevolve(folder)
    raise UsageError(
        f"{folder} is no task folder: it needs task.yaml (see `adrs task new NAME`), "
        "or evaluator.py with initial_program.py (OpenEvolve style)"
    )


def _load_native(folder: Path, scoring: Scoring) -> Task:
    spec = read_spec(folder / "task.yaml")
    judge = "judge" if scoring == "sound" else "paper"
    if not (folder / f"{judge}.py").is_file() and scoring == "paper":
        raise UsageError(f"task {spec.name} has no paper.py: it is scored `sound` only")
    for needed in (*spec.seed_files, "judge.py", "adapter.py"):
        if not (folder / needed).is_file():
            raise UsageError(f"{folder} lacks {needed}: run `adrs task check {folder}` for all that is missing")
    return Task(
        spec=spec,
        folder=folder,
        kind="native",
        seed_source=read_seed(folder, spec.files),
        adapter_path=folder / "adapter.py",
        judge_factory=lambda: _load_judge(folder, judge, bool(spec.stages)),
        scoring=scoring,
    )


def read_seed(folder: Path, names: Sequence[str]) -> str:
    """The seed of a native folder: seed.py, or the files of these names in seed/ as one text.

    Raises UsageError, one line, when a file cannot be read, or several cannot be one program.
    """
    if not names:
        return read_program(folder / "seed.py")
    files = {name: read_program(folder / "seed" / name) for name in names}
    for name, text in files.items():
        try:
            program.evolve_blocks(text)
        except ValueError as error:
            raise UsageError(f"{folder / 'seed' / name}: {error}") from None
    try:
        return bundle.join(files)
    except ValueError as error:
        raise UsageError(f"{folder / 'seed'}: {error}") from None


def read_program(path: Path) -> str:
    """The text of a program file. Raises UsageError, one line, when it cannot be read as UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read program {path}: {error}") from None


def _load_judge(folder: Path, name: str, staged: bool) -> Judge:
    path = folder / f"{name}.py"
    try:
        module = import_private(folder, name)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"{path} does not import: {type(error).__name__}: {error}") from error
    missing = [] if staged else _missing(module)
    if missing:
        raise UsageError(f"{path} must define {', '.join(missing)} (see `adrs task new`)")
    return cast(Judge, module)


def _missing(judge: object) -> list[str]:
    return [name for name in ("cases", "score", "combine") if not callable(getattr(judge, name, None))]


def finite(value: Any, what: str) -> float:
    """`value` if it is a finite number, else MalformedOutput."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise MalformedOutput(f"{what} is {shown(value)}, expected a finite number")
    return float(value)
