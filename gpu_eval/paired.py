"""From seconds of paired calls to a ratio with its interval. Numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from gpu_eval.clocks import ClockReading, same_clock
from gpu_eval.invariants import IntArray
from gpu_eval.statistics import bootstrap_interval, median, quantile

Track = Literal["host", "device"]
"""`host`: input and output in host memory. `device`: both in device memory; launches and copies count in either."""
Seed = tuple[int, ...]
RESOLUTION = 0.01
"""Half width of a ratio's interval, relative to the ratio, from which on the ratio counts as known."""
SPEED_UP = 0.03
"""Share of its time that a program may save on values that it has seen, before it counts as caching them."""
PROBES = 8
MOST = 4
"""Times the asked number of pairs that may be made while the resolution is not reached."""
TICK_S = 1e-9
"""Least time that a call counts as, so that ratios exist."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of single calls: median with its 95 % bootstrap interval, and the 90th percentile."""

    median_s: float
    p90_s: float
    low_s: float
    high_s: float
    calls: int

    @classmethod
    def of(cls, seconds: Sequence[float], seed: int = 0) -> Timing:
        """Raises ValueError without seconds."""
        low, high = bootstrap_interval(seconds, seed=seed)
        return cls(median(seconds), quantile(seconds, 0.9), low, high, len(seconds))


@dataclass(frozen=True, slots=True)
class Pair:
    """Seconds per call of both programs in one ABBA or BAAB block, and the mean SM clocks of their halves, MHz."""

    candidate_s: tuple[float, ...]
    baseline_s: tuple[float, ...]
    candidate_mhz: float | None = None
    baseline_mhz: float | None = None

    @property
    def ratio(self) -> float:
        return max(median(self.candidate_s), TICK_S) / max(median(self.baseline_s), TICK_S)


@dataclass(frozen=True, slots=True)
class PairedTiming:
    """A candidate against a baseline, call beside call: `ratio` below 1 means that the candidate is faster."""

    candidate: Timing
    baseline: Timing
    ratio: float
    """Median over pairs of the ratio of their medians; `ratio_low`, `ratio_high`: its 95 % bootstrap interval."""
    ratio_low: float
    ratio_high: float
    resolution: float
    """Half the interval's width, relative to `ratio`."""
    reached: bool
    """Whether `resolution` is at most `RESOLUTION`; where it is not, `note` says so."""
    findings: tuple[str, ...] = ()
    """What the programs were caught at, one sentence each; see `gpu_eval.findings`."""
    clocks: tuple[ClockReading, ...] = ()
    note: str = ""
    pairs: int = 0
    dropped: int = 0
    """Pairs left out because the SM clocks of their halves differed."""
    candidate_events: Timing | None = None
    """Time between CUDA events round each call: without the launches that the host clock sees. A diagnostic."""
    baseline_events: Timing | None = None


def paired_timing(
    pairs: Sequence[Pair],
    findings: Sequence[str] = (),
    clocks: Sequence[ClockReading] = (),
    events: tuple[Sequence[float], Sequence[float]] = ((), ()),
    seed: int = 0,
) -> PairedTiming:
    """The figures of all pairs whose halves ran at one SM clock; of all pairs, with a note, where none did.

    Raises ValueError without pairs.
    """
    steady = _steady(pairs)
    kept = steady or list(pairs)
    ratio, low, high, resolution = _ratio(kept, seed)
    notes = []
    if not steady:
        notes.append(f"the SM clock changed in all of {len(pairs)} pairs, none was dropped")
    if not resolution <= RESOLUTION:
        figure = f"{resolution:.1%}" if np.isfinite(resolution) else "unknown"
        asked = f"{RESOLUTION:.0%} not reached"
        notes.append(f"resolution {figure} after {len(kept)} pairs, {asked}: more pairs or an idle machine would help")
    return PairedTiming(
        candidate=Timing.of([second for pair in kept for second in pair.candidate_s], seed),
        baseline=Timing.of([second for pair in kept for second in pair.baseline_s], seed),
        ratio=ratio,
        ratio_low=low,
        ratio_high=high,
        resolution=resolution,
        reached=not notes,
        findings=tuple(findings),
        clocks=tuple(clocks),
        note="; ".join(notes),
        pairs=len(kept),
        dropped=len(pairs) - len(kept),
        candidate_events=Timing.of(events[0], seed) if events[0] else None,
        baseline_events=Timing.of(events[1], seed) if events[1] else None,
    )


def _steady(pairs: Sequence[Pair]) -> list[Pair]:
    return [pair for pair in pairs if same_clock(pair.candidate_mhz, pair.baseline_mhz)]


def _ratio(pairs: Sequence[Pair], seed: int) -> tuple[float, float, float, float]:
    """`ratio`, `ratio_low`, `ratio_high` and `resolution` of a `PairedTiming` of these pairs."""
    ratios = [pair.ratio for pair in pairs]
    ratio = median(ratios)
    # One pair has no spread: nothing is known about how well its ratio repeats.
    low, high = bootstrap_interval(ratios, seed=seed) if len(ratios) > 1 else (0.0, float("inf"))
    return ratio, low, high, (high - low) / 2 / ratio


def secret_pattern(shape: Sequence[int], mean: float, seed: Sequence[int]) -> IntArray:
    """What is added to a load so that no two calls see the same numbers and all see the same load.

    int64 of `shape`, uniform from 0 to a thousandth of `mean`, at least to 1, from a generator seeded by `seed`.
    """
    scale = mean / 1000 if np.isfinite(mean) else 0.0
    most = int(min(max(scale, 1.0), 2.0**30))
    return np.random.default_rng(list(seed)).integers(0, most + 1, tuple(shape))


def collect(
    leg: Callable[[int, Seed], tuple[Sequence[float], float | None]],
    pairs: int,
    limit_s: float,
    clock: Callable[[], int],
    seed: int,
) -> list[Pair]:
    """Make `pairs` pairs; while the resolution is not reached, more within `limit_s`, up to `MOST` times as many.

    `leg(which, seed)` runs calls of the candidate (0) or the baseline (1) on values that follow from `seed` and gives
    the seconds of each and the SM clock after them. A pair is A B B A or B A A B, both programs on the same values.
    """
    done: list[Pair] = []
    begun = clock()
    while len(done) < pairs or (
        len(done) < MOST * pairs
        and clock() - begun < limit_s * 1e9
        and _ratio(_steady(done) or done, seed)[3] > RESOLUTION
    ):
        seconds: tuple[list[float], list[float]] = ([], [])
        clocks: tuple[list[float], list[float]] = ([], [])
        for number, which in enumerate((0, 1, 1, 0) if len(done) % 2 == 0 else (1, 0, 0, 1)):
            taken, mhz = leg(which, (seed, 1, len(done), number // 2))
            seconds[which].extend(taken)
            if mhz is not None:
                clocks[which].append(mhz)
        means = [sum(each) / len(each) if each else None for each in clocks]
        done.append(Pair(tuple(seconds[0]), tuple(seconds[1]), means[0], means[1]))
    return done


def probe_cache(call: Callable[[Seed], float], seed: int) -> str | None:
    """Whether `call(seed)`, seconds of a call on values that follow from `seed`, is faster on values seen before.

    A, B, A: the second A is compared with the faster of the two before it. Noise slows, and the first call after a
    pause finds cold caches, so beside their mean honest repeats would look fast; of three alike, each is the fastest
    once in three. What looks like a cache is tried once more. A sentence, or None. The sums of A's and B's seeds are
    equal: who picks a load by it picks one load for both.
    """
    for attempt in range(2):
        ratios = []
        for probe in range(PROBES):
            new, other = (seed, 2, attempt, probe, 0, 1), (seed, 2, attempt, probe, 1, 0)
            taken = [max(call(values), TICK_S) for values in (new, other, new)]
            ratios.append(taken[2] / min(taken[:2]))
            if sum(ratio >= 1 - SPEED_UP for ratio in ratios) > 1:
                return None  # two in eight keep the interval from lying below, whatever the others are
        if not caches(ratios):
            return None
    return f"values seen before are answered {1 - median(ratios):.0%} faster than new ones"


def caches(ratios: Sequence[float]) -> bool:
    """Whether calls on values seen before are faster than `SPEED_UP` beyond noise.

    `ratios`: seconds of a repeat over those of calls with new values beside it. Beyond noise: the whole 99 % interval
    of their median lies below 1 - `SPEED_UP`.
    """
    return bootstrap_interval(ratios, level=0.99)[1] < 1 - SPEED_UP
