"""Prints the README's comparison of the two scorings: `python -m tasks.telemetry_repair.comparison`.

Programs run in this process, without the jail; figures are deterministic.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np

from adrs_ray.task import CaseResult, Combined, Task, import_private, load_task

FAULTS = {
    "(one interface)": (
        "def run_repair(telemetry, topology):\n"
        "    def off(name):\n"
        "        rx, tx = telemetry[name]['rx_rate'], telemetry[telemetry[name]['connected_to']]['tx_rate']\n"
        "        return abs(rx - tx) / max(rx, tx) if rx > 0.0 else 1.0\n"
        "    best = min(telemetry, key=off)\n"
        "    return {best: telemetry[best]}\n"
    ),
    "(nothing)": "def run_repair(telemetry, topology):\n    return {}\n",
}
"""Programs that the public formula overrates."""


def judge(task: Task, source: str) -> Combined:
    """The result of a program on the test split, in this process."""
    adapter = import_private(task.folder, "adapter")
    results = []
    for case in task.judge.cases("test"):
        random.seed(case.seed)
        np.random.seed(case.seed)
        raw = adapter.run(adapter.load(source), case.public)
        results.append(CaseResult(case.id, task.judge.score(case, raw), cpu_s=0.0, wall_s=0.0))
    return task.judge.combine(results)


def comparison(folder: Path) -> list[str]:
    """Lines of a Markdown table. Raises UsageError without the recorded snapshots."""
    sound, paper = load_task(folder), load_task(folder, scoring="paper")
    programs = {name: path.read_text(encoding="utf-8") for name, path in sound.programs().items()} | FAULTS
    lines = [
        "| program | public score | its formula on our perturbations | counter accuracy | improvement |",
        "|---|---|---|---|---|",
    ]
    for name, source in programs.items():
        public, ours = judge(paper, source), judge(sound, source)
        lines.append(
            f"| {name} | {public.score:.4f} | {ours.metrics['public_score']:.4f}"
            f" | {ours.metrics['counter_accuracy']:.4f} | {ours.score:.4f} |"
        )
    return lines


if __name__ == "__main__":
    print("\n".join(comparison(Path(__file__).parent)))
