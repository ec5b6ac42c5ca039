"""The snapshots of each split: a network, true counters, and readings of them that something went wrong with.

They come in groups of one network; each snapshot meets one family of perturbations, and every group all four.
`train` and `validation` are Abilene under traffic matrices of their own; `test` is the recorded snapshots, or as many
generated ones where the recording is missing; `stress` leaves the ranges of the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from .network import Backbone, Floats, Network, abilene, generated
from .perturbation import FAMILIES, Bools, Family, Severity, perturb
from .traffic import Load, snapshots

SPLIT_ROWS = 12
TEST_GROUPS, TEST_ROWS = 3, 10
STRESS_ROWS = 8


@dataclass(frozen=True)
class Snapshots:
    """Rows of one network: what is true, what is read, and why they differ."""

    name: str
    seed: int
    network: Network
    truth: Floats
    """Mbit/s, rows x interfaces x (rx, tx)."""
    readings: Floats
    up: Bools
    """Which interfaces are reported up, rows x interfaces. In truth all are."""
    hit: Bools
    """Which interfaces the perturbation touched, rows x interfaces."""
    families: tuple[Family, ...]

    def row(self, i: int) -> Snapshots:
        """One of them by itself."""
        here = slice(i, i + 1)
        return Snapshots(
            name=f"{self.name}-{i}",
            seed=100 * self.seed + i,
            network=self.network,
            truth=self.truth[here],
            readings=self.readings[here],
            up=self.up[here],
            hit=self.hit[here],
            families=self.families[here],
        )


@cache
def train() -> tuple[Snapshots, ...]:
    """Four groups for the search."""
    return tuple(_generated(f"train-{i}", 1_000 + i, abilene(), SPLIT_ROWS) for i in range(4))


@cache
def validation() -> tuple[Snapshots, ...]:
    """Four other groups for the choice of a champion."""
    return tuple(_generated(f"validation-{i}", 2_000 + i, abilene(), SPLIT_ROWS) for i in range(4))


@cache
def test_stand_in() -> tuple[Snapshots, ...]:
    """As many snapshots as are recorded."""
    return tuple(_generated(f"test-generated-{i}", 3_000 + i, abilene(), TEST_ROWS) for i in range(TEST_GROUPS))


def test(network: Network, truth: Floats) -> tuple[Snapshots, ...]:
    """The recorded snapshots in their order, perturbed by our own generator."""
    parts = np.split(truth, TEST_GROUPS)
    return tuple(_perturbed(f"test-recorded-{i}", 3_000 + i, network, part, Severity()) for i, part in enumerate(parts))


@cache
def stress() -> tuple[Snapshots, ...]:
    """Heavier and other faults, other networks, idle links."""
    return (
        _generated("stress-heavy", 4_000, abilene(), STRESS_ROWS, Severity(interface=0.4, router=0.4)),
        _generated("stress-both-ends", 4_001, abilene(), STRESS_ROWS, Severity(both_ends=True)),
        _generated("stress-half-down", 4_002, abilene(), STRESS_ROWS, Severity(interface=0.6, router=0.5)),
        _generated("stress-idle", 4_003, abilene(), STRESS_ROWS, load=Load(total_mbps=5.0, idle=0.5)),
        _generated("stress-40-routers", 4_004, generated(40, 4_004), STRESS_ROWS, relabel=True),
        _generated("stress-status", 4_005, abilene(), STRESS_ROWS, Severity(status=0.2), relabel=True),
    )


def _generated(
    name: str,
    seed: int,
    backbone: Backbone,
    rows: int,
    severity: Severity = Severity(),
    load: Load = Load(),
    relabel: bool = False,
) -> Snapshots:
    truth = snapshots(backbone, rows, seed, load)
    network = backbone.network
    if relabel:
        network, order = network.relabelled(seed)
        truth = truth[:, order]
    return _perturbed(name, seed, network, truth, severity)


def _perturbed(name: str, seed: int, network: Network, truth: Floats, severity: Severity) -> Snapshots:
    # The second word keeps this generator apart from the one of the traffic under the same seed.
    rng = np.random.default_rng([seed, 1])
    families = [cast(Family, FAMILIES[i % len(FAMILIES)]) for i in rng.permutation(truth.shape[0])]
    readings, hit, up = perturb(network, truth, families, rng, severity)
    return Snapshots(name, seed, network, truth, readings, up, hit, tuple(families))
