"""The public evaluator's figures on recorded loads, faults included: (balancedness + 0.02 / mean seconds) / 2.

Its faults are kept on purpose. Loads are put where `logical_to_physical` and `expert_count` say, `physical_to_logical`
is not looked at, so every expert may claim every slot. Balance is that of single slots, which cannot see on which GPU
they lie. The clock runs on through the evaluator's own loop over layers and experts, here one of numpy, publicly one
of torch that takes about 0.35 s a window. Loads are float32.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from time import perf_counter
from typing import Any

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, Split, UsageError

from .recorded import SHAPE, recorded_file, windows

_SIZES = [SHAPE.slots, SHAPE.groups, SHAPE.nodes, SHAPE.gpus]


class Public:
    """The same in every stage, on the CPU."""

    def cases(self, split: Split) -> list[Case]:
        """All transitions in one case. Raises UsageError for any split but `test`, and without the recorded file."""
        if split != "test":
            raise UsageError(f"eplb: paper scoring knows the split test only (recorded loads), not {split}")
        path = recorded_file()
        if path is None:
            raise UsageError("eplb: paper scoring needs eplb_deepseek_loads.npz: run `adrs data pull eplb`")
        return [Case("test-recorded", 9_290, None, tuple(pairwise(windows(path))))]

    def referee(self, case: Case) -> Generator[dict[str, Any], Any, list[tuple[float, float]]]:
        """Balancedness and seconds of each transition; a program that fails has 0 of both."""
        yield {"op": "load"}
        figures = []
        for now, following in case.hidden:
            started = perf_counter()
            reply = yield {"op": "believe", "weight": now, "sizes": _SIZES}
            balanced = _balancedness(reply, following)
            figures.append((balanced, perf_counter() - started if balanced else 0.0))
        return figures

    def score(self, case: Case, raw: Sequence[tuple[float, float]]) -> dict[str, float]:
        """Means over the transitions."""
        return {"paper_balancedness": fmean(one for one, _ in raw), "seconds": fmean(one for _, one in raw)}

    def combine(self, results: Sequence[CaseResult]) -> Combined:
        """Half balancedness, half 0.02 / seconds; 0 for a program that failed throughout."""
        found = results[0].metrics
        speed = 0.02 / found["seconds"] if found["seconds"] else 0.0
        cpu_s = sum(result.cpu_s for result in results)
        metrics = {**found, "speed_score": speed, "cpu_s": cpu_s, "cpu_s_per_case": cpu_s / len(results)}
        return Combined((found["paper_balancedness"] + speed) / 2, metrics)


def for_stage(_: str) -> Public:
    """The public evaluator knows no stages."""
    return Public()


def _balancedness(reply: Any, following: np.ndarray[Any, Any]) -> float:
    """Sum of mean over sum of largest slot loads; 0 where the maps cannot be followed."""
    maps = reply.get("maps") if isinstance(reply, Mapping) else None
    if not isinstance(maps, list | tuple) or len(maps) != 3 or not all(isinstance(each, np.ndarray) for each in maps):
        return 0.0
    _, inverse, counts = maps
    load = following.astype(np.float32)
    slots = np.zeros((load.shape[0], SHAPE.slots), np.float32)
    try:
        for layer in range(load.shape[0]):
            for expert in range(load.shape[1]):
                count = int(counts[layer, expert])
                if count > 0 and load[layer, expert] > 0:
                    slots[layer, inverse[layer, expert, :count]] += load[layer, expert] / count
        fullest = float(slots.max(axis=1).sum())
        return float(slots.mean(axis=1).sum()) / fullest if fullest > 0 else 0.0
    except (IndexError, ValueError):
        return 0.0
