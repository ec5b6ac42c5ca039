"""Archives by the name that a config gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from adrs_ray.config import ArchiveName, SelectorConfig
from adrs_ray.selector import Archive
from adrs_ray.selector.cvt import CVTArchive
from adrs_ray.selector.grid import GridArchive
from adrs_ray.selector.pareto import ParetoArchive
from adrs_ray.selector.topk import TopKArchive

ARCHIVES: Mapping[ArchiveName, Callable[[SelectorConfig], Archive]] = {
    "grid": lambda config: GridArchive(config.bins, config.learn_bounds_from),
    "cvt": lambda config: CVTArchive(config.cells, config.learn_bounds_from),
    "topk": lambda config: TopKArchive(config.capacity),
    "pareto": lambda config: ParetoArchive(config.capacity),
}


def make_archive(config: SelectorConfig) -> Archive:
    """An empty archive as `config.archive` says."""
    return ARCHIVES[config.archive](config)
