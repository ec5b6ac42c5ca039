"""What goes wrong with a run as a whole: a model, the budget, or what the score rewards."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adrs_ray.supervision.detectors import Finding, figure, most_common, percent
from adrs_ray.supervision.history import RequestResult, RunHistory
from adrs_ray.supervision.significance import rank_correlation, share_rose

RECENT_REQUESTS = 20
LEAST_REQUESTS = 10
"""Recent ones of a model below which nothing is said of it; also how many a comparison needs."""
BAD_SHARE = 0.5
BAD_CHANCE = 0.001
BAD_ALWAYS = 0.9
"""Share of failed requests that is bad whatever was before."""

RATE_CANDIDATES = 10
"""Candidates over which a rate must have been seen."""
ENOUGH = 0.5
"""Share of the candidates that other limits have to allow."""

JUDGED_BESTS = 5
"""Successive bests over which train must rise and validation not."""

METRIC_BESTS = 8
"""Successive bests over which a metric is followed."""
OPPOSED = -0.9
"""Rank correlation of score and metric; by chance 0.2 % of metrics have that over eight bests."""
METRIC_FALL = 0.05
"""Share of its size that a metric must have lost."""


def model_gone_bad(history: RunHistory) -> Finding | None:
    """Half of a model's recent requests fail, clearly more than its own before or than others'; or nearly all do.

    Where several models are bad, the worst is named.
    """
    recent: dict[str, list[RequestResult]] = {}
    for request in history.requests:
        recent.setdefault(request.model, []).append(request)
    found = [finding for model in sorted(recent) if (finding := _bad_model(model, recent)) is not None]
    return max(found, key=lambda f: f.figures["failed"] / f.figures["requests"], default=None)


def _bad_model(model: str, by_model: dict[str, list[RequestResult]]) -> Finding | None:
    now, before = by_model[model][-RECENT_REQUESTS:], by_model[model][:-RECENT_REQUESTS]
    others = [r for name, results in by_model.items() if name != model for r in results[-RECENT_REQUESTS:]]
    failed = _failed(now)
    if len(now) < LEAST_REQUESTS or failed < BAD_SHARE * len(now):
        return None
    worse = any(
        len(rest) >= LEAST_REQUESTS and share_rose(failed, len(now), _failed(rest), len(rest)) < BAD_CHANCE
        for rest in (before, others)
    )
    if not worse and failed < BAD_ALWAYS * len(now):
        return None
    figures = {
        "failed": float(failed),
        "requests": float(len(now)),
        "failed_before": float(_failed(before)),
        "requests_before": float(len(before)),
        "failed_others": float(_failed(others)),
        "requests_others": float(len(others)),
    }
    reason = most_common(result.reason for result in now if not result.ok)
    evidence = (
        f"model {model}: {failed} of its last {len(now)} requests ({percent(failed / len(now))}) failed, "
        f"{_failed(before)} of {len(before)} before, {_failed(others)} of {len(others)} of other models"
        + (f"; most often: {reason}" if reason else "")
    )
    return Finding("model_gone_bad", None, evidence, figures, ("temperature", "ask_hint"), model)


def _failed(results: Sequence[RequestResult]) -> int:
    return sum(not result.ok for result in results)


def budget_forecast(history: RunHistory) -> Finding | None:
    """At recent rates another limit than the candidates ends the run before half of them are done."""
    spent, earlier, limits = history.spent, history.earlier, history.limits
    candidates = spent.candidates - earlier.candidates
    if candidates < RATE_CANDIDATES:
        return None
    used = (
        ("max_usd", "dollars", limits.max_usd, spent.usd, spent.usd - earlier.usd),
        ("max_tokens", "tokens", limits.max_tokens, spent.tokens, spent.tokens - earlier.tokens),
        ("max_gpu_s", "GPU-seconds", limits.max_gpu_s, spent.gpu_s, spent.gpu_s - earlier.gpu_s),
        ("max_wall_s", "seconds", limits.max_wall_s, spent.wall_s, spent.wall_s - earlier.wall_s),
    )
    ends = [
        (max(0.0, limit - total) * candidates / lately, name, unit, limit, lately / candidates)
        for name, unit, limit, total, lately in used
        if limit is not None and lately > 0
    ]
    if not ends:
        return None
    left, name, unit, limit, rate = min(ends)
    if spent.candidates + left >= ENOUGH * limits.max_candidates:
        return None
    end = math.floor(spent.candidates + left)
    seconds = left * max(0.0, spent.wall_s - earlier.wall_s) / candidates
    figures = {
        "candidates": float(end),
        "max_candidates": float(limits.max_candidates),
        "limit": float(limit),
        "rate": rate,
        "left_s": float(round(seconds)),
    }
    evidence = (
        f"at {figure(rate)} {unit} per candidate budget.{name} {figure(limit)} ends the run at about {end} of "
        f"{limits.max_candidates} candidates, in about {figure(figures['left_s'])} s"
    )
    return Finding("budget_forecast", None, evidence, figures, ("ask_hint",), name)


def overfitting(history: RunHistory) -> Finding | None:
    """Over five judged bests in a row train rose, and none did better on validation than the first of them."""
    judged = [best for best in history.bests if best.judged][-JUDGED_BESTS:]
    if len(judged) < JUDGED_BESTS or judged[-1].score <= judged[0].score:
        return None
    first, *later = judged
    scores = [best.validation for best in later if best.validation is not None]
    if first.validation is None or (scores and max(scores) > first.validation):
        return None
    figures = {"train_before": first.score, "train": judged[-1].score, "validation_before": first.validation}
    if scores:
        figures["validation"] = max(scores)
    evidence = (
        f"over the last {JUDGED_BESTS} judged bests train went from {figure(first.score)} to "
        f"{figure(judged[-1].score)}, validation from {figure(first.validation)} to "
        + (f"{figure(max(scores))} at the most" if scores else "failures only")
    )
    return Finding("overfitting", None, evidence, figures, ("ask_hint",))


def simulator_exploited(history: RunHistory) -> Finding | None:
    """Along the best candidate's line of ancestors a cheap stage flatters more with every step, beyond chance.

    See `adrs_ray.fidelity`: the interval of the mean step lies above zero at 99 %, and the flattery takes a tenth of
    the cheap score's rise.
    """
    if history.growth is None:
        return None
    stage, growth = history.growth
    if not growth.is_exploited:
        return None
    slope = growth.slope
    figures = {
        "steps": float(growth.steps),
        "growth": slope.value,
        "growth_low": slope.low,
        "growth_high": slope.high,
        "rise": growth.rise,
    }
    total = slope.value * growth.steps
    share = f", {percent(total / growth.rise)} of what it rose" if growth.rise > 0 else ""
    evidence = (
        f"along {growth.steps} steps to {growth.candidate} stage {stage} flatters by {figure(slope.value)} more a step "
        f"({figure(slope.low)} to {figure(slope.high)}), {figure(total)} in all{share}: make the stage more faithful, "
        "lower evaluator.cascade.chance, or hint at what only the last stage sees"
    )
    return Finding("simulator_exploited", None, evidence, figures, ("ask_hint",), stage)


def misaligned_objective(history: RunHistory) -> Finding | None:
    """While the score rose over eight bests, a declared metric got worse with it nearly every time.

    Where several did, the one most opposed to the score is named.
    """
    bests = history.bests[-METRIC_BESTS:]
    if len(bests) < METRIC_BESTS or bests[-1].score <= bests[0].score:
        return None
    worst: tuple[float, str, list[float]] | None = None
    for name, direction in sorted(history.metrics.items()):
        values = [best.metrics[name] for best in bests if name in best.metrics]
        if len(values) < METRIC_BESTS or not all(map(math.isfinite, values)):
            continue
        sign = 1 if direction == "max" else -1
        correlation = rank_correlation([best.score for best in bests], [sign * value for value in values])
        lost = sign * (values[0] - values[-1]) > METRIC_FALL * max(map(abs, values))
        if correlation <= OPPOSED and lost and (worst is None or correlation < worst[0]):
            worst = correlation, name, values
    if worst is None:
        return None
    correlation, name, values = worst
    figures = {
        "score_before": bests[0].score,
        "score": bests[-1].score,
        "metric_before": values[0],
        "metric": values[-1],
        "correlation": correlation,
    }
    evidence = (
        f"over the last {METRIC_BESTS} bests the score went from {figure(bests[0].score)} to {figure(bests[-1].score)} "
        f"while {name}, which should be {'high' if history.metrics[name] == 'max' else 'low'}, went from "
        f"{figure(values[0])} to {figure(values[-1])} (rank correlation {figure(correlation)})"
    )
    return Finding("misaligned_objective", None, evidence, figures, ("ask_hint",), name)
