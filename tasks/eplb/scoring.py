"""Figures of a game and the score of a split.

    quality = next-window GPU balance / its bound - 0.5 x share of slots that needlessly repeat an expert on their GPU
    credit  = log10(100 x heap LPT's time / max(time, floor)) / 3, clipped to 0..1
    score   = (1 - TIME_WEIGHT) x mean quality + TIME_WEIGHT x mean credit

No placement's balance is above the bound, and no credit above 1: nothing scores above 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import cast

from adrs_ray.task import CaseResult, Combined, RewardHacking, Split, quality
from gpu_eval.balance import measure
from gpu_eval.statistics import geometric_mean

from .game import Placement, Played
from .problems import Problem, Transition, problems
from .transport import Transport, fit, seconds_per_call

TIME_WEIGHT = 0.03
"""A tenth of the time is worth a hundredth, about as much as a point of balance: see README.md."""
DUPLICATE_COST = 0.5
SLOWEST = 100.0
"""Times the baseline's time at which there is no credit left."""
DECADES = 3.0
"""From there to full credit."""

ODD, RECORDED = "stress-odd", "test-recorded"
"""Ids of the cases that are none of the generated problems."""

FRESH_SHORTFALL = 0.02
"""How much worse inputs that only cost time may be placed than judged windows, relative to the baseline."""
_LIE_S = 0.02
"""More than a busy machine adds to the quickest of a case's rounds."""

_MEANS = (
    "quality",
    "next_window_balance",
    "next_window_bound",
    "same_window_balance",
    "same_window_bound",
    "paper_balancedness",
    "worst_balance",
    "duplicates",
    "group_violations",
)


def figures(problem: Problem, played: Played) -> dict[str, float]:
    """Of one problem: means over its transitions, and what its quickest round cost.

    What else runs on a machine only ever adds to a time. A program that is quick in one round at the cost of its
    answers loses more where that round holds a judged window than it gains.

    Raises RewardHacking for a program that places inputs which only cost time worse than those it is judged on.
    """
    told = [_transition(problem, each, played.placements[number]) for number, each in enumerate(problem.transitions)]
    result = {name: fmean(one[name] for one in told) for name in _MEANS}
    _refuse_two_faces(problem, played)
    best = min(played.rounds, key=lambda each: each.seconds / each.calls)
    return {
        **result,
        "round_ms": 1e3 * best.seconds,
        "told_ms": 1e3 * best.told_s,
        "round_calls": float(best.calls),
        "round_mb": best.megabytes,
        "baseline_ms": 1e3 * min(played.yardstick_s),
        **_transport_metrics(played),
    }


def _refuse_two_faces(problem: Problem, played: Played) -> None:
    """Ratios to the baseline scatter, widely where loads are ignored: four standard deviations are allowed on top."""
    if len(played.fresh_ratio) < 2:
        return
    shortfall = fmean(played.judged_ratio) - fmean(played.fresh_ratio)
    if shortfall > FRESH_SHORTFALL + 4 * stdev(played.fresh_ratio):
        what = f"inputs that only cost time are placed {shortfall:.3f} worse than judged ones"
        raise RewardHacking(f"{problem.name}: {what}, measured against the baseline")


def odd_figures(played: Played) -> dict[str, float]:
    """Of the odd inputs."""
    return {"quality": fmean(played.odd.values())}


def _transition(problem: Problem, each: Transition, placement: Placement) -> dict[str, float]:
    shape = problem.shape
    following = measure(placement, each.following, shape)
    now = measure(placement, each.now, shape)
    slots = shape.layers * shape.slots
    needless = max(0, following.duplicates - _unavoidable(problem)) / slots
    return {
        "quality": following.gpu / each.following_bound - DUPLICATE_COST * needless,
        "next_window_balance": following.gpu,
        "next_window_bound": each.following_bound,
        "same_window_balance": now.gpu,
        "same_window_bound": each.now_bound,
        "paper_balancedness": following.slot,
        "worst_balance": following.worst_layer,
        "duplicates": 100.0 * following.duplicates / slots,
        "group_violations": 100.0 * following.group_violations / slots,
    }


def _unavoidable(problem: Problem) -> int:
    """Slots that repeat an expert on their GPU in any placement: where a GPU has more slots than experts to choose."""
    shape = problem.shape
    choice = shape.experts // shape.nodes if problem.grouped else shape.experts
    return shape.layers * shape.gpus * max(0, shape.slots_per_gpu - choice)


def _transport_metrics(played: Played) -> dict[str, float]:
    if not played.rehearsals:
        return {}
    transport = fit(played.rehearsals)
    return {
        "transport_round_us": 1e6 * transport.round_s,
        "transport_call_us": 1e6 * transport.call_s,
        "transport_mb_us": 1e6 * transport.mb_s,
    }


def combined(results: Sequence[CaseResult], device: str, floor_s: float) -> Combined:
    """The score of a split: `device` names the column of times, below `floor_s` they earn nothing.

    Raises RewardHacking where the program's clock told less than half of what the referee's did, in two cases.
    """
    transport = _transport(results)
    timed = [result for result in results if result.case != ODD]
    seconds = {result.case: _seconds(result.metrics, transport) for result in timed}
    _refuse_lies(timed, transport)
    ordinary = [result for result in timed if result.case != RECORDED]
    judged = [result for result in results if result.case != RECORDED]
    mean_quality = fmean(result.metrics["quality"] for result in judged)
    mean_credit = fmean(
        credit(seconds[result.case], 1e-3 * result.metrics["baseline_ms"], floor_s) for result in ordinary
    )
    score = (1.0 - TIME_WEIGHT) * mean_quality + TIME_WEIGHT * mean_credit
    metrics = {name: fmean(result.metrics[name] for result in ordinary) for name in _MEANS}
    metrics |= {
        "combined": score,
        "quality": mean_quality,
        "time_credit": mean_credit,
        f"{device}_ms": 1e3 * geometric_mean([seconds[result.case] for result in ordinary]),
        "baseline_ms": geometric_mean([result.metrics["baseline_ms"] for result in ordinary]),
        **quality(judged, "quality"),
        "score_bound": 1.0,
        **_leaderboard(ordinary, seconds, ""),
    }
    recorded = [result for result in timed if result.case == RECORDED]
    if recorded:
        metrics |= {f"recorded_{name}": fmean(r.metrics[name] for r in recorded) for name in _RECORDED}
        metrics |= _leaderboard(recorded, seconds, "recorded_")
    return Combined(score, metrics, {"cases": _table(results, seconds)})


_RECORDED = ("next_window_balance", "next_window_bound", "same_window_balance", "paper_balancedness", "duplicates")


def credit(seconds: float, baseline_s: float, floor_s: float) -> float:
    """Of one case's time, 0 to 1: two thirds at the baseline's, a third more or less for each factor of ten."""
    return min(1.0, max(0.0, math.log10(SLOWEST * baseline_s / max(seconds, floor_s)) / DECADES))


def leaderboard_formula(balance: float, seconds: float) -> float:
    """Of the ADRS leaderboard, from next-window GPU balance and seconds per call; at most 100."""
    slow = min(20.0 * seconds, 20.0) if seconds > 0.01 else 0.0
    return 90.0 * balance + 5.0 * min(0.002 / seconds, 2.0) - slow


def _leaderboard(results: Sequence[CaseResult], seconds: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Over cases of the leaderboard's slots and GPUs. Its own trace is not public any more: coverage is 0."""
    fitting = [result for result in results if result.case == RECORDED or _has_public_sizes(result.case)]
    if not fitting:
        return {}
    value = fmean(leaderboard_formula(r.metrics["next_window_balance"], seconds[r.case]) for r in fitting)
    return {f"{prefix}leaderboard_formula": value, f"{prefix}leaderboard_coverage": 0.0}


def _has_public_sizes(case: str) -> bool:
    split, _, number = case.rpartition("-")
    return problems(cast(Split, split))[int(number)].sizes == (288, 8, 4, 32)


def _transport(results: Sequence[CaseResult]) -> Transport:
    """As the first case's rehearsals found it."""
    measured = next(result.metrics for result in results if "transport_mb_us" in result.metrics)
    return Transport(*(1e-6 * measured[f"transport_{name}_us"] for name in ("round", "call", "mb")))


def _seconds(metrics: Mapping[str, float], transport: Transport) -> float:
    round_s, told_s = 1e-3 * metrics["round_ms"], 1e-3 * metrics["told_ms"]
    return max(1e-7, seconds_per_call(transport, round_s, metrics["round_calls"], metrics["round_mb"], told_s))


def _refuse_lies(timed: Sequence[CaseResult], transport: Transport) -> None:
    lies = []
    for result in timed:
        m = result.metrics
        net_ms = m["round_ms"] - 1e3 * transport.seconds(m["round_calls"], m["round_mb"])
        if m["told_ms"] < 0.5 * net_ms and net_ms - m["told_ms"] > 1e3 * _LIE_S:
            lies.append(f"{result.case}: {m['told_ms']:.1f} ms told, {net_ms:.1f} ms passed")
    if len(lies) >= 2:
        raise RewardHacking(f"the program's clock does not tell the time: {lies[0]}; {lies[1]}")


def _table(results: Sequence[CaseResult], seconds: Mapping[str, float]) -> str:
    lines = [f"{'case':<14} {'quality':>7} {'next':>7} {'bound':>7} {'same':>7} {'dup %':>6} {'ms':>8} {'heap ms':>8}"]
    for result in results:
        m = result.metrics
        line = f"{result.case:<14} {m['quality']:>7.4f}"
        if result.case != ODD:
            line += f" {m['next_window_balance']:>7.4f} {m['next_window_bound']:>7.4f} {m['same_window_balance']:>7.4f}"
            line += f" {m['duplicates']:>6.2f} {1e3 * seconds[result.case]:>8.3f} {m['baseline_ms']:>8.3f}"
        lines.append(line)
    return "\n".join(lines)
