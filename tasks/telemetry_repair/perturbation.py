"""What goes wrong with counters, drawn from a private generator.

The families are those of the public evaluator. Every reading first gets a noise of up to 2 %. Then

- `dropped`: an interface reads 0 both ways;
- `scaled`: rx and tx of an interface are each multiplied by a factor in 0.5 .. 0.8 or 1.2 .. 1.5;
- `correlated_dropped`, `correlated_scaled`: the same, to all interfaces of a router at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from .network import Floats, Network

Family: TypeAlias = Literal["dropped", "scaled", "correlated_dropped", "correlated_scaled"]
FAMILIES: tuple[Family, ...] = get_args(Family)

NOISE = 0.02
DOWN, UP = (0.5, 0.8), (1.2, 1.5)
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Severity:
    """How much goes wrong; the defaults are the public evaluator's."""

    interface: float = 0.2
    """Probability that an interface is hit, in the families that hit single ones."""
    router: float = 0.2
    """Probability that a router is hit, in the correlated families."""
    both_ends: bool = False
    """Whether single interfaces are hit together with the one at the other end."""
    status: float = 0.0
    """Probability that an interface that is up is reported down."""


def perturb(
    network: Network, truth: Floats, families: Sequence[Family], rng: np.random.Generator, severity: Severity
) -> tuple[Floats, Bools, Bools]:
    """Readings of true counters, both rows x interfaces x (rx, tx), one family per row.

    Also which interfaces were hit and which are reported up, rows x interfaces each.
    """
    rows = len(families)
    readings: Floats = truth * rng.uniform(1.0 - NOISE, 1.0 + NOISE, truth.shape)
    draws = rng.random((rows, network.size))
    if severity.both_ends:
        draws = np.minimum(draws, draws[:, network.peer])
    single = draws < severity.interface
    together = (rng.random((rows, len(network.routers))) < severity.router)[:, network.local]
    correlated = np.array([family.startswith("correlated") for family in families])
    hit = np.where(correlated[:, None], together, single)
    factors = np.where(rng.random(truth.shape) < 0.5, rng.uniform(*DOWN, truth.shape), rng.uniform(*UP, truth.shape))
    drops = np.array([family.endswith("dropped") for family in families])
    factors[drops] = 0.0
    readings[hit] *= factors[hit]
    return readings, hit, rng.random((rows, network.size)) >= severity.status
