"""Parent rules: which elite becomes a parent, who joins it in a crossover, and whom a prompt shows beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from adrs_ray.config import ParentsName, SelectorConfig
from adrs_ray.selector import Children, Elite, ParentContext
from adrs_ray.selector.behaviour import LARGEST, Quantiles, rows, widths

ParentRule: TypeAlias = Callable[[Sequence[Elite], SelectorConfig, ParentContext, np.random.Generator], Elite]

_PINNED_SHARE = 1 / 3


def choose_parent(
    elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator
) -> Elite:
    """One parent from a non-empty archive: every third time a pinned one if there is any, else by `config.parents`."""
    pinned = [elite for elite in elites if elite.candidate in context.pinned]
    if pinned and rng.random() < _PINNED_SHARE:
        return _uniform(pinned, rng)
    return PARENT_RULES[config.parents](elites, config, context, rng)


def explore_exploit(
    elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator
) -> Elite:
    """Explore, exploit or elite, as OpenEvolve does.

    With probability `exploration` any elite, all cells alike; with `exploitation` by rank of score, the chance falling
    linearly from best to worst (linear ranking, Baker 1985); otherwise the best one.
    """
    draw = rng.random()
    if draw < context.exploration:
        return _uniform(elites, rng)
    if draw < context.exploration + config.exploitation:
        return _by_linear_rank(elites, rng)
    return _ranked(elites)[0]


def softmax(elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator) -> Elite:
    """Boltzmann selection (de la Maza & Tidor 1993): chance ~ exp(score / (temperature * spread)).

    The spread is the standard deviation of the archive's scores, and the temperature falls geometrically from the first
    of `config.temperature` to the second with the budget used. Equal scores: all alike.
    """
    first, last = config.temperature
    temperature = first * (last / first) ** context.progress
    scores = np.array([elite.score for elite in elites])
    scores /= max(float(np.abs(scores).max()), 1e-300)  # so that no square overflows
    spread = float(scores.std())
    if spread == 0.0:
        return _uniform(elites, rng)
    return _drawn(elites, np.exp((scores - scores.max()) / (temperature * spread)), rng)


def lexicase(
    elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator
) -> Elite:
    """Epsilon-lexicase (La Cava, Spector & Danai 2016): cases in random order, each keeps those near its best.

    Near means within the median absolute deviation of all elites on that case; among those left at the end all are
    alike. Figures that are missing are the worst. Without cases: by linear rank of score.
    """
    width = widths(elites)[1]
    if width == 0:
        return _by_linear_rank(elites, rng)
    figures = np.nan_to_num(rows(elites, (0, width)), nan=-LARGEST)
    epsilon = np.median(np.abs(figures - np.median(figures, axis=0)), axis=0)
    pool = np.arange(len(elites))
    for case in rng.permutation(width):
        column = figures[pool, case]
        pool = pool[column >= column.max() - epsilon[case]]
        if len(pool) == 1:
            break
    return elites[int(pool[rng.integers(len(pool))])]


def power_law(
    elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator
) -> Elite:
    """ShinkaEvolve (arXiv 2509.19349): chance ~ rank ** -power, the best elite has rank 1."""
    return _drawn(_ranked(elites), np.arange(1.0, len(elites) + 1.0) ** -config.power, rng)


def ucb(elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator) -> Elite:
    """UCB1 (Auer, Cesa-Bianchi & Fischer 2002), elites as arms: a child that improves on its parent is a success.

    The highest improved / tried + ucb * sqrt(ln(all tries) / tried); elites without children first, by score.
    """
    ranked = _ranked(elites)
    children = [context.children.get(elite.candidate, Children()) for elite in ranked]
    total = sum(child.tried for child in children)

    def bound(child: Children) -> float:
        if child.tried == 0:
            return math.inf
        return child.improved / child.tried + config.ucb * math.sqrt(math.log(total) / child.tried)

    return ranked[max(range(len(ranked)), key=lambda number: bound(children[number]))]


def _after_exploration(rule: ParentRule) -> ParentRule:
    """The rule, with the share `exploration` drawn uniformly before it is asked."""

    def explored(
        elites: Sequence[Elite], config: SelectorConfig, context: ParentContext, rng: np.random.Generator
    ) -> Elite:
        if rng.random() < context.exploration:
            return _uniform(elites, rng)
        return rule(elites, config, context, rng)

    return explored


PARENT_RULES: Mapping[ParentsName, ParentRule] = {
    "explore_exploit": explore_exploit,
    "softmax": _after_exploration(softmax),
    "lexicase": _after_exploration(lexicase),
    "power_law": _after_exploration(power_law),
    "ucb": _after_exploration(ucb),
}


def choose_partner(elites: Sequence[Elite], parent: Elite, rng: np.random.Generator) -> Elite | None:
    """A second parent for crossover, any other elite with equal chance; None when there is no other."""
    others = [elite for elite in elites if elite.candidate != parent.candidate]
    return others[int(rng.integers(len(others)))] if others else None


def choose_inspirations(
    elites: Sequence[Elite], parent: Elite, count: int, rng: np.random.Generator
) -> tuple[Elite, ...]:
    """At most `count` elites to show beside a parent, for strength and for difference in turn.

    First the best, then the one farthest from the parent and from those chosen (the largest least distance, in
    quantiles of descriptor and cases over these elites), then the best that is left, and so on. Never the parent nor
    the same program twice; among equals the generator decides.
    """
    order = rng.permutation(len(elites))
    pool = [elites[i] for i in order if elites[i].candidate != parent.candidate]
    shown = [parent, *pool]
    table = rows(shown, widths(shown))
    points = Quantiles(table)(table)
    distance = np.full(len(shown), np.inf)
    chosen: list[int] = []
    taken = {parent.fingerprint}
    latest = 0
    while len(chosen) < count:
        distance = np.minimum(distance, np.linalg.norm(points - points[latest], axis=1))
        free = [number for number, elite in enumerate(shown) if elite.fingerprint not in taken]
        if not free:
            break
        by_strength = len(chosen) % 2 == 0
        latest = max(free, key=lambda n: shown[n].score if by_strength else float(distance[n]))
        chosen.append(latest)
        taken.add(shown[latest].fingerprint)
    return tuple(shown[number] for number in chosen)


def _uniform(elites: Sequence[Elite], rng: np.random.Generator) -> Elite:
    return elites[int(rng.integers(len(elites)))]


def _ranked(elites: Sequence[Elite]) -> list[Elite]:
    """Best first; among equals the one that entered first."""
    return sorted(elites, key=lambda elite: -elite.score)


def _by_linear_rank(elites: Sequence[Elite], rng: np.random.Generator) -> Elite:
    return _drawn(_ranked(elites), np.arange(len(elites), 0, -1, dtype=float), rng)


def _drawn(elites: Sequence[Elite], weights: NDArray[np.float64], rng: np.random.Generator) -> Elite:
    """One by weight: what `rng.choice` draws, without its checks, which cost more than the draw."""
    chances = (weights / weights.sum()).cumsum()
    return elites[int((chances / chances[-1]).searchsorted(rng.random(), side="right"))]
