"""RunConfig: one strict tree that describes a run completely; YAML in and out.

Every field works; unknown keys, wrong types and impossible combinations are one-line errors. Secrets never stand
here: a model holds the name of the environment variable that has its key. `docs/search.md` says what was measured of
each knob of the search.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from adrs_ray.cluster_config import (
    CascadeConfig,
    ClusterConfig,
    EngineConfig,
    EvaluatorConfig,
    MirrorConfig,
    PoolConfig,
)
from adrs_ray.errors import UsageError
from adrs_ray.search_config import (
    AdaptationConfig,
    ArchiveName,
    GeneratorConfig,
    HealthConfig,
    ModelConfig,
    NoiseConfig,
    OperatorName,
    ParentsName,
    PromptConfig,
    Section,
    SeedingConfig,
    SelectorConfig,
)
from adrs_ray.task_spec import describe_validation_error, register_for_messages

__all__ = [
    "AdaptationConfig",
    "ArchiveName",
    "BudgetConfig",
    "CascadeConfig",
    "ClusterConfig",
    "EngineConfig",
    "EvaluatorConfig",
    "FinishConfig",
    "GeneratorConfig",
    "HealthConfig",
    "IslandOverride",
    "IslandsConfig",
    "MirrorConfig",
    "ModelConfig",
    "NoiseConfig",
    "OperatorName",
    "ParentsName",
    "PoolConfig",
    "PromptConfig",
    "RunConfig",
    "SeedingConfig",
    "SelectorConfig",
    "override",
    "parse_config",
    "read_config",
    "to_yaml",
]


class BudgetConfig(Section):
    """When to stop: whichever limit is reached first."""

    max_candidates: int = Field(
        default=200, ge=1, description="candidates in a terminal state, seeds and duplicates included"
    )
    max_wall_s: float | None = Field(default=None, gt=0, description="wall time of this start of the run, in seconds")
    target_score: float | None = Field(default=None, description="stop when a train score reaches this")
    patience: int | None = Field(default=None, ge=1, description="stop after so many candidates without a new best")
    max_tokens: int | None = Field(default=None, ge=1, description="tokens of models, in and out, over the whole run")
    max_usd: float | None = Field(default=None, gt=0, description="dollars over the whole run; needs prices of models")
    max_gpu_s: float | None = Field(default=None, gt=0, description="GPU-seconds of local models over the whole run")


class IslandOverride(Section):
    """What one island does otherwise than the rest; None keeps the common setting."""

    archive: ArchiveName | None = Field(default=None, description="as selector.archive")
    parents: ParentsName | None = Field(default=None, description="as selector.parents")
    exploration: float | None = Field(default=None, ge=0, le=1, description="as selector.exploration")
    models: list[str] | None = Field(default=None, description="names of `models` that it asks")
    operators: dict[OperatorName, float] | None = Field(default=None, description="as generator.operators")
    temperature: float | None = Field(default=None, ge=0, le=2, description="of every request, in place of the model's")
    prompts: str | None = Field(default=None, description="as prompt.folder")


class IslandsConfig(Section):
    """Populations that evolve apart and exchange elites."""

    count: int = Field(default=2, ge=1, le=1024, description="number of islands at the start")
    in_flight: int = Field(default=2, ge=1, le=256, description="candidates one island has under way at once")
    migration: Literal["ring", "star", "none"] = Field(
        default="ring", description="who receives an island's elites: the next one; all from and to the first; nobody"
    )
    migration_interval: int = Field(default=25, ge=1, description="decisions of an island between two migrations")
    migration_count: int = Field(default=2, ge=1, le=64, description="elites sent at each migration")
    overrides: dict[Annotated[int, Field(ge=0)], IslandOverride] = Field(
        default_factory=dict, description="by island number: archive, parents, exploration, models, operators, ..."
    )


class FinishConfig(Section):
    """What happens when the budget is spent."""

    top_k: int = Field(default=5, ge=1, le=100, description="best train candidates judged on validation at the end")
    test: bool = Field(default=True, description="judge the champion once on the test split")
    known: str | None = Field(default=None, description="folder of known programs that the best are compared with")


@register_for_messages
class RunConfig(Section):
    """Everything that decides a run. `adrs config show` prints it with defaults and explanations."""

    seed: int = Field(default=0, ge=0, le=2**63 - 1, description="all randomness of the search derives from it")
    start: Literal["weak", "medium", "strong"] = Field(
        default="medium", description="seed program of the task to start from; a good start may lead nowhere else"
    )
    last_stage: str | None = Field(
        default=None, description="of a task with stages: end with this one, its score counts (default: all stages)"
    )
    isomorphic: bool = Field(
        default=False, description="the task under other names and another story, to tell recall from discovery"
    )
    budget: BudgetConfig = BudgetConfig()
    islands: IslandsConfig = IslandsConfig()
    selector: SelectorConfig = SelectorConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    noise: NoiseConfig = NoiseConfig()
    seeding: SeedingConfig = SeedingConfig()
    generator: GeneratorConfig = GeneratorConfig()
    models: dict[str, ModelConfig] = Field(default_factory=dict, description="by name; two: `small` and `strong`")
    prompt: PromptConfig = PromptConfig()
    health: HealthConfig = HealthConfig()
    pool: PoolConfig = PoolConfig()
    evaluator: EvaluatorConfig = EvaluatorConfig()
    cluster: ClusterConfig = ClusterConfig()
    mirror: MirrorConfig = MirrorConfig()
    finish: FinishConfig = FinishConfig()

    @model_validator(mode="after")
    def _possible(self) -> RunConfig:
        if self.budget.max_candidates < self.islands.count:
            raise ValueError(
                f"budget.max_candidates {self.budget.max_candidates} is below islands.count {self.islands.count}: "
                "each island needs at least one candidate"
            )
        self._check_models()
        for number in self.islands.overrides:
            try:
                self.for_island(number)
            except UsageError as error:
                raise ValueError(str(error)) from None
        return self

    def _check_models(self) -> None:
        if self.pool.preset is not None:
            return  # it fills `models` in, and the whole is checked then
        if self.generator.kind == "mutate" and self.adaptation.shift_after is not None:
            raise ValueError("adaptation.shift_after asks a strong model: generator.kind mutate has none")
        if self.generator.kind == "openai" and not self.models and self.pool.preset is None:
            raise ValueError(
                "generator.kind openai needs `models`: such as small and strong, each with base_url and model; "
                "or a pool.preset (`adrs models list`)"
            )
        self._check_servers()
        named = {name for override in self.islands.overrides.values() for name in override.models or ()}
        named |= set() if self.generator.strong is None else {self.generator.strong}
        if unknown := sorted(named - self.models.keys()):
            known = ", ".join(self.models) or "none"
            raise ValueError(f"model {unknown[0]!r} is named but not among `models` ({known})")
        if "mutate" in self.models:
            raise ValueError("models: `mutate` is the name of the model-free generator: choose another")
        for number, own in self.islands.overrides.items():
            asked = [m for n, m in self.models.items() if own.models is None or n in own.models]
            if self.generator.kind == "openai" and not any(model.weight for model in asked):
                raise ValueError(f"islands.overrides.{number}.models {own.models} leaves no model of weight above 0")
        if self.generator.kind == "openai" and self.models and not any(m.weight for m in self.models.values()):
            raise ValueError("models: every weight is 0, no model would be asked")
        unpriced = sorted(name for name, model in self.models.items() if not model.priced)
        if self.budget.max_usd is not None and self.generator.kind == "openai" and unpriced:
            raise ValueError(
                f"budget.max_usd needs prices: models.{unpriced[0]} has no usd_per_mtok_in and usd_per_mtok_out"
            )
        unmetered = sorted(name for name, model in self.models.items() if not model.gpus)
        if self.budget.max_gpu_s is not None and self.generator.kind == "openai" and unmetered:
            raise ValueError(f"budget.max_gpu_s needs models.{unmetered[0]}.gpus: how many GPUs a request occupies")

    def _check_servers(self) -> None:
        """Every model has servers of one kind: its own address, the pool's engines, or the pool's endpoints."""
        if unknown := sorted(self.pool.models.keys() - self.models.keys()):
            raise ValueError(f"pool.models.{unknown[0]}: there is no such model among `models`")
        for name, model in self.models.items():
            served = self.engine_of(name) is not None
            if model.base_url is not None and name in self.pool.models:
                raise ValueError(f"models.{name} has a base_url and is served by the pool: remove one")
            if model.base_url is None and not served and not self.pool.endpoints:
                raise ValueError(
                    f"models.{name} has no server: give base_url, or pool.models.{name} to serve it on the cluster's "
                    "GPUs, or pool.endpoints"
                )

    def engine_of(self, name: str) -> str | None:
        """The name among `pool.models` whose engines answer for a model: its own, or that of one which asks for the
        same `model`; None when the pool does not start its servers."""
        if name in self.pool.models or self.models[name].base_url is not None:
            return name if name in self.pool.models else None
        same = (other for other in self.pool.models if self.models[other].model == self.models[name].model)
        return next(same, None)

    def for_island(self, number: int) -> RunConfig:
        """The config of one island: its overrides applied."""
        own = self.islands.overrides.get(number)
        if own is None:
            return self
        changes: dict[str, Any] = {
            "islands.overrides": {},
            "selector.archive": own.archive,
            "selector.parents": own.parents,
            "selector.exploration": own.exploration,
            "generator.operators": own.operators,
            "prompt.folder": own.prompts,
        }
        config = override(self, changes, f"islands.overrides.{number}")
        models = {n: m for n, m in config.models.items() if own.models is None or n in own.models}
        if own.temperature is not None:
            models = {n: m.model_copy(update={"temperature": own.temperature}) for n, m in models.items()}
        return config.model_copy(update={"models": models})


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
    """A copy with dotted keys replaced, such as {'islands.count': 4}; None values are left out.

    Raises UsageError for a key that the config does not have, or a value that it does not take.
    """
    data = config.model_dump(exclude_unset=True)
    for key, value in values.items():
        if value is None:
            continue
        *sections, last = key.split(".")
        target = data
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise UsageError(f"{where}: {key}: {section} holds a value, not a section")
        target[last] = value
    return parse_config(data, where)


def to_yaml(config: RunConfig) -> str:
    """The config as YAML, every field with its value and, as a comment, what it means."""
    lines: list[str] = []
    for name, info in RunConfig.model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel) or name == "models":
            lines.append("")
        lines += _described(name, value, info.description, "")
    return "\n".join(lines) + "\n"


def _described(key: str, value: Any, description: str | None, indent: str) -> list[str]:
    """A field in its lines; sections, and sections by name, go on below it."""
    below = indent + "  "
    if isinstance(value, BaseModel):
        doc = description or (type(value).__doc__ or "").strip().splitlines()[0]
        fields = type(value).model_fields.items()
        nested = [line for k, info in fields for line in _described(k, getattr(value, k), info.description, below)]
        return [f"{indent}{_scalar(key)}:  # {doc}", *nested]
    if (
        isinstance(value, dict)
        and value
        and all(isinstance(each, ModelConfig | EngineConfig) for each in value.values())
    ):
        nested = [line for name, each in value.items() for line in _described(name, each, None, below)]
        return [f"{indent}{_scalar(key)}:  # {description}", *nested]
    return [f"{indent}{_scalar(key)}: {_scalar(_plain(value))}  # {description}"]


def _plain(value: Any) -> Any:
    """What YAML can hold: sections inside lists and mappings as mappings."""
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return value


def _scalar(value: Any) -> str:
    # Orders of keys are kept: models and operators are drawn by their places.
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000)
    return text.strip().removesuffix("\n...").strip()
