"""Prints the tables of the README: `python -m tasks.txn_offline.table`.

Programs run in this process, without the jail, seeded per case as the evaluator seeds them; the judge scores them. All
figures are deterministic except those of `--seeds`, which says over how many seeds the ranges are.
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path
from types import ModuleType

import numpy as np

from adrs_ray.task import SPLITS, Case, CaseResult, Combined, Split, Task, import_private, load_task

RANDOM_BASELINES = ("random_best_of_k", "smf")


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


def baseline_table(task: Task) -> list[str]:
    """Lines of a Markdown table: every baseline on every split."""
    lines = [
        "| baseline | "
        + " | ".join(f"{split} score | makespan" for split in SPLITS)
        + " | leaderboard formula (test) |",
        "|---|" + "---|---|" * len(SPLITS) + "---|",
    ]
    for name, path in task.baselines().items():
        source = path.read_text(encoding="utf-8")
        results = {split: judge(task, source, split) for split in SPLITS}
        cells = [f"{r.score:.4f} | {r.metrics['makespan']:.1f}" for r in results.values()]
        formula = results["test"].metrics["leaderboard_formula"]
        lines.append(f"| {name} | {' | '.join(cells)} | {formula:.1f} |")
    return lines


def range_table(task: Task, seeds: int) -> list[str]:
    """Lines of a Markdown table: the random baselines on the test split over `seeds` seeds, the case's own first."""
    lines = [
        "| baseline | makespan: case seed | min | mean | max | score: min | max |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in RANDOM_BASELINES:
        source = task.baselines()[name].read_text(encoding="utf-8")
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
    parser.add_argument("--seeds", type=int, default=50, help="seeds for the ranges of random baselines")
    arguments = parser.parse_args()
    task = load_task(Path(__file__).parent)
    print(f"test split: {task.split_note('test') or 'the public workloads'}\n")
    print("\n".join(baseline_table(task)))
    print(f"\nRandom baselines on the test split over {arguments.seeds} seeds:\n")
    print("\n".join(range_table(task, arguments.seeds)))


if __name__ == "__main__":
    main()
