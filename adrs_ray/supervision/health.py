"""Health of a search: all detectors over a history, the most urgent finding first. Pure."""

from __future__ import annotations

from adrs_ray.config import HealthConfig
from adrs_ray.supervision.detectors import Finding
from adrs_ray.supervision.detectors.island import (
    drift,
    early_convergence,
    failure_storm,
    shallow_optimisation,
    stagnation,
)
from adrs_ray.supervision.detectors.run import (
    budget_forecast,
    misaligned_objective,
    model_gone_bad,
    overfitting,
    simulator_exploited,
)
from adrs_ray.supervision.history import IslandHistory, RunHistory

__all__ = ["Finding", "examine_island", "examine_run"]

LEAST_WINDOW = 20
"""A shorter window of the config counts as this: detectors need some fifteen valid candidates to say anything."""

_OF_ISLANDS = (failure_storm, early_convergence, stagnation, drift, shallow_optimisation)
_OF_RUNS = (model_gone_bad, budget_forecast, overfitting, simulator_exploited, misaligned_objective)


def examine_island(history: IslandHistory, config: HealthConfig) -> tuple[Finding, ...]:
    """What is wrong with an island, in the order failure_storm, early_convergence, stagnation, drift,
    shallow_optimisation; () when `health.enabled` is off. Costs O(outcomes + window ** 2)."""
    if not config.enabled:
        return ()
    window = max(config.window, LEAST_WINDOW)
    findings = (detector(history, window) for detector in _OF_ISLANDS)
    return tuple(finding for finding in findings if finding is not None)


def examine_run(history: RunHistory, config: HealthConfig) -> tuple[Finding, ...]:
    """What is wrong with a run, in the order model_gone_bad, budget_forecast, overfitting, simulator_exploited,
    misaligned_objective; () when `health.enabled` is off."""
    if not config.enabled:
        return ()
    findings = (detector(history) for detector in _OF_RUNS)
    return tuple(finding for finding in findings if finding is not None)
