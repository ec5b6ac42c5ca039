"""The public set: six scenarios over nine recorded V100 zones of AWS, 34 runs of one job."""

from __future__ import annotations

import gzip
import json
from functools import cache
from pathlib import Path

import numpy as np

from adrs_ray.task import DataFile, data_file, read_spec

from .market import HOUR_S, Job, Market, Scenario


def data() -> DataFile:
    """The entry of the recorded file in task.yaml."""
    return read_spec(Path(__file__).with_name("task.yaml")).data[0]


def public_runs() -> tuple[Scenario, ...] | None:
    """The public runs in the order of the public evaluator, None when the recorded file is not here.

    Raises UsageError when a file of that name is there with another content.
    """
    path = data_file(data())
    return None if path is None else _read(path)


@cache
def _read(path: Path) -> tuple[Scenario, ...]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        recorded = json.load(file)
    hours = recorded["job"]
    job = Job(
        recorded["gap_seconds"],
        round(hours["duration_hours"] * HOUR_S),
        round(hours["deadline_hours"] * HOUR_S),
        round(hours["restart_overhead_hours"] * HOUR_S),
    )
    runs = []
    for scenario in recorded["scenarios"]:
        zones = tuple(scenario["regions"])
        for index in scenario["trace_indices"]:
            traces = [recorded["traces"][zone][str(index)] for zone in zones]
            available = np.array([[flag == "0" for flag in trace["unavailable"]] for trace in traces], dtype=np.bool_)
            prices = np.array([_prices(trace) for trace in traces])
            on_demand = np.full(len(zones), recorded["on_demand_price_per_hour"])
            runs.append(Scenario(f"{scenario['name']}/{index}", job, Market(zones, available, prices, on_demand)))
    return tuple(runs)


def _prices(trace: dict[str, list[list[float]]]) -> list[float]:
    return [price for price, count in trace["spot_price_rle"] for _ in range(int(count))]
