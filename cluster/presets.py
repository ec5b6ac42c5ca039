"""Named pairs of open-weight models per GPU budget (`models.yaml`), and a config that is filled from one.

Imports no Ray: commands that only read need none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import UsageError
from adrs_ray.task_spec import read_yaml_model, register_for_messages
from cluster.fit import Footprint
from cluster.model_lock import Lock

CATALOGUE = Path(__file__).with_name("models.yaml")
COMMIT = re.compile(r"[0-9a-f]{40}")

_BYTES_PER_VALUE = 2
"""Of the cache, in bfloat16: what engines use unless told otherwise."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cache(_Strict):
    """What decides how much a token takes of the key-value cache."""

    layers: int = Field(ge=1)
    heads: int = Field(ge=1, description="key-value heads")
    head_dim: int = Field(ge=1)

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers, in bfloat16; an upper bound where layers look at a window only."""
        return 2 * self.layers * self.heads * self.head_dim * _BYTES_PER_VALUE


class Model(_Strict):
    """An open-weight model: where it is, what it takes, how its makers sample."""

    repository: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    license: str
    revision: str = Field(description="branch, tag or commit")
    total_b: float = Field(gt=0, description="billions of parameters")
    active_b: float = Field(gt=0, description="billions of parameters that one token passes")
    weights: Literal["bfloat16", "fp8", "mxfp4"]
    weights_gib: float = Field(gt=0, description="to download, and to hold in GPU memory")
    kv: Cache
    native_context: int = Field(ge=1024, description="tokens")
    reasoning_parser: str | None = None
    temperature: float = Field(ge=0, le=2)
    top_p: float = Field(gt=0, le=1)
    extra_body: dict[str, float] = Field(default_factory=dict)
    note: str = ""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit."""
        return is_commit(self.revision)

    @property
    def footprint(self) -> Footprint:
        return Footprint(self.weights_gib, self.kv.bytes_per_token, self.kv.heads)


class Member(_Strict):
    """One model of a preset: which, how many, and how it is asked."""

    use: str = Field(description="key of `models`")
    shares: str | None = Field(default=None, description="the member whose engine it asks, in place of its own")
    replicas: int = Field(default=1, ge=1)
    tensor_parallel: int = Field(default=1, ge=1)
    weight: float = Field(gt=0)
    context_tokens: int
    max_tokens: int
    reasoning_tokens: int = 0
    reasoning_effort: Literal["low", "medium", "high"] | None = None
    timeout_s: float = 600.0


class Preset(_Strict):
    """A pair for a GPU budget."""

    summary: str
    nodes: int = Field(ge=1)
    gpus_per_node: int = Field(ge=1)
    gpu_gib: float = Field(gt=0, description="memory of one GPU, as its maker names it")
    max_in_flight: int = Field(ge=1, description="requests at one replica")
    models: dict[str, Member]

    @property
    def gpus(self) -> int:
        """Of the whole budget."""
        return self.nodes * self.gpus_per_node

    def engine_gpus(self) -> int:
        """Held by its engines; the rest is left to evaluators."""
        return sum(m.replicas * m.tensor_parallel for m in self.models.values() if m.shares is None)


@register_for_messages
class Catalogue(_Strict):
    """`models.yaml`."""

    models: dict[str, Model]
    presets: dict[str, Preset]

    @model_validator(mode="after")
    def _names_exist(self) -> Catalogue:
        for name, preset in self.presets.items():
            for role, member in preset.models.items():
                if member.use not in self.models:
                    raise ValueError(f"presets.{name}.models.{role} uses {member.use!r}, which is not among `models`")
                owner = preset.models.get(member.shares or role)
                if owner is None or owner.use != member.use or (member.shares and owner.shares):
                    raise ValueError(f"presets.{name}.models.{role} shares {member.shares!r}: no engine of its model")
        return self

    def by_repository(self, repository: str) -> Model | None:
        """The entry of a Hugging Face repository."""
        return next((model for model in self.models.values() if model.repository == repository), None)


@cache
def catalogue() -> Catalogue:
    """What `models.yaml` says."""
    return read_yaml_model(CATALOGUE, Catalogue, "`models` and `presets`")


def is_commit(revision: str | None) -> bool:
    """Whether it names one state of a repository for ever."""
    return revision is not None and COMMIT.fullmatch(revision) is not None


def preset(name: str) -> Preset:
    """Raises UsageError, naming all, for one that is not there."""
    found = catalogue().presets.get(name)
    if found is None:
        raise UsageError(f"pool.preset {name!r} is not known: {', '.join(catalogue().presets)} (`adrs models list`)")
    return found


def expand(config: RunConfig, lock: Lock | None = None) -> RunConfig:
    """The config with `models` and `pool.models` filled from its preset, and revisions from the lock.

    What the config sets itself wins, key by key. A model to which the config gives a base_url gets no engine; one to
    which it gives another model keeps the preset's replicas alone. The result names no preset, so that it stays the
    same when it is expanded again. Raises UsageError for a preset that is not known, and for a result that is no valid
    config.
    """
    name = config.pool.preset
    if name is not None:
        config = parse_config(_completed(config, preset(name)), f"pool.preset {name}")
    return config if lock is None else pin(config, lock)


def _completed(config: RunConfig, chosen: Preset) -> dict[str, Any]:
    # What was not set is left out, so that defaults do not count as wishes.
    data: dict[str, Any] = config.model_dump(exclude_unset=True)
    kind = data.get("generator", {}).get("kind", "openai")
    if kind != "openai":
        raise UsageError(f"pool.preset serves models, which generator.kind {kind} does not ask: remove one")
    pool = data.get("pool", {})
    models, engines = _filled(chosen, data.get("models", {}), pool.get("models", {}))
    return {
        **data,
        "generator": {**data.get("generator", {}), "kind": "openai"},
        "models": models,
        "pool": {"max_in_flight": chosen.max_in_flight, **pool, "preset": None, "models": engines},
    }


def pin(config: RunConfig, lock: Lock) -> RunConfig:
    """The config with the commits that the lock has of its engines' revisions."""
    engines = dict(config.pool.models)
    for name, engine in engines.items():
        commit = lock.commit(engine.source or config.models[name].model, engine.revision)
        if commit is not None:
            engines[name] = engine.model_copy(update={"revision": commit})
    if engines == config.pool.models:
        return config
    return config.model_copy(update={"pool": config.pool.model_copy(update={"models": engines})})


def footprints(config: RunConfig) -> dict[str, Footprint]:
    """What is known of the memory of the pool's models, by name."""
    served = {name: engine.source or config.models[name].model for name, engine in config.pool.models.items()}
    known = {name: catalogue().by_repository(source) for name, source in served.items()}
    return {name: model.footprint for name, model in known.items() if model is not None}


def _filled(
    chosen: Preset, models: Mapping[str, Any], engines: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sections `models` and `pool.models`: the preset's, under what the config says."""
    ours = {name for name, member in chosen.models.items() if _is_ours(member, models.get(name, {}), engines.get(name))}
    asked: dict[str, Any] = dict.fromkeys(chosen.models) | dict(models)
    served = dict(engines)
    for name, member in chosen.models.items():
        own, engine, model = models.get(name, {}), engines.get(name, {}), catalogue().models[member.use]
        if name in ours:
            asked[name] = {**_request(member, model, chosen), **own}
            if member.shares not in ours or name in engines:
                served[name] = {**_engine(member, model), **engine}
        elif own.get("base_url") is None:
            served[name] = {**_shape(member), **engine}
    return asked, served


def _is_ours(member: Member, own: Mapping[str, Any], engine: Mapping[str, Any] | None) -> bool:
    """Whether the preset's model is still meant: the config gives neither an address nor another model."""
    repository = catalogue().models[member.use].repository
    elsewhere = own.get("base_url") is not None
    return not elsewhere and (own.get("model", repository) == repository or "source" in (engine or {}))


def _shape(member: Member) -> dict[str, Any]:
    return {"replicas": member.replicas, "tensor_parallel": member.tensor_parallel}


def _engine(member: Member, model: Model) -> dict[str, Any]:
    """`pool.models.<name>`; the quantisation stands in the model's own config.json, where engines read it."""
    fields = {"source": model.repository, "revision": model.revision, **_shape(member)}
    return fields if model.reasoning_parser is None else {**fields, "reasoning_parser": model.reasoning_parser}


def _request(member: Member, model: Model, chosen: Preset) -> dict[str, Any]:
    """`models.<name>`; a request occupies its share of the replica's GPUs when the replica is full."""
    asked = member.model_dump(exclude={"use", "shares", "replicas", "tensor_parallel"})
    return {
        "model": model.repository,
        **asked,
        "temperature": model.temperature,
        "top_p": model.top_p,
        "extra_body": dict(model.extra_body),
        "gpus": member.tensor_parallel / chosen.max_in_flight,
    }
