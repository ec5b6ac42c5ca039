"""OpenEvolve-style folders as tasks: `initial_program.py`, `evaluator.py` and, if there, `config.yaml`, unchanged.

The evaluator of such a folder imports the program it judges, so it runs in the jail with it and its word is all there
is: verdicts have the trust `candidate-side`. What is checked outside is that the figures are finite numbers and that
the score follows from them. There is one split, `train`, with one case: the whole evaluation.
"""

from __future__ import annotations

import ast
import math
import re
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adrs_ray.errors import UsageError
from adrs_ray.task import (
    Case,
    CaseResult,
    Combined,
    Limits,
    MalformedOutput,
    Metric,
    Split,
    Task,
    TaskSpec,
    describe_validation_error,
    finite,
    shown,
)

INITIAL_PROGRAMS = ("initial_program.py", "initial.py")
EVALUATOR = "evaluator.py"
STAGES_PASSED = "stages_passed"
"""Our metric of a cascade: stages whose threshold was reached. An evaluator's own metric of that name gives way."""
MAX_METRICS = 256
MAX_ARTIFACTS = 64
MAX_ARTIFACT_CHARS = 20_000

_ADAPTER = Path(__file__).parent / "evaluator" / "openevolve_adapter.py"
_SHIMS = Path(__file__).parent / "evaluator" / "openevolve_shims"
_NO_NUMBERS = frozenset({"error", STAGES_PASSED})
"""Metrics that say how an evaluation went, not how good the program is: no part of the mean."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _null_is_the_default(cls, value: Any) -> Any:
        return {k: v for k, v in value.items() if v is not None} if isinstance(value, dict) else value


class _EvaluatorSection(_Section):
    timeout: float = Field(default=300.0, gt=0, le=86_400)
    cascade_evaluation: bool = True
    cascade_thresholds: list[float] = [0.5, 0.75, 0.9]


class _PromptSection(_Section):
    system_message: str = ""


class _OpenEvolveConfig(_Section):
    """The keys of OpenEvolve's config.yaml that concern judging; all others steer its own search and are ignored."""

    evaluator: _EvaluatorSection = _EvaluatorSection()
    prompt: _PromptSection = _PromptSection()


class OpenEvolveJudge:
    """The trusted judge of every such folder (`adrs_ray.task.Judge`): checks what the jailed evaluator said.

    A verdict's artifacts go from `score` to the `combine` that follows it in the same thread.
    """

    def __init__(self) -> None:
        self._scored = threading.local()

    def cases(self, split: Split) -> Sequence[Case]:
        """The one case of `train`. Raises UsageError for another split: the evaluator knows no other inputs."""
        if split != "train":
            raise UsageError(f"an OpenEvolve-style folder has only the split train, not {split}")
        return (Case(id="evaluate", seed=0, public=None),)

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        """The metrics as floats, booleans as 0 or 1. MalformedOutput when there is none or one is not finite."""
        if not isinstance(raw, dict):
            raise MalformedOutput(f"the evaluation gave {type(raw).__name__}, expected metrics and artifacts")
        if "malformed" in raw:
            said = raw["malformed"]
            raise MalformedOutput(_one_line(said[:1000]) if isinstance(said, str) else shown(said))
        artifacts = _artifacts(raw.get("artifacts"))
        metrics = _metrics(raw.get("metrics"))
        if "error" in metrics:
            artifacts.setdefault("error", str(metrics["error"]))
        if not metrics.keys() - _NO_NUMBERS:
            said = f": {_one_line(artifacts['error'])}" if "error" in artifacts else ""
            raise MalformedOutput(f"the evaluator returned no numeric metric{said}")
        stage = raw.get("stage")
        if stage is not None:
            if type(stage) is not int or not 0 <= stage <= 3:
                raise MalformedOutput(f"the evaluation gave stage {shown(stage)}, expected 0 to 3")
            metrics[STAGES_PASSED] = float(stage)
        self._scored.artifacts = artifacts
        return metrics

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """`combined_score` where the evaluator gives one, else the mean of its metrics, as OpenEvolve does."""
        metrics = dict(results[0].metrics)
        score = metrics.get("combined_score")
        if score is None:
            values = [value for name, value in metrics.items() if name not in _NO_NUMBERS]
            try:
                score = math.fsum(values) / len(values)
            except OverflowError:
                raise MalformedOutput("the sum of the metrics is too large for a float") from None
        return Combined(finite(score, "the score"), metrics, self._scored.__dict__.pop("artifacts", {}))

    def split_note(self, split: Split) -> str | None:
        """What every report on such a folder has to say."""
        return "judged by the folder's own evaluator beside the program; there are no held-out inputs"


def is_openevolve_folder(folder: Path) -> bool:
    """Whether the folder has an `evaluator.py` and an initial program, and no `task.yaml`."""
    return (
        not (folder / "task.yaml").exists() and (folder / EVALUATOR).is_file() and initial_program(folder) is not None
    )


def initial_program(folder: Path) -> Path | None:
    """The program that the search starts from: `initial_program.py`, else `initial.py`, else None."""
    return next((folder / name for name in INITIAL_PROGRAMS if (folder / name).is_file()), None)


def load_openevolve(folder: Path) -> Task:
    """The folder as a task of kind `openevolve`. None of its code is imported here.

    `config.yaml`: `evaluator.timeout` (seconds for the whole evaluation, default 300), `evaluator.cascade_evaluation`
    (default true), `evaluator.cascade_thresholds` (default 0.5, 0.75, 0.9) and `prompt.system_message` (the task's
    statement) are heeded; every other key is ignored.

    Raises UsageError, one line, when a file is missing, is no Python or YAML, or a heeded key has a wrong value.
    """
    folder = Path(folder).resolve()
    program = initial_program(folder)
    if program is None:
        raise UsageError(f"{folder} lacks initial_program.py (or initial.py), the program that the search starts from")
    if not (folder / EVALUATOR).is_file():
        raise UsageError(f"{folder} lacks {EVALUATOR} with a function evaluate(program_path)")
    config = _read_config(folder / "config.yaml")
    seed = _read(program)
    _parse(seed, str(program))
    defined = defined_functions(folder / EVALUATOR)
    if defined is not None and "evaluate" not in defined:
        raise UsageError(f"{folder / EVALUATOR} must define evaluate(program_path), which returns a dict of metrics")
    cascade = config.evaluator.cascade_evaluation and (defined is None or "evaluate_stage1" in defined)
    return Task(
        spec=_spec(folder, config, cascade),
        folder=folder,
        kind="openevolve",
        seed_source=seed,
        adapter_path=_ADAPTER,
        judge_factory=OpenEvolveJudge,
        foreign=foreign_settings(cascade, config.evaluator.cascade_thresholds),
    )


def foreign_settings(cascade: bool, thresholds: Sequence[float]) -> dict[str, Any]:
    """What the jailed adapter must know, ready for JSON."""
    return {
        "evaluator": EVALUATOR,
        "cascade": cascade,
        "thresholds": [float(threshold) for threshold in thresholds],
        "shims": str(_SHIMS),
    }


def defined_functions(path: Path) -> frozenset[str] | None:
    """Names that a file binds at module level; None when a star import leaves that open. UsageError if no Python."""
    return defined_in(_read(path), str(path))


def defined_in(source: str, where: str) -> frozenset[str] | None:
    """As `defined_functions`, of a text."""
    tree = _parse(source, where)
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom | ast.Import):
            if any(alias.name == "*" for alias in node.names):
                return None
            names.update((alias.asname or alias.name).partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return frozenset(names)


def _spec(folder: Path, config: _OpenEvolveConfig, cascade: bool) -> TaskSpec:
    stages = Metric(unit="stages", direction="max", description="stages of the cascade whose threshold was reached")
    return TaskSpec(
        name=_task_name(folder.name),
        summary=f"OpenEvolve-style folder {folder.name}",
        statement=config.prompt.system_message,
        metrics={STAGES_PASSED: stages} if cascade else {},
        limits=Limits(
            case_timeout_s=config.evaluator.timeout, memory_mb=2048, threads=32, processes=16, scratch_mb=256
        ),
        splits=("train",),
    )


def _task_name(folder_name: str) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", folder_name.lower()).strip("_")
    return name if re.match(r"[a-z]", name) else f"task_{name}".rstrip("_")


def _read_config(path: Path) -> _OpenEvolveConfig:
    if not path.is_file():
        return _OpenEvolveConfig()
    try:
        data = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {_one_line(error)}") from None
    if data is None:
        return _OpenEvolveConfig()
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected a mapping of sections, got {type(data).__name__}")
    try:
        config = _OpenEvolveConfig.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_validation_error(error)}") from None
    if not all(math.isfinite(threshold) for threshold in config.evaluator.cascade_thresholds):
        given = config.evaluator.cascade_thresholds
        raise UsageError(f"{path}: evaluator.cascade_thresholds is {given}: expected finite numbers")
    return config


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path}: {_one_line(error)}") from None


def _parse(source: str, where: str) -> ast.Module:
    try:
        return ast.parse(source, filename=where)
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{where} is no Python: {_one_line(error)}") from None


def _metrics(found: Any) -> dict[str, float]:
    if not isinstance(found, dict) or len(found) > MAX_METRICS:
        raise MalformedOutput(f"the evaluation gave no mapping of at most {MAX_METRICS} metrics")
    metrics: dict[str, float] = {}
    for name, value in found.items():
        if not isinstance(name, str) or len(name) > 200 or not name.isprintable():
            raise MalformedOutput(
                f"a metric is named {shown(name)}, expected a text of at most 200 printable characters"
            )
        if isinstance(value, bool):
            value = int(value)
        try:
            metrics[name] = finite(value, f"metric {name!r}")
        except OverflowError:
            raise MalformedOutput(f"metric {name!r} is an integer too large for a float") from None
    return metrics


def _artifacts(found: Any) -> dict[str, str]:
    if not isinstance(found, dict):
        return {}
    texts = [(name, text) for name, text in found.items() if isinstance(name, str) and isinstance(text, str)]
    return {name[:200]: text[:MAX_ARTIFACT_CHARS] for name, text in texts[:MAX_ARTIFACTS]}


def _one_line(what: object) -> str:
    return " ".join(str(what).split())[:500]
