"""The arms of an island: which (model, operator) pairs it may draw, and with which weight at first."""

from __future__ import annotations

from adrs_ray.config import RunConfig
from adrs_ray.selector.bandit import Arm

MUTATE: Arm = ("mutate", "mutate")
MAILBOX = "mailbox"
"""The model that people and coding agents are."""


def arms_of(config: RunConfig) -> dict[Arm, float]:
    """Arm -> weight. `config` is an island's own (`RunConfig.for_island`)."""
    generator = config.generator
    if generator.kind == "mutate":
        crossover = config.selector.crossover
        return {MUTATE: 1.0 - crossover, ("mutate", "crossover"): crossover}
    total = sum(model.weight for model in config.models.values())
    models = {name: model.weight / total for name, model in config.models.items() if model.weight > 0}
    if generator.kind == "mailbox":
        models = {MAILBOX: 1.0}
    arms: dict[Arm, float] = {
        (model, operator): share * weight
        for model, share in models.items()
        for operator, weight in generator.operators.items()
        if operator != "mutate" and share * weight > 0
    }
    if generator.operators.get("mutate", 0.0) > 0:
        arms[MUTATE] = generator.operators["mutate"]
    return arms


def strong_model(config: RunConfig) -> str | None:
    """The model for seeds and paradigm shifts; None where there is no model."""
    if config.generator.kind == "mutate":
        return None
    if config.generator.kind == "mailbox":
        return MAILBOX
    if config.generator.strong in config.models:
        return config.generator.strong
    return "strong" if "strong" in config.models else list(config.models)[-1]


def small_model(config: RunConfig) -> str | None:
    """The model for variants and scratchpads: the first one; None where there is no model."""
    if config.generator.kind == "mutate":
        return None
    return MAILBOX if config.generator.kind == "mailbox" else next(iter(config.models))
