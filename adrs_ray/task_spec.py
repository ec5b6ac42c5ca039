"""`task.yaml` as a strict model: reading it, one line for what is wrong, and finding the recorded files it names."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from adrs_ray import bundle
from adrs_ray.errors import UsageError

_Model = TypeVar("_Model", bound=BaseModel)

Split: TypeAlias = Literal["train", "validation", "test", "stress"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test", "stress")
"""`train` is seen by the search, `validation` picks the champion, `test` is scored once, `stress` is odd and larger."""


FULL_STAGE = "full"
"""The stage of a task that names none."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Metric(_Strict):
    """A named figure with its unit and the direction in which it improves."""

    unit: str
    direction: Literal["min", "max"]
    description: str = ""


class Limits(_Strict):
    """What one case may use, in the jail."""

    case_timeout_s: float = Field(default=30.0, gt=0, le=86_400, description="wall time of one case, load included")
    memory_mb: int = Field(
        default=1024,
        ge=16,
        description="address space beyond the fork server's own; with device_memory_mb what is resident of it",
    )
    threads: int = Field(default=4, ge=1, le=1024, description="threads alive at once in a candidate's process")
    processes: int = Field(default=0, ge=0, le=256, description="processes a candidate may start (0: none, no exec)")
    scratch_mb: int = Field(default=16, ge=0, description="files in the scratch folder, together")
    output_mb: int = Field(default=16, ge=1, description="one raw output, encoded")
    device_memory_mb: int = Field(
        default=0, ge=0, description="memory of the slot's GPUs that a program may use (0: programs see no GPU)"
    )
    build_timeout_s: float = Field(
        default=0.0, ge=0, le=86_400, description="wall time of the build step before the first case (0: no such step)"
    )
    build_memory_mb: int = Field(
        default=4096, ge=16, description="memory of the build step, all its processes together"
    )
    build_processes: int = Field(default=16, ge=0, le=256, description="processes that the build step may start")


class DataFile(_Strict):
    """A file of recorded data that a split needs, found under `ADRS_DATA_DIR` or fetched by `adrs data pull`."""

    file: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    url: str
    provides: str


class PublicEvaluator(_Strict):
    """What one verdict of the public evaluator costs, for `adrs bench tasks`."""

    cpu_s: float = Field(gt=0, description="CPU seconds of one verdict on the seed")
    source: str = Field(description="where the figure is from")


class Stage(_Strict):
    """One of several measurements of a task, dearer than the one before and nearer to the real thing."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    cpus: float = Field(default=1.0, gt=0, description="CPUs that one slot of this stage reserves")
    memory_mb: int = Field(default=0, ge=0, description="memory that one slot reserves on the cluster (0: none)")
    gpus: float = Field(
        default=0.0, ge=0, description="GPUs of one slot: whole ones while it times, each held by one slot alone"
    )

    @field_validator("gpus")
    @classmethod
    def _part_of_one_or_whole(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("more than one GPU must be a whole number")
        return value


class TaskSpec(_Strict):
    """`task.yaml`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    summary: str
    statement: str = ""
    entry: tuple[str, ...] = Field(default=(), description="functions or classes of which a program defines one")
    files: tuple[str, ...] = Field(
        default=(), description="files in seed/ that are the program together, the first one the program itself"
    )
    metrics: dict[str, Metric] = Field(default_factory=dict)
    limits: Limits = Limits()
    preload: tuple[str, ...] = Field(default=(), description="modules the fork server imports before it forks")
    spares: int = Field(
        default=0, ge=0, le=4, description="processes that have run the adapter's prepare() and wait for a program"
    )
    share_process: str | None = Field(
        default=None, description="why all cases of a candidate share one process (default: one each)"
    )
    cpus: float = Field(default=1.0, gt=0, description="CPUs that one evaluation slot reserves")
    memory_mb: int = Field(default=0, ge=0, description="memory that one slot reserves on a cluster (0: none)")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of one slot, as of a stage")
    stages: tuple[Stage, ...] = Field(
        default=(), description="cheapest first; the score of the last one counts (default: one, `full`)"
    )
    splits: tuple[Split, ...] = SPLITS
    data: tuple[DataFile, ...] = ()
    headline: str | None = Field(default=None, description="the metric that readers know the task by")
    case_metric: str | None = Field(
        default=None, description="the metric of a case that tells how good its answer is (default: headline)"
    )
    noisy: bool = Field(default=False, description="whether one program measured twice may score differently")
    banned_imports: tuple[str, ...] = Field(default=(), description="modules that a program may not import")
    trivial: str | None = Field(default=None, description="baseline below which a program is of no use")
    best_human: str | None = Field(default=None, description="best baseline that people have published or wrote here")
    bound: str | None = Field(default=None, description="how the metric score_bound, which no program beats, was found")
    public_evaluator: PublicEvaluator | None = None

    @model_validator(mode="before")
    @classmethod
    def _lists_are_tuples(cls, value: Any) -> Any:
        if isinstance(value, dict):
            return {k: tuple(v) if isinstance(v, list) else v for k, v in value.items()}
        return value

    @field_validator("files")
    @classmethod
    def _files_have_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        bundle.check_names(value)
        return value

    @model_validator(mode="after")
    def _stages_make_sense(self) -> TaskSpec:
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"stages: two have one name among {', '.join(names)}")
        if len(names) == 1 or len(names) > 3:
            raise ValueError(f"stages: {len(names)} given; two or three make a cascade, none is one stage `full`")
        if self.stages and self.gpus:
            raise ValueError("gpus: of a task with stages each stage says its own")
        return self

    @property
    def all_stages(self) -> tuple[Stage, ...]:
        """The stages in order; `full` alone when the task names none."""
        whole = Stage(name=FULL_STAGE, cpus=self.cpus, memory_mb=self.memory_mb, gpus=self.gpus)
        return self.stages or (whole,)

    @property
    def seed_files(self) -> tuple[str, ...]:
        """Where in the folder the seed program stands: seed.py, or `files` in seed/."""
        return tuple(f"seed/{name}" for name in self.files) or ("seed.py",)


def read_spec(path: Path) -> TaskSpec:
    """Read and check task.yaml. Raises UsageError naming the key, its value and what is accepted."""
    return read_yaml_model(path, TaskSpec, "a mapping with at least `name` and `summary`")


def read_yaml_model(path: Path, model: type[_Model], expected: str) -> _Model:
    """A YAML file as a checked value; `expected` says what stands in such a file.

    Raises UsageError, one line, when it cannot be read, is no YAML, no mapping, or no such model.
    """
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(data, dict):
        raise UsageError(f"{path}: expected {expected}, got {type(data).__name__}")
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_validation_error(error)}") from None


SECRET_INPUT = "secret_input"
"""Type of a pydantic error whose input may be secret: it is not repeated."""


def describe_validation_error(error: ValidationError) -> str:
    """The first problem of a pydantic error in one line: key, value and what is accepted."""
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"]) or "(top level)"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _accepted_keys(error, first["loc"])
        return f"unknown key {key!r}{known}{more}"
    if first["type"] == "missing":
        return f"key {key!r} is missing{more}"
    message = first["msg"].removeprefix("Value error, ")
    silent = isinstance(first["input"], dict) or first["type"] == SECRET_INPUT
    given = "" if silent else f" is {first['input']!r}"
    return f"{key}{given}: {message}{more}"


def _accepted_keys(error: ValidationError, loc: Sequence[int | str]) -> str:
    model = _MODELS_BY_TITLE.get(error.title)
    for part in loc[:-1]:
        if model is None:
            return ""
        annotation = model.model_fields[part].annotation if part in model.model_fields else None
        model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    if model is None:
        return ""
    return f": accepted are {', '.join(sorted(model.model_fields))}"


_MODELS_BY_TITLE: dict[str, type[BaseModel]] = {"TaskSpec": TaskSpec}


def register_for_messages(model: type[BaseModel]) -> type[BaseModel]:
    """Let `describe_validation_error` list the accepted keys of another top-level model."""
    _MODELS_BY_TITLE[model.__name__] = model
    return model


def data_dirs() -> list[Path]:
    """Where recorded data is looked for: `ADRS_DATA_DIR` if set, then the cache that `adrs data pull` fills."""
    named = os.environ.get("ADRS_DATA_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "adrs-ray" / "data"
    return [Path(named).expanduser(), cache] if named else [cache]


def data_file(file: DataFile) -> Path | None:
    """The path of a recorded data file whose checksum is right, or None when it is nowhere.

    Raises UsageError when a file of that name is there with another content.
    """
    for folder in data_dirs():
        path = folder / file.file
        if path.is_file():
            found = hashlib.sha256(path.read_bytes()).hexdigest()
            if found != file.sha256:
                raise UsageError(f"{path} is not the expected file: sha256 {found}, expected {file.sha256}")
            return path
    return None
