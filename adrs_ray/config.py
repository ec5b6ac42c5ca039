"""RunConfig: one strict tree that describes a run completely; YAML in and out.

Every field works; unknown keys, wrong types and impossible combinations are one-line errors. Secrets never stand
here: later sections for hosted models hold the names of environment variables.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adrs_ray.errors import UsageError
from adrs_ray.task import describe_validation_error, register_for_messages


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class BudgetConfig(_Section):
    """When to stop: whichever limit is reached first."""

    max_candidates: int = Field(
        default=200, ge=1, description="candidates in a terminal state, seeds and duplicates included"
    )
    max_wall_s: float | None = Field(default=None, gt=0, description="wall time of this start of the run, in seconds")
    target_score: float | None = Field(default=None, description="stop when a train score reaches this")
    patience: int | None = Field(default=None, ge=1, description="stop after so many candidates without a new best")


class IslandsConfig(_Section):
    """Populations that evolve apart and exchange elites."""

    count: int = Field(default=2, ge=1, le=1024, description="number of islands")
    in_flight: int = Field(default=2, ge=1, le=256, description="candidates one island has under way at once")
    migration: Literal["ring", "none"] = Field(default="ring", description="who receives an island's elites")
    migration_interval: int = Field(default=25, ge=1, description="decisions of an island between two migrations")
    migration_count: int = Field(default=2, ge=1, le=64, description="elites sent at each migration")


class SelectorConfig(_Section):
    """Archive and parent choice of an island."""

    archive: Literal["grid"] = Field(default="grid", description="MAP-Elites grid: code size x token distance to seed")
    bins: int = Field(default=8, ge=2, le=64, description="cells along each axis")
    learn_bounds_from: int = Field(
        default=24, ge=2, description="valid candidates after which the grid's bounds are fixed for good"
    )
    exploration: float = Field(default=0.2, ge=0, le=1, description="share of parents drawn uniformly over cells")
    exploitation: float = Field(default=0.6, ge=0, le=1, description="share drawn by rank of score")
    crossover: float = Field(default=0.15, ge=0, le=1, description="share of proposals with two parents")

    @model_validator(mode="after")
    def _shares(self) -> SelectorConfig:
        if self.exploration + self.exploitation > 1 + 1e-12:
            raise ValueError(
                f"exploration {self.exploration} + exploitation {self.exploitation} exceed 1 "
                "(the rest goes to the elite)"
            )
        return self


class GeneratorConfig(_Section):
    """Where new programs come from."""

    kind: Literal["mutate"] = Field(default="mutate", description="mutate: typed syntax-tree mutation, no model needed")
    redraws: int = Field(default=20, ge=0, le=1000, description="further draws before a duplicate counts")
    max_mutations: int = Field(default=3, ge=1, le=32, description="mutations in one step, drawn from 1 to this")


class EvaluatorConfig(_Section):
    """How candidates are run."""

    slots: int | None = Field(default=None, ge=1, le=4096, description="evaluations at once (default: one per CPU)")
    sandbox: Literal["strict", "unsafe"] = Field(
        default="strict",
        description="strict refuses without a jail; unsafe runs without one and marks every verdict",
    )
    python: str | None = Field(default=None, description="interpreter for candidates (default: this one)")
    retries: int = Field(default=2, ge=0, le=10, description="further attempts when the failure is ours")


class ClusterConfig(_Section):
    """Ray."""

    address: str | None = Field(default=None, description="Ray address to join (default: start an embedded Ray)")


class FinishConfig(_Section):
    """What happens when the budget is spent."""

    top_k: int = Field(default=5, ge=1, le=100, description="best train candidates judged on validation at the end")
    test: bool = Field(default=True, description="judge the champion once on the test split")


@register_for_messages
class RunConfig(_Section):
    """Everything that decides a run. `adrs config show` prints it with defaults and explanations."""

    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="all randomness of the search derives from it")
    start: Literal["weak", "medium", "strong"] = Field(
        default="medium", description="seed program of the task to start from; a good start may lead nowhere else"
    )
    budget: BudgetConfig = BudgetConfig()
    islands: IslandsConfig = IslandsConfig()
    selector: SelectorConfig = SelectorConfig()
    generator: GeneratorConfig = GeneratorConfig()
    evaluator: EvaluatorConfig = EvaluatorConfig()
    cluster: ClusterConfig = ClusterConfig()
    finish: FinishConfig = FinishConfig()

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        if self.budget.max_candidates < self.islands.count:
            raise ValueError(
                f"budget.max_candidates {self.budget.max_candidates} is below islands.count {self.islands.count}: "
                "each island needs at least one candidate"
            )
        return self


def parse_config(data: Any, where: str) -> RunConfig:
    """Check a mapping. Raises UsageError, one line: where, key, value and what is accepted."""
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise UsageError(f"{where}: expected a mapping of sections, got {type(data).__name__}")
    try:
        return RunConfig.model_validate(data)
    except ValidationError as error:
        raise UsageError(f"{where}: {describe_validation_error(error)}") from None


def read_config(path: Path) -> RunConfig:
    """Read a YAML file. Raises UsageError when it is missing, no YAML or not a valid config."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read config {path}: {error}") from None
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    return parse_config(data, str(path))


def override(config: RunConfig, values: dict[str, Any], where: str = "command line") -> RunConfig:
    """A copy with dotted keys replaced, such as {'islands.count': 4}; None values are left out."""
    data = config.model_dump()
    for key, value in values.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        target = data
        for section in sections:
            target = target[section]
        target[last] = value
    return parse_config(data, where)


def to_yaml(config: RunConfig) -> str:
    """The config as YAML, every field with its value and, as a comment, what it means."""
    lines: list[str] = []
    for name, info in RunConfig.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            doc = (type(value).__doc__ or "").strip().splitlines()[0]
            lines += ["", f"{name}:  # {doc}"]
            for key, sub in type(value).model_fields.items():
                lines.append(f"  {key}: {_scalar(getattr(value, key))}  # {sub.description}")
        else:
            lines.append(f"{name}: {_scalar(value)}  # {info.description}")
    return "\n".join(lines) + "\n"


def _scalar(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).strip().removesuffix("\n...").strip()
