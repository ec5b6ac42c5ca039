"""What the gate between two stages saves and loses: the table in docs/search.md.

    python -m tests.benchmarks.gate

Simulated candidates, 300 a search, 40 searches a row: normal dear scores that rise by one standard deviation over the
search, a cheap score that correlates with them, and 15 % broken programs whose scores lie up to 1,000 lower in both
stages. Beside the gate a line through the pairs (Theil and Sen) with normal residuals of their median deviation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from adrs_ray.cascade import WINDOW, Gate
from adrs_ray.config import CascadeConfig
from adrs_ray.fidelity import fit

CANDIDATES, SEARCHES, BROKEN = 300, 40, 0.15
AGREEMENTS = (0.0, 0.5, 0.7, 0.9, 0.98)
Chance = Callable[[list[tuple[float, float]], float], float]


def line_chance(pairs: list[tuple[float, float]], cheap: float) -> float:
    """By a line and its residuals."""
    xs, ys = np.array(pairs[-WINDOW:]).T
    line = fit(xs, ys)
    residuals = ys - line.offset - line.slope * xs
    spread = 1.4826 * float(np.median(np.abs(residuals - np.median(residuals)))) or 1e-9
    return 1 - NormalDist(line.offset + line.slope * cheap, spread).cdf(float(np.median(ys)))


def searched(agreement: float, chance: float, seed: int, by_line: bool) -> tuple[int, int, int, int]:
    """(held back, asked while closed, of the best tenth held back, of the best tenth asked while closed)."""
    rng, config = np.random.default_rng(seed), CascadeConfig(chance=chance)
    gate, pairs = Gate(config), list[tuple[float, float]]()
    dear = rng.normal(size=CANDIDATES) + np.linspace(0, 1, CANDIDATES)
    cheap = agreement * dear + math.sqrt(1 - agreement**2) * rng.normal(size=CANDIDATES)
    best = dear >= np.quantile(dear, 0.9)
    broken = rng.random(CANDIDATES) < BROKEN
    dear, cheap = dear - 1000 * broken * rng.random(CANDIDATES), cheap - 1000 * broken * rng.random(CANDIDATES)
    held = asked = lost = top = 0
    for i in range(CANDIDATES):
        draws = np.random.default_rng((seed, i))
        passes = gate.decide(float(cheap[i]), draws).passes
        if by_line and len(pairs) >= config.open_until:
            passes = line_chance(pairs, float(cheap[i])) >= chance or bool(draws.random() < config.random_pass)
        if len(pairs) >= config.open_until:
            held, asked = held + (not passes), asked + 1
            lost, top = lost + (best[i] and not broken[i] and not passes), top + (best[i] and not broken[i])
        if passes:
            pairs.append((float(cheap[i]), float(dear[i])))
            gate.learn(*pairs[-1])
    return held, asked, lost, top


def row(agreement: float, chance: float) -> str:
    cells = [f"{agreement:g}", f"{chance:g}"]
    for by_line in (False, True):
        held, asked, lost, top = np.sum(
            [searched(agreement, chance, seed, by_line) for seed in range(SEARCHES)], axis=0
        )
        cells += [f"{100 * held / asked:.0f} %", f"{100 * lost / top:.1f} %"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    print("| correlation | `chance` | held back | best tenth lost | line: held back | line: best tenth lost |")
    print("|---" * 6 + "|")
    for chance in (0.1, 0.3):
        for agreement in AGREEMENTS:
            print(row(agreement, chance), flush=True)


if __name__ == "__main__":
    main()
