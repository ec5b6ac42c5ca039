"""What the benchmark of the search runs and what decides: the study file, its runs, their results on disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adrs_ray.config import RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.task import describe_validation_error
from tests.benchmarks.landscapes import Kind

STUDY = Path(__file__).with_name("search_study.yaml")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Variant(_Section):
    name: str
    config: dict[str, Any] = Field(default_factory=dict, description="dotted keys that differ from the shipped default")
    search: Literal["evolve", "random"] = Field(default="evolve", description="random: every proposal from the seed")
    landscapes: list[str] | None = Field(default=None, description="where it says anything (default: everywhere)")


class Synthetic(_Section):
    landscapes: list[Kind]
    candidates: int = Field(ge=10)
    screening_seeds: list[int] = Field(min_length=10)
    held_out_seeds: list[int] = Field(min_length=10)
    held_out_variants: list[str]


class Real(_Section):
    landscapes: list[str]
    candidates: int = Field(ge=10)
    seeds: list[int] = Field(min_length=2)
    variants: list[str]


class Test(_Section):
    statistic: Literal["mean"]
    resamples: int = Field(ge=1000)
    level: float = Field(gt=0.5, lt=1)
    rule: str


class Study(_Section):
    """What is run and what decides, fixed before it runs."""

    base: dict[str, Any]
    default: str
    synthetic: Synthetic
    real: Real
    test: Test
    variants: list[Variant]

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have one name")
        if unknown := {self.default, *self.real.variants, *self.synthetic.held_out_variants} - set(names):
            raise ValueError(f"{', '.join(sorted(unknown))}: not among the variants")
        if set(self.synthetic.screening_seeds) & set(self.synthetic.held_out_seeds):
            raise ValueError("screening and held-out seeds overlap")
        known = {*self.synthetic.landscapes, *self.real.landscapes}
        if unknown := {name for variant in self.variants for name in variant.landscapes or ()} - known:
            raise ValueError(f"{', '.join(sorted(unknown))}: not among the landscapes")
        for variant in self.variants:
            config_of(self, variant, 1000, 0)
        return self

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)


def read_study(path: Path) -> Study:
    """Raises UsageError, one line, when it cannot be read or says something impossible."""
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read study {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_validation_error(error)}") from None


def config_of(study: Study, variant: Variant, candidates: int, seed: int) -> RunConfig:
    """Of one run. Raises UsageError for a key or value that RunConfig does not take."""
    budget = {"budget.max_candidates": candidates, "seed": seed}
    return override(RunConfig(), {**study.base, **variant.config, **budget}, f"variant {variant.name}")


@dataclass(frozen=True, slots=True)
class Job:
    variant: str
    landscape: str
    seed: int
    config: RunConfig
    search: Literal["evolve", "random"]

    @property
    def key(self) -> str:
        """Changes with everything that decides the run, except the code."""
        text = json.dumps([self.landscape, self.seed, self.search, self.config.model_dump(mode="json")])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Result:
    key: str
    variant: str
    landscape: str
    seed: int
    score: float
    train: float
    """As the search saw it, not scaled for tasks."""
    evaluations: int
    failures: dict[str, int]
    cpu_s: float


def screening_jobs(study: Study, landscapes: Sequence[str]) -> list[Job]:
    """Every variant on the screening seeds, by seed first: a study that is cut off has whole seeds."""
    synthetic = study.synthetic
    names = [name for name in synthetic.landscapes if name in landscapes]
    everybody = [variant.name for variant in study.variants]
    return _jobs(study, names, synthetic.screening_seeds, synthetic.candidates, everybody)


def confirming_jobs(study: Study, landscapes: Sequence[str], challenger: str | None) -> list[Job]:
    """The challenger, the default and those it is compared with, on held-out seeds and on tasks."""
    synthetic, real = study.synthetic, study.real
    names = [name for name in synthetic.landscapes if name in landscapes]
    tasks = [name for name in real.landscapes if name in landscapes]
    always = [study.default] if challenger is None else [study.default, challenger]
    return [
        *_jobs(study, names, synthetic.held_out_seeds, synthetic.candidates, [*always, *synthetic.held_out_variants]),
        *_jobs(study, tasks, real.seeds, real.candidates, [*always, *real.variants]),
    ]


def _jobs(
    study: Study, landscapes: Sequence[str], seeds: Sequence[int], candidates: int, names: Sequence[str]
) -> list[Job]:
    return [
        Job(variant.name, landscape, seed, config_of(study, variant, candidates, seed), variant.search)
        for seed in seeds
        for landscape in landscapes
        for variant in study.variants
        if variant.name in names and landscape in (variant.landscapes or [landscape])
    ]


def read_results(path: Path) -> dict[str, Result]:
    """By key; a last line that was cut off is left out."""
    results: dict[str, Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError):
            continue
        results[result.key] = result
    return results
