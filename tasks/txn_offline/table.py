"""Prints how much the programs that draw at random differ between seeds: `python -m tasks.txn_offline.table`.

Programs run in this process, without the jail, seeded per case as the evaluator seeds them; the judge scores them.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from types import ModuleType

import numpy as np

from adrs_ray.task import Case, CaseResult, Combined, Split, Task, import_private, load_task

RANDOM_PROGRAMS = ("random_best_of_k", "medium", "strong")


def judge(task: Task, source: str, split: Split, shift: int = 0) -> Combined:
    """The result of a program on a split, in this process; `shift` is added to the seeds of the cases."""
    adapter = import_private(task.folder, "adapter")
    results = [_one(task, adapter, source, case, shift) for case in task.judge.cases(split)]
    return task.judge.combine(results)


def _one(task: Task, adapter: ModuleType, source: str, case: Case, shift: int) -> CaseResult:
    random.seed(case.seed + shift)
    np.random.seed(case.seed + shift)
    raw = adapter.run(adapter.load(source), case.public)
    return CaseResult(case.id, task.judge.score(case, raw), cpu_s=0.0, wall_s=0.0)


def range_table(task: Task, seeds: int) -> list[str]:
    """Lines of a Markdown table: programs on the test split over `seeds` seeds, the case's own first."""
    lines = [
        "| program | makespan: case seed | min | mean | max | score: min | max |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in RANDOM_PROGRAMS:
        source = task.programs()[name].read_text(encoding="utf-8")
        results = [judge(task, source, "test", shift) for shift in range(seeds)]
        makespans = [r.metrics["makespan"] for r in results]
        scores = [r.score for r in results]
        lines.append(
            f"| {name} | {makespans[0]:.0f} | {min(makespans):.0f} | {np.mean(makespans):.1f} | {max(makespans):.0f}"
            f" | {min(scores):.3f} | {max(scores):.3f} |"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50, help="seeds tried")
    arguments = parser.parse_args()
    task = load_task(Path(__file__).parent)
    print(f"test split: {task.split_note('test') or 'the public workloads'}\n")
    print("\n".join(range_table(task, arguments.seeds)))


if __name__ == "__main__":
    main()
