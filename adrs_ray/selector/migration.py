"""Migration between islands: who sends to whom, and which elites."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from adrs_ray.config import IslandsConfig
from adrs_ray.selector import Elite


def destination(island: int, config: IslandsConfig) -> int | None:
    """The island that receives the elites of `island`; None when nobody does."""
    if config.migration == "none" or config.count < 2:
        return None
    return (island + 1) % config.count


def is_due(decision: int, config: IslandsConfig) -> bool:
    """Whether a migration follows this decision (counted from 0)."""
    return config.migration != "none" and config.count > 1 and (decision + 1) % config.migration_interval == 0


def emigrants(elites: Sequence[Elite], already_sent: Collection[str], config: IslandsConfig) -> list[Elite]:
    """The best elites not sent before, best first, at most `migration_count`."""
    fresh = [elite for elite in elites if elite.candidate not in already_sent]
    return sorted(fresh, key=lambda elite: -elite.score)[: config.migration_count]
