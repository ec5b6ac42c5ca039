"""What goes wrong on one island: it converges early, stands still, drifts, fails in storms, or turns knobs only."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from adrs_ray.candidate import FailureKind
from adrs_ray.outcome import Outcome
from adrs_ray.supervision.detectors import Finding, InterventionKind, figure, most_common, percent
from adrs_ray.supervision.history import IslandHistory
from adrs_ray.supervision.significance import drought, lower, share_rose

LEAST_VALID = 15
"""Valid candidates (of each of two windows, where two are compared) below which nothing is said of them."""

OCCUPANCY = 0.25
"""Elites per place that could be taken (capacity, or valid candidates where those are fewer)."""
EFFECTIVE_PARENTS = 4.0
"""Exponential of the entropy of who was the first parent."""
DOMINANCE = 0.8
"""Share of recent valid candidates' ancestry that goes back to one program of before the window."""

CHANCE = 0.01
"""Of so long a wait for a gain."""
FLOOR = 0.02
"""Gains per candidate that a living search shows at the least: 228 candidates without one are always too many."""
RATE_WINDOWS = 4
"""Windows before the last gain over which the rate of gains is taken: it falls as a search goes on."""

DRIFT_CHANCE = 0.001
GROWTH = 1.1
"""Factor by which the median size or distance must have grown."""
GROWTH_CHANCE = 0.01

STORM_SHARE = 0.4
STORM_CHANCE = 0.001
STORM_ALWAYS = 0.8
"""Share of one failure kind that is a storm whatever was before."""
LEAST_FAILURES = 10

SHALLOW_SHARE = 0.8

_WIDEN: tuple[InterventionKind, ...] = ("temperature", "operators", "migrate", "shift", "restart")


def early_convergence(history: IslandHistory, window: int) -> Finding | None:
    """Two of three, after two windows: few places of the archive taken, few parents, one ancestor for nearly all.

    Ancestry is followed to the programs that stood before the window, so a run with a single seed is no case of it. A
    candidate with two parents owes half to each.
    """
    recent = history.outcomes[-window:]
    valid = [outcome for outcome in recent if outcome.score is not None]
    if history.terminal < 2 * window or len(valid) < LEAST_VALID:
        return None
    known = max(1, sum(outcome.score is not None for outcome in history.outcomes))
    occupancy = len(history.elites) / min(history.capacity, known)
    parents = _effective(Counter(outcome.parents[0] for outcome in recent if outcome.parents).values())
    shares = _ancestry(recent)
    ancestor = max(shares, key=lambda name: shares[name])
    signs = (occupancy < OCCUPANCY, parents < EFFECTIVE_PARENTS, shares[ancestor] >= DOMINANCE)
    if sum(signs) < 2:
        return None
    figures = {
        "elites": float(len(history.elites)),
        "capacity": float(history.capacity),
        "effective_parents": parents,
        "dominance": 100 * shares[ancestor],
    }
    evidence = (
        f"{len(history.elites)} elites for {history.capacity} places after {history.terminal} candidates, "
        f"{figure(parents)} parents in effective use, {figure(figures['dominance'])} % of the last {len(valid)} valid "
        f"candidates' ancestry from {ancestor}"
    )
    return Finding("early_convergence", history.island, evidence, figures, _WIDEN)


def _effective(counts: Iterable[int]) -> float:
    """Exponential of the Shannon entropy: as many equally frequent ones would be as diverse. 0 for none."""
    known = list(counts)
    total = sum(known)
    return math.exp(-sum(n / total * math.log(n / total) for n in known)) if total else 0.0


def _ancestry(outcomes: Sequence[Outcome]) -> Mapping[str, float]:
    """Shares in the valid candidates of those who are their ancestors and stand before all of `outcomes`."""
    owed: dict[str, dict[str, float]] = {}
    shares: Counter[str] = Counter()
    for outcome in outcomes:
        own: dict[str, float] = {}
        for parent in outcome.parents or (outcome.candidate,):
            for ancestor, part in owed.get(parent, {parent: 1.0}).items():
                own[ancestor] = own.get(ancestor, 0.0) + part / max(1, len(outcome.parents))
        owed[outcome.candidate] = own
        if outcome.score is not None:
            shares.update(own)
    total = sum(shares.values())
    return {ancestor: part / total for ancestor, part in shares.items()}


def stagnation(history: IslandHistory, window: int) -> Finding | None:
    """No better best for so long that the island's own rate of gains gives that with a chance below 1 %.

    The rate is that of the windows before the last gain, uncertain as it is (`significance.drought`); whatever it is,
    a rate below the floor counts as the floor.
    """
    waited = history.since_gain
    if waited < window:
        return None
    chance = (1 - FLOOR) ** waited
    rate = 0.0
    if len(history.gains) > 1:
        last = history.gains[-1]
        start = max(history.gains[0], last - RATE_WINDOWS * window)
        gains = sum(start < position <= last for position in history.gains)
        rate = gains / (last - start)
        chance = min(chance, drought(gains, last - start, waited))
    if chance >= CHANCE:
        return None
    figures = {"waited": float(waited), "rate": max(rate, FLOOR), "chance": chance}
    evidence = (
        f"no gain in {waited} candidates; at {figure(figures['rate'])} gains per candidate "
        f"{'before' if rate > FLOOR else '(the floor)'} the chance of that is {figure(chance)}"
    )
    return Finding("stagnation", history.island, evidence, figures, (*_WIDEN, "ask_hint"))


def drift(history: IslandHistory, window: int) -> Finding | None:
    """Valid candidates score lower than those of the window before, while they grow or move away from the seed."""
    now, before = (
        [outcome for outcome in part if outcome.score is not None]
        for part in (history.outcomes[-window:], history.outcomes[-2 * window : -window])
    )
    if min(len(now), len(before)) < LEAST_VALID:
        return None
    scores, scores_before = ([o.score for o in part if o.score is not None] for part in (now, before))
    chance = lower(scores, scores_before)
    if chance >= DRIFT_CHANCE or median(scores) >= median(scores_before):
        return None
    known = {elite.candidate: elite.descriptor for elite in history.elites} | dict(history.descriptors)
    figures = {"median_before": median(scores_before), "median": median(scores), "chance": chance}
    grown: list[str] = []
    for axis, name in enumerate(("size", "distance")):
        values, values_before = (
            [known[o.candidate][axis] for o in part if len(known.get(o.candidate, ())) > axis] for part in (now, before)
        )
        if min(len(values), len(values_before)) < LEAST_VALID // 2:
            continue
        start, end = median(values_before), median(values)
        if end > GROWTH * start and lower(values_before, values) < GROWTH_CHANCE:
            figures |= {f"{name}_before": start, name: end}
            grown.append(f"median {name} from {figure(start)} to {figure(end)}")
    if not grown:
        return None
    evidence = (
        f"median score of valid candidates from {figure(figures['median_before'])} to {figure(figures['median'])} "
        f"(by chance {figure(chance)}), {' and '.join(grown)}"
    )
    return Finding("drift", history.island, evidence, figures, ("temperature", "operators", "restart"))


def failure_storm(history: IslandHistory, window: int) -> Finding | None:
    """One kind of failure takes 40 % of the window and clearly more than before, or 80 % whatever was before.

    That more is held back by a gate than before it closed is its purpose: of `gated` 80 % alone is a storm.
    """
    recent, earlier = history.outcomes[-window:], history.outcomes[:-window]
    kinds = Counter(outcome.failure for outcome in recent if outcome.failure is not None)
    if kinds[FailureKind.GATED] < STORM_ALWAYS * len(recent):
        del kinds[FailureKind.GATED]
    if not kinds:
        return None
    kind, count = kinds.most_common(1)[0]
    share = count / len(recent)
    if count < LEAST_FAILURES or share < STORM_SHARE:
        return None
    before = sum(outcome.failure is kind for outcome in earlier)
    if share < STORM_ALWAYS and share_rose(count, len(recent), before, len(earlier)) >= STORM_CHANCE:
        return None
    figures = {
        "failures": float(count),
        "candidates": float(len(recent)),
        "failures_before": float(before),
        "candidates_before": float(len(earlier)),
    }
    detail = most_common(outcome.detail for outcome in recent if outcome.failure is kind)
    evidence = (
        f"{count} of the last {len(recent)} candidates ({percent(share)}) failed with {kind.value}, "
        f"{before} of {len(earlier)} before" + (f"; most often: {detail}" if detail else "")
    )
    return Finding("failure_storm", history.island, evidence, figures, _against(kind), kind.value)


def _against(kind: FailureKind) -> tuple[InterventionKind, ...]:
    if kind is FailureKind.DUPLICATE:
        return _WIDEN
    if kind in (FailureKind.INFRASTRUCTURE, FailureKind.BUDGET_EXHAUSTED):
        return ("ask_hint",)
    return ("temperature", "operators", "restart", "ask_hint")


def shallow_optimisation(history: IslandHistory, window: int) -> Finding | None:
    """Nearly all valid children of the window have the shape of an earlier program: only their constants are new."""
    seen: set[str] = set()
    start = len(history.outcomes) - window
    children = same = 0
    for index, outcome in enumerate(history.outcomes):
        if index >= start and outcome.score is not None and outcome.parents and outcome.shape:
            children += 1
            same += outcome.shape in seen
        if outcome.shape:
            seen.add(outcome.shape)
    if children < LEAST_VALID or same / children < SHALLOW_SHARE:
        return None
    figures = {"same_shape": float(same), "children": float(children)}
    evidence = (
        f"{same} of the last {children} valid children ({percent(same / children)}) differ from earlier programs in "
        "constants only"
    )
    return Finding("shallow_optimisation", history.island, evidence, figures, ("operators", "shift", "ask_hint"))
