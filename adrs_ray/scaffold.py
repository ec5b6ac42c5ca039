"""Making a task folder and saying what one still lacks."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Literal

import jinja2

from adrs_ray import bundle, isomorphic
from adrs_ray.candidate import Failure, Verdict
from adrs_ray.errors import UsageError
from adrs_ray.judge_checks import NATIVE_FILES, Finding, check_judge
from adrs_ray.openevolve import EVALUATOR, defined_functions, defined_in, initial_program, is_openevolve_folder
from adrs_ray.program import evolve_blocks
from adrs_ray.task import LEVELS, Task, builtin_tasks, load_task, read_program, read_seed
from adrs_ray.task_spec import TaskSpec, data_file, read_spec

_TEMPLATE = Path(__file__).parent / "templates" / "task"
_JOINED = "each behind a line # ADRS-FILE: NAME"


def new_folder(name: str, parent: Path) -> Path:
    """Write `parent/name`, a complete task about bin packing that passes `check_folder` and can be searched at once.

    All of it appears at once or nothing does. Raises UsageError, one line, for a name that cannot be used, a folder
    that exists, or a parent that is not there or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise UsageError(f"task name {name!r}: expected a lower-case letter, then letters a-z, digits and underscores")
    if name in builtin_tasks():
        raise UsageError(f"task name {name!r} is that of a built-in task: choose another")
    folder = Path(parent) / name
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{folder} exists: choose another name or folder")
    if not folder.parent.is_dir():
        raise UsageError(f"{folder.parent} is no folder: make it first, or choose another place for {name}")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATE),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    try:
        unfinished = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
        try:
            for template in environment.list_templates(extensions=["j2"]):
                target = unfinished / template.removesuffix(".j2")
                target.parent.mkdir(exist_ok=True)
                target.write_text(environment.get_template(template).render(name=name), encoding="utf-8")
            unfinished.chmod(0o755)
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror or error}") from None
    return folder


def check_folder(folder: Path, *, run_seed: bool = True) -> list[Finding]:
    """Everything that a task folder has, lacks or has wrong; never raises for what stands in the folder.

    Native folders (`task.yaml`) and OpenEvolve-style ones. The judge is imported and makes its cases, here and in a
    second process, as evaluators on other machines do. With `run_seed`, and where this machine can jail, the seed is
    evaluated on `train`.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return [Finding("missing", f"{folder} is no folder", "adrs task new NAME makes one that works")]
    folder = folder.resolve()
    foreign = not (folder / "task.yaml").exists() and (
        is_openevolve_folder(folder) or (folder / EVALUATOR).exists() or initial_program(folder) is not None
    )
    findings = list(_check_openevolve(folder) if foreign else _check_native(folder))
    if run_seed and all(finding.usable for finding in findings):
        findings += _check_seed_runs(load_task(folder))
    return findings


def _check_openevolve(folder: Path) -> Iterator[Finding]:
    seed = initial_program(folder)
    if seed is None:
        yield Finding("missing", "initial_program.py is missing", "it holds the program that the search starts from")
    if not (folder / EVALUATOR).is_file():
        yield Finding("missing", f"{EVALUATOR} is missing", "it holds evaluate(program_path), which returns metrics")
    if seed is None or not (folder / EVALUATOR).is_file():
        return
    try:
        task = load_task(folder)
    except UsageError as error:
        yield Finding("wrong", str(error), "mend the file named")
        return
    stages = "stages" if task.foreign["cascade"] else "evaluate"
    yield Finding("ok", f"{EVALUATOR}: {stages}, {task.spec.limits.case_timeout_s:g} s for one evaluation")
    yield from _check_markers({seed.name: seed}, "warn")
    yield Finding(
        "warn",
        "the evaluator runs beside the program: verdicts have trust candidate-side and there are no held-out inputs",
        "a native folder (adrs task new) judges outside and holds validation and test inputs back",
    )


def _check_native(folder: Path) -> Iterator[Finding]:
    spec, read = None, []
    if (folder / "task.yaml").is_file():
        try:
            spec = read_spec(folder / "task.yaml")
            read = [Finding("ok", f"task.yaml: {spec.name}, {spec.summary}")]
        except UsageError as error:
            read = [Finding("wrong", str(error), "mend task.yaml")]
    seed = {name: folder / name for name in (spec.seed_files if spec else ("seed.py",))}
    needed = {file: held for name, held in NATIVE_FILES.items() for file in (seed if name == "seed.py" else (name,))}
    present = {name for name in needed if (folder / name).is_file()}
    for name, purpose in needed.items():
        if name not in present:
            yield Finding("missing", f"{name} is missing", f"it holds {purpose}")
    yield from read
    if spec is not None:
        yield from _check_spec(spec)
    yield from _check_levels(folder, spec)
    if present.issuperset(seed):
        yield from _check_markers(seed, "missing")
        for number, path in enumerate(seed.values()):
            yield from _check_entry(path, None if number else spec)  # the first one is the program
    for baseline in sorted((folder / "baselines").glob("*.py")):
        yield from _check_entry(baseline, spec)
    if "adapter.py" in present:
        yield from _check_adapter(folder / "adapter.py", spec)
    if spec is not None and present == needed.keys():
        yield from check_judge(folder)
        if (folder / isomorphic.FILE).exists():
            yield from _check_isomorphic(folder)


def _check_spec(spec: TaskSpec) -> Iterator[Finding]:
    if "train" not in spec.splits:
        yield Finding("wrong", "task.yaml: splits lacks train", "the search is scored on train")
    for split in ("validation", "test"):
        if split not in spec.splits:
            yield Finding(
                "warn", f"task.yaml: splits lacks {split}", "without it a champion that fits train only is not seen"
            )
    if not spec.metrics:
        yield Finding("warn", "task.yaml names no metrics", "give each metric of score() a unit and a direction")
    if spec.case_metric is not None and spec.case_metric not in spec.metrics:
        what = f"task.yaml: case_metric {spec.case_metric} is not declared"
        yield Finding("warn", what, "put it among metrics: selection and prompts need its direction")
    for file in spec.data:
        try:
            if data_file(file) is None:
                yield Finding("warn", f"recorded data {file.file} is not here", "adrs data pull fetches it")
        except UsageError as error:
            yield Finding("wrong", str(error), "fetch the file again: adrs data pull")


def _check_isomorphic(folder: Path) -> Iterator[Finding]:
    """Whether the task in another story is the same task, and keeps the native one to itself."""
    try:
        given_away = isomorphic.given_away(isomorphic.disguised(load_task(folder)))
    except UsageError as error:
        yield Finding("wrong", str(error), f"mend {isomorphic.FILE}: docs/tasks.md says what stands in it")
        return
    if given_away:
        what = f"{isomorphic.FILE} gives {', '.join(given_away)} away"
        yield Finding("warn", what, "say it otherwise in summary, statement, metrics and the comments of seed")
    else:
        yield Finding("ok", f"{isomorphic.FILE}: the seed is the same program, and no native name is told")


def _check_levels(folder: Path, spec: TaskSpec | None) -> Iterator[Finding]:
    """Seeds and hints by level, and the baselines that task.yaml names."""
    for level in LEVELS:
        path = folder / "seeds" / f"{level}.py"
        if (folder / "seeds").is_dir() and not path.is_file():
            yield Finding("warn", f"seeds/{level}.py is missing", f"adrs run --start {level} has nothing to start from")
        elif path.is_file():
            yield from _check_entry(path, spec)
            if spec is not None and spec.files:
                yield from _check_joined(path, spec)
    medium, seed, several = folder / "seeds" / "medium.py", folder / "seed.py", bool(spec and spec.files)
    if not several and medium.is_file() and seed.is_file() and medium.read_bytes() != seed.read_bytes():
        yield Finding("wrong", "seed.py is not seeds/medium.py", "make seed.py a link to seeds/medium.py")
    for level in LEVELS:
        if (folder / "hints").is_dir() and not (folder / "hints" / f"{level}.md").is_file():
            yield Finding("warn", f"hints/{level}.md is missing", "what a person could tell a model at that level")
    for role, name in (("trivial", spec and spec.trivial), ("best_human", spec and spec.best_human)):
        if name and not (folder / "baselines" / f"{name}.py").is_file():
            yield Finding("wrong", f"task.yaml: {role} names no baseline: {name}", f"write baselines/{name}.py")


def _check_joined(path: Path, spec: TaskSpec) -> Iterator[Finding]:
    """Whether a seed has the files that task.yaml names, and the medium one those of seed/."""
    with suppress(UsageError, ValueError):  # told by _check_entry and _check_markers
        source = read_program(path)
        if (found := tuple(bundle.split(source))) != spec.files:
            what = f"seeds/{path.name} holds {', '.join(found)}, not {', '.join(spec.files)}"
            yield Finding("wrong", what, f"write the files that task.yaml names, {_JOINED}")
        elif path.stem == "medium" and source != read_seed(path.parent.parent, spec.files):
            yield Finding("wrong", "seed/ is not seeds/medium.py", f"write the files of seed/ there, {_JOINED}")


def _check_markers(seed: Mapping[str, Path], without: Literal["warn", "missing"]) -> Iterator[Finding]:
    """Of the files of a seed, by name: where there are several, some may stay as they are."""
    told = False
    for name, path in seed.items():
        try:
            source = path.read_text(encoding="utf-8")
            blocks = evolve_blocks(source)
        except (ValueError, OSError) as error:
            yield Finding("wrong", f"{name}: {error}", "each EVOLVE-BLOCK-START needs its own EVOLVE-BLOCK-END")
            told = True
            continue
        if "EVOLVE-BLOCK-START" in source:
            yield Finding("ok", f"{name}: {len(blocks)} evolve block{'s' if len(blocks) > 1 else ''}")
            told = True
    if not told:
        yield Finding(
            without,
            f"{' and '.join(seed)} {'have' if len(seed) > 1 else 'has'} no evolve markers: all of it would be changed",
            "put what may change between lines # EVOLVE-BLOCK-START and # EVOLVE-BLOCK-END",
        )


def _check_entry(path: Path, spec: TaskSpec | None) -> Iterator[Finding]:
    """Whether all files of a program are Python, and the first one defines the entry."""
    name = path.name if path.name == "seed.py" else f"{path.parent.name}/{path.name}"
    try:
        files = bundle.split(read_program(path)).items()
        defined, *_ = [
            defined_in(text, str(path) if file == bundle.MAIN else f"{path}: {file}") for file, text in files
        ]
    except UsageError as error:
        yield Finding("wrong", str(error), "mend the syntax")
        return
    except ValueError as error:
        yield Finding("wrong", f"{name}: {error}", f"name the files as task.yaml does, {_JOINED}")
        return
    if spec is not None and spec.entry and defined is not None and not defined.intersection(spec.entry):
        wanted = " or ".join(spec.entry)
        yield Finding("wrong", f"{name} does not define {wanted}", "task.yaml: entry names what a program defines")
    elif spec is not None and spec.entry:
        yield Finding("ok", f"{name} defines its entry")


def _check_adapter(path: Path, spec: TaskSpec | None) -> Iterator[Finding]:
    try:
        defined = defined_functions(path)
    except UsageError as error:
        yield Finding("wrong", str(error), "mend the syntax")
        return
    if defined is None or defined.intersection(("run", "act")):
        yield Finding("ok", "adapter.py defines run or act")
    else:
        yield Finding("missing", "adapter.py defines neither run nor act", f"write {NATIVE_FILES['adapter.py']}")
    if spec is not None and not spec.entry and defined is not None and "load" not in defined:
        yield Finding(
            "missing",
            "task.yaml names no entry and adapter.py has no load(source)",
            "entry: [NAME], the function or class that a program defines",
        )


def _check_seed_runs(task: Task) -> Iterator[Finding]:
    # these start a fork server's worth of modules: only when needed
    from adrs_ray.placement import place
    from adrs_ray.stages_here import served_here

    task, left_out = served_here(task)
    if left_out:
        yield Finding("warn", left_out, "check it on a machine that has the GPU, too")
    try:
        verdicts = place(task)
    except UsageError as error:
        yield Finding("warn", f"the seed was not evaluated: {error}", "adrs doctor says what this machine lacks")
        return
    verdict = verdicts["seed"]
    if isinstance(verdict, Failure):
        case = f" (case {verdict.case})" if verdict.case else ""
        yield Finding(
            "wrong", f"the seed fails on train: {verdict.kind}{case}: {verdict.detail}", "a seed must be valid"
        )
        return
    yield Finding("ok", f"the seed scores {verdict.score:.6g} on train in {verdict.wall_s:.2g} s")
    undeclared = sorted(set(verdict.metrics) - set(task.spec.metrics)) if task.kind == "native" else []
    if undeclared:
        names = ", ".join(undeclared)
        yield Finding("warn", f"task.yaml does not declare {names}", "give each metric a unit and a direction")
    case_metric = task.spec.case_metric
    if case_metric is not None and not all(case_metric in case.metrics for case in verdict.cases):
        what = f"task.yaml: case_metric {case_metric} is not measured in every case"
        yield Finding("warn", what, "judge.py: score() gives it, or name another")
    yield from _check_places(task, verdicts)


def _check_places(task: Task, verdicts: Mapping[str, Verdict]) -> Iterator[Finding]:
    """Each seed between the trivial baseline and the best human one, and in the order of their levels."""
    scores: dict[str, float] = {}
    for name, verdict in verdicts.items():
        if isinstance(verdict, Failure):
            yield Finding("wrong", f"{name} fails on train: {verdict.kind}: {verdict.detail}", "it must be valid")
        else:
            scores[name] = verdict.score
    trivial, best = task.spec.trivial or "", task.spec.best_human or ""
    levels = [level for level in LEVELS if level in scores]
    if trivial not in scores or best not in scores or not levels:
        return
    low, high = scores[trivial], scores[best]
    if not low < high:
        yield Finding("wrong", f"{best} ({high:.6g}) is not above {trivial} ({low:.6g}) on train", "name others")
        return
    for level in levels:
        share = 100 * (scores[level] - low) / (high - low)
        what = f"seed {level} scores {scores[level]:.6g} on train, {share:.0f} % of the way from {trivial} to {best}"
        inside = low < scores[level] <= high
        hint = "" if inside else "a start should be good, but not too good: between the two"
        yield Finding("ok" if inside else "warn", what, hint)
    for weaker, stronger in pairwise(levels):
        if scores[weaker] > scores[stronger]:
            yield Finding("warn", f"seed {weaker} is better than {stronger} on train", "exchange them")
