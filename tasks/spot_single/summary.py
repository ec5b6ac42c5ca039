"""From the cases of a split to its figures: what both scorings share."""

from __future__ import annotations

import math
from collections.abc import Sequence

from adrs_ray.task import CaseResult, quality

from .game import setting_name
from .traces import SETTINGS

LEADERBOARD_RUNS = 1080
"""Simulations of the leaderboard: 6 environments, 30 traces, deadlines 52 and 70 h, overheads 0.02, 0.05 and 0.1 h."""
_LEADERBOARD_WORST, _LEADERBOARD_BEST = 3.06 * 48, 0.9731 * 48


def metrics(results: Sequence[CaseResult]) -> dict[str, float]:
    """The metrics of a split that both scorings give; means are over runs, not over cases."""
    runs = sum(result.metrics["runs"] for result in results)

    def mean(name: str) -> float:
        return sum(result.metrics[name] * result.metrics["runs"] for result in results) / runs

    def dollars(name: str) -> float:
        return sum(result.metrics[name] for result in results) / runs

    mean_cost, on_demand, up = dollars("dollars"), dollars("dollars_on_demand"), dollars("dollars_up")
    optimum = dollars("dollars_optimum")
    costs = run_costs(results)
    by_setting = {
        name: sum(values) / len(values)
        for name in (setting_name(*setting) for setting in SETTINGS)
        if (values := [result.metrics[name] for result in results if name in result.metrics])
    }
    return {
        "mean_cost": mean_cost,
        "cost_std": math.sqrt(sum((cost - mean_cost) ** 2 for cost in costs) / len(costs)),
        **by_setting,
        "on_demand_cost": on_demand,
        "up_cost": up,
        "up_shipped_cost": dollars("dollars_up_shipped"),
        "optimum_cost": optimum,
        "saved": 1 - mean_cost / on_demand,
        "saving_vs_up": mean("saving_vs_up"),
        "saving_vs_up_max": max(result.metrics["saving_vs_up_max"] for result in results),
        "saving_vs_up_shipped": mean("saving_vs_up_shipped"),
        "saving_vs_up_shipped_max": max(result.metrics["saving_vs_up_shipped_max"] for result in results),
        "gap_closed": (up - mean_cost) / (up - optimum) if up > optimum else 0.0,
        "late_runs": sum(result.metrics["late_runs"] for result in results),
        "changeovers": mean("changeovers"),
        "rescued_ticks": mean("rescued_ticks"),
        **leaderboard(results, mean_cost),
        **quality(results, value="saved", direction="max", size="calls"),
    }


def run_costs(results: Sequence[CaseResult]) -> list[float]:
    """Dollars of every run of a split."""
    return [value for result in results for name, value in result.metrics.items() if name.startswith("cost_d")]


def leaderboard(results: Sequence[CaseResult], mean_cost: float) -> dict[str, float]:
    """The leaderboard's formula, 0..100, and the share in % of its simulations that it was computed on here.

    On the recorded traces it is that of the runs that the leaderboard has too; elsewhere of all runs, at coverage 0.
    """
    common = sum(result.metrics["leaderboard_runs"] for result in results)
    cost = sum(result.metrics["leaderboard_cost"] for result in results) / common if common else mean_cost
    share = (_LEADERBOARD_WORST - cost) / (_LEADERBOARD_WORST - _LEADERBOARD_BEST)
    return {
        "leaderboard_formula": 100 * min(1.0, max(0.0, share)),
        "leaderboard_coverage": 100 * common / LEADERBOARD_RUNS,
    }


def table(results: Sequence[CaseResult]) -> str:
    """A line per case: mean dollars of its runs, what they are held against, launches, gaps by type."""
    lines = [
        f"{'case':<26} {'cost':>7} {'optimum':>7} {'UP':>7} {'saved':>6}"
        f" {'launches':>8} {'spot':>5} {'demand':>6} {'idle':>5} {'rescued':>7}"
    ]
    for result in results:
        m = result.metrics
        cost, optimum, up = (m[name] / m["runs"] for name in ("dollars", "dollars_optimum", "dollars_up"))
        lines.append(
            f"{result.case:<26} {cost:>7.2f} {optimum:>7.2f} {up:>7.2f} {m['saved']:>6.3f}"
            f" {m['changeovers']:>8.1f} {m['spot_gaps']:>5.0f} {m['on_demand_gaps']:>6.0f} {m['idle_gaps']:>5.0f}"
            f" {m['rescued_ticks']:>7.1f}"
        )
    return "\n".join(lines)
