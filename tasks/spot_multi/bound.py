"""Proven lower bounds of a run's cost, for somebody who knows the future."""

from __future__ import annotations

import numpy as np

from .kernel import relaxed_run, uniform_progress
from .market import HOUR_S, Scenario

_STEPS = 60


def lower_bound(scenario: Scenario) -> float:
    """Dollars that no run under the rules can stay below.

    The larger of two relaxations, less 1e-9 of it for rounding. The first prices the work: for any reward r per second,
    every run that does the job's D seconds costs at least min over all runs of (bill - r * work) + r * D; the minimum
    is a dynamic program over tick, zone and kind of instance with all overheads, transfers and egress in it, and the
    best r is found by cutting planes. The second counts gaps: at least `Job.on_demand_ticks` of them are billed, each
    at no less than the cheapest price of its tick.
    """
    return max(_priced_work(scenario), _cheapest_gaps(scenario)) * (1.0 - 1e-9)


def _cheapest_gaps(scenario: Scenario) -> float:
    market, job = scenario.market, scenario.job
    spot = np.where(market.available, market.spot_usd_h, np.inf).min(axis=0)
    price = np.minimum(spot, market.on_demand_usd_h.min())[: job.deadline_ticks]
    return float(np.sort(price)[: job.on_demand_ticks].sum()) * job.gap_s / HOUR_S


def _priced_work(scenario: Scenario) -> float:
    market, job, migration = scenario.market, scenario.job, scenario.migration
    ticks = job.deadline_ticks
    available = np.ascontiguousarray(market.available[:, :ticks])
    bill = np.ascontiguousarray(market.spot_usd_h[:, :ticks]) * job.gap_s / HOUR_S
    on_demand = market.on_demand_usd_h * job.gap_s / HOUR_S
    regions = np.array(market.regions, dtype=np.int64)
    times = np.array([job.gap_s, job.restart_s, migration.transfer_s], dtype=np.int64)

    def best_run(reward: float) -> tuple[float, float]:
        """(bill, seconds of work) of the run that is best when a second of work earns `reward`."""
        value, work = relaxed_run(available, bill, on_demand, regions, times, migration.egress_usd, reward)
        return value + reward * work, work

    # two runs, one with too little work and one with enough; the line through them prices the work anew
    few, many = (0.0, 0.0), best_run(1000.0 * float(on_demand.max()) / job.gap_s)
    bound = 0.0
    for _ in range(_STEPS):
        if many[1] <= few[1]:
            break
        reward = (many[0] - few[0]) / (many[1] - few[1])
        run = best_run(reward)
        found = run[0] + reward * (job.duration_s - run[1])
        if found <= bound + 1e-12 * abs(bound):
            return max(found, bound)
        bound = max(bound, found)
        if run[1] < job.duration_s:
            few = run
        else:
            many = run
    return bound


def uniform_progress_costs(scenario: Scenario) -> list[float]:
    """Dollars of Uniform Progress alone in each of the zones."""
    market, job = scenario.market, scenario.job
    times = np.array([job.gap_s, job.duration_s, job.deadline_s, job.restart_s], dtype=np.int64)
    bill = market.spot_usd_h * job.gap_s / HOUR_S
    on_demand = market.on_demand_usd_h * job.gap_s / HOUR_S
    return [
        uniform_progress(np.ascontiguousarray(market.available[zone]), bill[zone], on_demand[zone], times)
        for zone in range(len(market.zones))
    ]
