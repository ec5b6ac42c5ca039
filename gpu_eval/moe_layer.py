"""Step latency of a placement, measured on one device that plays every rank in turn.

A rank's time is the median of its replays (`MoeRanks`) plus what dispatch and combine take by the network model. A
layer takes as long as its slowest rank; that rank is picked on the first half of each rank's replays and its time read
from the second, because the maximum of noisy times lies above the time of the maximum. A step is the sum of its layers.

Rows here are (window, layer) pairs, layers in the sense of `cost_model.step_seconds`: a placement [R, P] and the tokens
[R, E] of one step in each. `sample_rows` draws them. Prefill and decode are measured apart, by their tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .balance import slot_loads
from .communication import Network, Traffic, exchange_seconds, expected_traffic
from .cost_model import CostModel, Counts, Floats
from .moe_ranks import MoeRanks
from .shapes import Shape
from .statistics import spearman

__all__ = [
    "BUDGET_S",
    "MoeRanks",
    "Placement",
    "StepMeasurement",
    "measure_step",
    "measure_steps",
    "rank_order_stability",
    "sample_rows",
    "whole_tokens",
]

Ints = npt.NDArray[np.int64]
Mode = Literal["screening", "final"]
BUDGET_S: dict[Mode, float] = {"screening": 15.0, "final": 90.0}
"""Seconds that the rows of one placement may take by default."""
TOP_RANKS = 4
RANDOM_RANKS = 4
"""Ranks that screening measures per row: the slowest by the cost model, and others to catch what the model misses."""


@dataclass(frozen=True, slots=True)
class Placement:
    """What is measured: `phy2log` [R, P], shares of tokens `split` [R, P] (None: equal), and `traffic` of the rows'
    tokens where these are known one by one (None: the expectation)."""

    phy2log: Ints
    split: Floats | None = None
    traffic: Traffic | None = None


@dataclass(frozen=True, slots=True)
class StepMeasurement:
    """Measured rows of one placement. Entries of ranks that were not measured are None."""

    device: str
    kernel: str
    precision: str
    size: str
    network: str
    """Whose dispatch and combine were added; these are not measured."""
    mode: Mode
    rows: tuple[int, ...]
    """Indices of the rows measured, in order of measuring; the tuples below follow it."""
    layer_s: tuple[float, ...]
    slowest_rank: tuple[int, ...]
    rank_s: tuple[tuple[float | None, ...], ...]
    """[rows, G]: dispatch, experts and combine; for a heat map."""
    experts_s: tuple[tuple[float | None, ...], ...]
    """[rows, G]: the experts alone, medians over all replays."""
    total_s: float
    planned_rows: int
    budget_s: float
    spent_s: float
    model_error: float | None
    """Median of |model / measured - 1| over the measured ranks' experts; None without a model."""

    @property
    def complete(self) -> bool:
        """Whether every planned row fitted the budget."""
        return len(self.rows) == self.planned_rows

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "complete": self.complete}


def sample_rows(
    windows: int, layers: int, windows_taken: int, layers_taken: int, seed: int | Sequence[int]
) -> tuple[Ints, Ints]:
    """Window and layer of each row: all pairs of `windows_taken` windows and `layers_taken` layers, drawn by `seed`.

    Takes all where there are fewer. ValueError unless at least one of each is taken.
    """
    if min(windows, layers, windows_taken, layers_taken) < 1:
        raise ValueError(
            f"{windows_taken} of {windows} windows, {layers_taken} of {layers} layers: expected at least 1"
        )
    rng = np.random.default_rng(seed)
    chosen = [
        np.sort(rng.choice(total, min(total, taken), replace=False)).astype(np.int64)
        for total, taken in ((windows, windows_taken), (layers, layers_taken))
    ]
    return np.repeat(chosen[0], len(chosen[1])), np.tile(chosen[1], len(chosen[0]))


def whole_tokens(slot_tokens: Counts) -> Ints:
    """Expected tokens [R, P] as whole ones, each within 1 of its expectation and their sum within 1/2; 0 stays 0."""
    ends = np.rint(np.cumsum(slot_tokens, axis=1)).astype(np.int64)
    return np.diff(ends, axis=1, prepend=0)


def measure_step(
    ranks: MoeRanks,
    phy2log: Ints,
    tokens: Counts,
    shape: Shape,
    network: Network,
    *,
    mode: Mode = "final",
    model: CostModel | None = None,
    split: Floats | None = None,
    traffic: Traffic | None = None,
    budget_s: float | None = None,
    seed: int | Sequence[int] = 0,
) -> StepMeasurement:
    """`measure_steps` of one placement."""
    placements = [Placement(phy2log, split, traffic)]
    return measure_steps(
        ranks, placements, tokens, shape, network, mode=mode, model=model, budget_s=budget_s, seed=seed
    )[0]


def measure_steps(
    ranks: MoeRanks,
    placements: Sequence[Placement],
    tokens: Counts,
    shape: Shape,
    network: Network,
    *,
    mode: Mode = "final",
    model: CostModel | None = None,
    budget_s: float | None = None,
    seed: int | Sequence[int] = 0,
    clock: Callable[[], float] = time.monotonic,
) -> tuple[StepMeasurement, ...]:
    """Latencies of several placements on the same rows of `tokens` [R, E].

    Every row is measured for all placements before the next, in alternating order, so that drift of clocks meets all of
    them; so they also complete the same rows, drawn in a seeded order, when the budget ends the work. `final` measures
    every rank, `screening` those that `model` expects to be slowest and some others. `budget_s` (default: BUDGET_S) is
    for each placement; a row that is not expected to fit is not begun, but the first always is. ValueError, one line,
    when the parts do not fit each other.
    """
    _check(ranks, placements, tokens, shape, mode, model)
    budget = BUDGET_S[mode] if budget_s is None else budget_s
    played = [_Played(ranks, placement, tokens, shape, network, mode, model) for placement in placements]
    begun = last = clock()
    longest = 0.0
    for turn, row in enumerate(np.random.default_rng(seed).permutation(len(tokens)).tolist()):
        if turn and last - begun + longest > budget * len(placements):
            break
        for one in played if turn % 2 == 0 else reversed(played):
            one.measure(row, seed)
        now = clock()
        longest, last = max(longest, now - last), now
    spent = (last - begun) / max(1, len(placements))
    return tuple(one.result(budget, spent) for one in played)


def _check(
    ranks: MoeRanks,
    placements: Sequence[Placement],
    tokens: Counts,
    shape: Shape,
    mode: Mode,
    model: CostModel | None,
) -> None:
    if ranks.slots != shape.slots_per_gpu:
        raise ValueError(f"the ranks have {ranks.slots} slots, the shape {shape.slots_per_gpu} per GPU")
    if tokens.ndim != 2 or not len(tokens) or tokens.shape[1] != shape.experts:
        raise ValueError(f"tokens have shape {list(tokens.shape)}, expected [rows, {shape.experts}]")
    for placement in placements:
        if placement.phy2log.shape != (len(tokens), shape.slots):
            raise ValueError(
                f"a placement has shape {list(placement.phy2log.shape)}, expected {[len(tokens), shape.slots]}"
            )
    if mode == "screening" and model is None:
        raise ValueError("screening picks ranks by a cost model and got none: calibrate one, or measure in final mode")
    if model is not None and (model.size, model.precision) != (ranks.size, ranks.precision):
        raise ValueError(
            f"the cost model is for {model.size.name} in {model.precision}, the ranks run {ranks.size.name} "
            f"in {ranks.precision}"
        )


class _Played:
    """One placement while its rows are measured."""

    def __init__(
        self,
        ranks: MoeRanks,
        placement: Placement,
        tokens: Counts,
        shape: Shape,
        network: Network,
        mode: Mode,
        model: CostModel | None,
    ) -> None:
        loads = slot_loads(placement.phy2log, tokens, placement.split)
        traffic = placement.traffic or expected_traffic(placement.phy2log, loads, shape, ranks.size.top_k)
        self._ranks, self._network, self._mode, self._planned = ranks, network.name, mode, len(tokens)
        self._tokens = whole_tokens(loads).reshape(len(tokens), shape.gpus, -1)
        self._exchange_s = exchange_seconds(traffic, shape, ranks.size, network)
        self._model_s = None if model is None else model.rank_seconds(self._tokens)
        self._rows: list[int] = []
        self._slowest: list[tuple[int, float]] = []
        self._experts_s: list[Floats] = []

    def measure(self, row: int, seed: int | Sequence[int]) -> None:
        experts_s = np.full(len(self._tokens[row]), np.nan)
        halves = np.full((2, len(experts_s)), -np.inf)
        for rank in self._chosen(row, seed):
            seconds = self._ranks.seconds(self._tokens[row, rank].tolist())
            half = len(seconds) // 2
            experts_s[rank] = np.median(seconds)
            halves[:, rank] = np.median(seconds[:half]), np.median(seconds[half:])
        picked, read = halves + self._exchange_s[row]
        slowest = int(picked.argmax())
        self._rows.append(row)
        self._experts_s.append(experts_s)
        self._slowest.append((slowest, float(read[slowest])))

    def _chosen(self, row: int, seed: int | Sequence[int]) -> list[int]:
        gpus = len(self._tokens[row])
        if self._mode == "final" or self._model_s is None or gpus <= TOP_RANKS + RANDOM_RANKS:
            return list(range(gpus))
        by_model = np.argsort(-(self._model_s[row] + self._exchange_s[row]), kind="stable")
        rng = np.random.default_rng([*np.atleast_1d(seed).tolist(), row])
        others = rng.choice(by_model[TOP_RANKS:], RANDOM_RANKS, replace=False)
        return [*by_model[:TOP_RANKS].tolist(), *others.tolist()]

    def result(self, budget_s: float, spent_s: float) -> StepMeasurement:
        rows = self._rows
        experts_s = np.array(self._experts_s)
        error: float | None = None
        if self._model_s is not None:
            measured = experts_s > 0  # neither nan nor a rank without tokens
            errors = np.abs(self._model_s[rows][measured] / experts_s[measured] - 1.0)
            error = float(np.median(errors)) if errors.size else None
        return StepMeasurement(
            device=self._ranks.device_name,
            kernel=self._ranks.kernel.name,
            precision=self._ranks.precision,
            size=self._ranks.size.name,
            network=self._network,
            mode=self._mode,
            rows=tuple(rows),
            layer_s=tuple(seconds for _rank, seconds in self._slowest),
            slowest_rank=tuple(rank for rank, _seconds in self._slowest),
            rank_s=_with_gaps(experts_s + self._exchange_s[rows]),
            experts_s=_with_gaps(experts_s),
            total_s=sum(seconds for _rank, seconds in self._slowest),
            planned_rows=self._planned,
            budget_s=budget_s,
            spent_s=spent_s,
            model_error=error,
        )


def _with_gaps(matrix: Floats) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(None if np.isnan(value) else float(value) for value in row) for row in matrix)


def rank_order_stability(first: Sequence[StepMeasurement], second: Sequence[StepMeasurement]) -> float:
    """Spearman correlation of two runs' total times over the same placements: 1 when both rank them alike.

    ValueError when the runs differ in number or rows, or have fewer than two placements.
    """
    if {run.rows for run in first} != {run.rows for run in second} or len({run.rows for run in first}) != 1:
        raise ValueError("the two runs measured different rows, expected the same seed and a budget that all rows fit")
    return spearman([run.total_s for run in first], [run.total_s for run in second])
