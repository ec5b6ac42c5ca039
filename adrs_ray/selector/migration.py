"""Migration between islands: who sends to whom, and which elites."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adrs_ray.config import IslandsConfig
from adrs_ray.selector import Elite


def targets(island: int, active: Sequence[int], config: IslandsConfig) -> tuple[int, ...]:
    """The islands that receive the elites of `island`; `active` are the numbers of those that run, in any order.

    ring: the next higher number, after the highest the lowest. star: the lowest number is the hub, which sends to all
    others and they to it. Nobody else active, or `none`: ().
    """
    others = sorted(set(active) - {island})
    if config.migration == "none" or not others:
        return ()
    if config.migration == "ring":
        return (next((number for number in others if number > island), others[0]),)
    hub = min(active)
    return tuple(others) if island == hub else (hub,)


def is_due(decision: int, active: Sequence[int], config: IslandsConfig) -> bool:
    """Whether a migration follows this decision (counted from 0)."""
    return config.migration != "none" and len(active) > 1 and (decision + 1) % config.migration_interval == 0


def emigrants(elites: Sequence[Elite], already_sent: Collection[str], config: IslandsConfig) -> list[Elite]:
    """The best elites not sent before, best first, at most `migration_count`."""
    fresh = [elite for elite in elites if elite.candidate not in already_sent]
    return sorted(fresh, key=lambda elite: -elite.score)[: config.migration_count]
