"""The sections of the config that say how to search: selection, models, prompts, health. The tree is `adrs_ray.config`.

`docs/search.md` says what was measured of each knob.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


ArchiveName: TypeAlias = Literal["grid", "cvt", "topk", "pareto"]
ParentsName: TypeAlias = Literal["explore_exploit", "softmax", "lexicase", "power_law", "ucb"]
OperatorName: TypeAlias = Literal["diff", "rewrite", "crossover", "fix", "mutate"]


class SelectorConfig(Section):
    """Archive and parent choice of an island."""

    archive: ArchiveName = Field(
        default="grid",
        description="grid: code size x distance to seed; cvt: cells from data; topk: the best; pareto: per case",
    )
    bins: int = Field(default=8, ge=2, le=64, description="grid: cells along each axis")
    cells: int = Field(default=48, ge=2, le=4096, description="cvt: number of cells")
    capacity: int = Field(default=48, ge=2, le=4096, description="topk: programs kept; pareto: the most kept")
    learn_bounds_from: int = Field(
        default=24, ge=2, description="grid, cvt: valid candidates after which the cells are fixed for good"
    )
    parents: ParentsName = Field(default="explore_exploit", description="rule that chooses a parent from the archive")
    exploration: float = Field(
        default=0.2, ge=0, le=1, description="share of parents drawn uniformly over the archive, under every rule"
    )
    exploitation: float = Field(
        default=0.6, ge=0, le=1, description="explore_exploit: share drawn by rank of score; the rest is the best one"
    )
    temperature: tuple[float, float] = Field(
        default=(1.0, 0.1),
        description="softmax: at the start and the end of the budget, in spreads of the archive's scores",
    )
    power: float = Field(default=1.0, gt=0, le=10, description="power_law: chance ~ rank ** -power")
    ucb: float = Field(default=1.0, ge=0, le=10, description="ucb: weight of the confidence bound")
    crossover: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="mutate: share of proposals with two parents (models: generator.operators)",
    )

    @field_validator("temperature", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _shares(self) -> SelectorConfig:
        if self.exploration + self.exploitation > 1 + 1e-12:
            raise ValueError(
                f"exploration {self.exploration} + exploitation {self.exploitation} exceed 1 "
                "(the rest goes to the elite)"
            )
        if min(self.temperature) <= 0:
            raise ValueError(f"temperature {list(self.temperature)}: both must be above 0")
        return self


class AdaptationConfig(Section):
    """Exploration from an exponentially weighted improvement signal, per island."""

    enabled: bool = Field(
        default=False, description="more exploration while improvements stay away, less while they come"
    )
    decay: float = Field(default=0.9, gt=0, lt=1, description="weight of the past in the improvement signal")
    exploration: tuple[float, float] = Field(default=(0.05, 0.3), description="least and most exploration")
    shift_after: int | None = Field(
        default=None, ge=1, description="candidates of an island without gain after which a paradigm shift is asked for"
    )

    @field_validator("exploration", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        return tuple(value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _ordered(self) -> AdaptationConfig:
        low, high = self.exploration
        if not 0 <= low <= high <= 1:
            raise ValueError(f"exploration {[low, high]}: expected 0 <= least <= most <= 1")
        return self


class NoiseConfig(Section):
    """Repeated measurement of candidates that would enter the archive, for tasks that declare `noisy`."""

    min_repeats: int = Field(default=2, ge=1, le=100, description="measurements of whoever takes a place")
    max_repeats: int = Field(default=6, ge=1, le=100, description="the most for one candidate")
    z: float = Field(default=1.64, gt=0, le=6, description="standard errors that must lie between two means")

    @model_validator(mode="after")
    def _ordered(self) -> NoiseConfig:
        if self.min_repeats > self.max_repeats:
            raise ValueError(f"min_repeats {self.min_repeats} is above max_repeats {self.max_repeats}")
        return self


class SeedingConfig(Section):
    """Programs made before the islands start, that differ in kind."""

    seeds: int = Field(
        default=0, ge=0, le=64, description="structurally different seeds, one after another (strong model)"
    )
    variants: int = Field(default=0, ge=0, le=64, description="variants of each seed (small model)")

    @model_validator(mode="after")
    def _of_seeds(self) -> SeedingConfig:
        if self.variants and not self.seeds:
            raise ValueError(f"variants {self.variants} of no seeds: give seeds, too")
        return self


class ModelConfig(Section):
    """A language model behind an OpenAI-compatible server."""

    base_url: str | None = Field(
        default=None,
        description="such as http://127.0.0.1:8000/v1 (default: the servers of the pool)",
        pattern=r"^https?://\S+$",
    )
    model: str = Field(description="name that the server knows")
    api_key_env: str | None = Field(default=None, description="environment variable with the key (default: no key)")
    weight: float = Field(default=1.0, ge=0, description="share of requests under ensemble: fixed")
    temperature: float = Field(default=0.8, ge=0, le=2, description="of sampling")
    top_p: float | None = Field(default=None, gt=0, le=1, description="of sampling (default: the server's)")
    max_tokens: int = Field(default=6000, ge=16, description="tokens of an answer")
    reasoning_tokens: int = Field(default=0, ge=0, description="tokens of reasoning before the answer, on top")
    reasoning_effort: Literal["low", "medium", "high"] | None = Field(
        default=None, description="sent to the server, lowered when all tokens were spent without an answer"
    )
    less_reasoning_body: dict[str, Any] = Field(
        default_factory=dict, description="added to a request that is asked again with less reasoning"
    )
    extra_body: dict[str, Any] = Field(default_factory=dict, description="added to every request")
    context_tokens: int = Field(default=32768, ge=1024, description="prompt, reasoning and answer together")
    chars_per_token: float = Field(default=3.0, gt=0.5, le=10, description="for estimates before a request is sent")
    timeout_s: float = Field(default=600.0, gt=0, description="of one attempt")
    attempts: int = Field(default=6, ge=1, le=50, description="attempts of one request (429, 5xx, lost connections)")
    max_in_flight: int = Field(default=64, ge=1, description="requests at once, per process that asks")
    requests_per_min: float | None = Field(
        default=None, gt=0, description="the endpoint's limit, shared by all islands"
    )
    tokens_per_min: float | None = Field(default=None, gt=0, description="the endpoint's limit, shared by all islands")
    usd_per_mtok_in: float | None = Field(default=None, ge=0, description="dollars per million prompt tokens")
    usd_per_mtok_cached: float | None = Field(
        default=None, ge=0, description="dollars per million cached prompt tokens (default: as in)"
    )
    usd_per_mtok_out: float | None = Field(default=None, ge=0, description="dollars per million tokens out")
    gpus: float = Field(default=0.0, ge=0, description="GPUs of the server that one request occupies, for GPU-seconds")

    @model_validator(mode="after")
    def _fits(self) -> ModelConfig:
        if self.max_tokens + self.reasoning_tokens >= self.context_tokens:
            raise ValueError(
                f"max_tokens {self.max_tokens} + reasoning_tokens {self.reasoning_tokens} leave nothing of "
                f"context_tokens {self.context_tokens} for the prompt"
            )
        try:
            password = urlsplit(self.base_url or "").password
        except ValueError as error:
            raise ValueError(f"base_url {self.base_url!r} is no address: {error}") from None
        if password is not None:
            raise ValueError("base_url holds a password: run.yaml would, too; give the name of api_key_env instead")
        if (self.usd_per_mtok_in is None) != (self.usd_per_mtok_out is None):
            raise ValueError("usd_per_mtok_in and usd_per_mtok_out go together: give both or neither")
        return self

    @property
    def priced(self) -> bool:
        """Whether its dollars are known."""
        return self.usd_per_mtok_in is not None


def _default_operators() -> dict[OperatorName, float]:
    return {"diff": 5.0, "rewrite": 2.0, "crossover": 2.0, "fix": 1.0, "mutate": 0.0}


class GeneratorConfig(Section):
    """Where new programs come from."""

    kind: Literal["mutate", "openai", "mailbox"] = Field(
        default="mutate",
        description="mutate: syntax-tree mutation, no model; openai: the models below; mailbox: people and agents",
    )
    redraws: int = Field(default=20, ge=0, le=1000, description="mutate: further draws before a duplicate counts")
    max_mutations: int = Field(
        default=3, ge=1, le=32, description="mutate: mutations in one step, drawn from 1 to this"
    )
    ensemble: Literal["fixed", "bandit"] = Field(
        default="bandit", description="fixed: by weights; bandit: (model, operator) by improvement per cost"
    )
    operators: dict[OperatorName, float] = Field(
        default_factory=_default_operators, description="openai, mailbox: weights; `mutate` mixes in the model-free one"
    )
    strong: str | None = Field(
        default=None, description="model for seeds and paradigm shifts (default: the one named strong, else the last)"
    )
    edit_retries: int = Field(default=1, ge=0, le=5, description="times an edit that cannot be applied goes back")
    duplicate_retries: int = Field(default=2, ge=0, le=5, description="times a duplicate is asked for again")
    near_duplicate: float | None = Field(
        default=0.999, gt=0.5, le=1, description="share of common token 3-grams from which a program is no new one"
    )
    fuzzy_edits: float = Field(default=0.9, gt=0.5, le=1, description="least similarity of a SEARCH text to its place")
    summarize_every: int | None = Field(
        default=25, ge=1, description="decisions of an island between two scratchpads; null for no scratchpad"
    )
    lease_s: float = Field(default=900.0, gt=0, description="mailbox: after this a claimed request is offered again")

    @model_validator(mode="after")
    def _drawable(self) -> GeneratorConfig:
        if any(weight < 0 for weight in self.operators.values()) or not any(self.operators.values()):
            raise ValueError(f"operators {self.operators}: weights must not be negative, and one above 0")
        return self


class PromptConfig(Section):
    """What language models are told."""

    folder: str | None = Field(default=None, description="folder whose <operator>.jinja replace ours, one by one")
    hints: Literal["none", "weak", "medium", "strong"] = Field(
        default="none", description="the task's hints that are told (hints/<level>.md)"
    )
    inspirations: int = Field(default=2, ge=0, le=16, description="other programs shown beside the parent")
    attempts: int = Field(default=8, ge=0, le=100, description="earlier tries on this lineage that are told")
    case_rows: int = Field(default=12, ge=0, le=1000, description="cases of the parent that are told, worst first")
    artifact_tokens: int = Field(default=800, ge=0, description="of what a program printed or raised, each")


class HealthConfig(Section):
    """Detectors over the journal, and what is done about what they find."""

    enabled: bool = Field(default=True, description="look for failures of the search and of candidates' lineages")
    interventions: bool = Field(default=False, description="act on findings: restart, shift, temperature, operators")
    window: int = Field(default=50, ge=10, description="candidates of an island that detectors look back on")
    cooldown: int = Field(default=60, ge=1, description="candidates of an island between two interventions")
