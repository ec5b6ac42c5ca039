"""The trusted side: the wall time of a served trace, by the cost model or with steps measured on a device.

Of a case, T is the wall time under the candidate, N under the initial placement to the end, and I what is proven to be
the least:

    saved = (N - T) / (N - I), at least -1        score = mean over phases of the mean of their cases

0 is never changing anything, 1 cannot be beaten. Steps differ by a factor of 20 between prefill and decode, and between
4 and 50 % of a case's time can be saved: as shares of that, cases weigh alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, RewardHacking, Split, quality
from gpu_eval.serving import Phase, ServingResult

from . import game
from .measuring import FINAL, SCREENING, Measurer, Pair
from .reference import Reference, reference
from .scenario import Scenario
from .splits import SCENARIOS

__all__ = ["Measured", "Simulated", "for_stage"]

WORST = -1.0
"""What a case counts at least: one bad case must not outweigh all others."""


def for_stage(stage: str) -> Simulated:
    """The judge of a stage. The device of the GPU stages is asked for when they first measure."""
    return {
        "model": Simulated(),
        "measured": Measured(Measurer(SCREENING, device="cuda")),
        "final": Measured(Measurer(FINAL, device="cuda")),
    }[stage]


class Simulated:
    """Stage `model`: steps take what the cost model says."""

    def __init__(self, scenarios: Mapping[Split, Sequence[Scenario]] = SCENARIOS) -> None:
        self._scenarios = scenarios
        self._phases = {each.id: each.phase for split in scenarios.values() for each in split}

    def cases(self, split: Split) -> list[Case]:
        """Traces of a split. `public` is a digest that tells cases apart; the referee tells what a candidate learns."""
        return [Case(each.id, each.seed, each.digest, each) for each in self._scenarios[split]]

    def referee(self, case: Case) -> Any:
        """Plays a case; see `game.play`."""
        return game.play(case.hidden)

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        """Metrics of a case. `raw` is the referee's own."""
        scenario: Scenario = case.hidden
        metrics = figures(scenario, game.restored(raw), reference(scenario))
        if metrics["saved"] > 1.0 + 1e-9:
            raise RewardHacking(
                f"{case.id}: {metrics['seconds']:.6g} s, less than the proven {metrics['bound_s']:.6g} s"
            )
        return metrics

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """The score, and means over the cases of a split."""
        combined = combine(results, self._phases)
        return Combined(combined.score, {**combined.metrics, "score_bound": 1.0}, combined.artifacts)


class Measured(Simulated):
    """Stages `measured` and `final`: steps are measured on a device, in this process, for rows of some windows.

    What the cost model says of all windows is multiplied by what it missed on those that were measured, for the
    candidate and for the initial placement apart, on equal rows. The least possible goes with the initial placement.
    Noise may lift a score above what is proven by the model, so there is no `score_bound` here.
    """

    def __init__(self, measurer: Measurer, scenarios: Mapping[Split, Sequence[Scenario]] = SCENARIOS) -> None:
        super().__init__(scenarios)
        self._measurer = measurer

    def score(self, case: Case, raw: Any) -> Mapping[str, float]:
        """Metrics of a case; with those of the measurement."""
        scenario: Scenario = case.hidden
        modelled, result = reference(scenario), game.restored(raw)
        pair = self._measurer.measure(scenario, result, modelled.never)
        return {
            **figures(scenario, result, modelled, pair),
            "model_error": pair.model_error,
            "measured_rows": float(pair.rows),
        }

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """As in stage `model`, without a bound."""
        return combine(results, self._phases)


def figures(
    scenario: Scenario, result: ServingResult, held_against: Reference, pair: Pair | None = None
) -> dict[str, float]:
    """The metrics of one case. Copies and decisions keep their modelled seconds; steps are multiplied by `pair`."""
    ours, never = (1.0, 1.0) if pair is None else (pair.candidate, pair.never)
    total_s = ours * float(result.window_seconds.sum()) + result.stall_seconds
    never_s, ideal_s = never * float(held_against.never.window_seconds.sum()), never * held_against.ideal_s
    room_s = never_s - ideal_s
    saved = (never_s - total_s) / room_s if room_s > 1e-9 * never_s else 0.0
    usual_s = np.median(result.step_seconds)
    shape, windows = scenario.shape, scenario.windows - 1
    gib = scenario.config.bytes_per_expert / 2**30
    return {
        "saved": max(WORST, saved),
        "seconds": total_s,
        "never_baseline_s": never_s,
        "bound_s": ideal_s,
        "ratio_never": total_s / never_s,
        "deepseek_baseline_ratio": total_s / (never * held_against.deepseek_s),
        "oracle_ratio": total_s / (never * held_against.oracle_s),
        "balance": result.balance,
        "p99_step": float(result.p99_step_seconds / usual_s) if usual_s > 0 else 1.0,
        "stall_share": result.stall_seconds / total_s if total_s > 0 else 0.0,
        "fetched_gib": result.fetched * gib / shape.gpus / windows,
        "changes": result.changes / windows,
        "decision_ms": float(1e3 * np.median(result.decision_seconds)),
        "loads": float(windows * scenario.samples * shape.layers * shape.experts),
    }


def combine(results: Sequence[CaseResult], phases: Mapping[str, Phase]) -> Combined:
    """The score: mean over the phases that there are of the mean `saved` of their cases; `phases` by case."""
    metrics = {name: fmean(result.metrics[name] for result in results) for name in results[0].metrics}
    for phase in ("prefill", "decode"):
        saved = [result.metrics["saved"] for result in results if phases[result.case] == phase]
        if saved:
            metrics[f"saved_{phase}"] = fmean(saved)
    score = fmean(metrics[name] for name in ("saved_prefill", "saved_decode") if name in metrics)
    metrics |= quality(results, value="saved", direction="max", size="loads")
    return Combined(score, {**metrics, "saved": score}, {"cases": _table(results)})


def _table(results: Sequence[CaseResult]) -> str:
    columns = (
        "saved",
        "seconds",
        "never_baseline_s",
        "bound_s",
        "balance",
        "fetched_gib",
        "stall_share",
        "decision_ms",
    )
    lines = [f"{'case':<26}" + "".join(f"{name:>17}" for name in columns)]
    for result in results:
        lines.append(f"{result.case:<26}" + "".join(f"{result.metrics[name]:>17.4g}" for name in columns))
    return "\n".join(lines)
