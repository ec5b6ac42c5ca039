"""What the orchestration costs: CPU per candidate of runner + island + journal (+ Ray), on a trivial task.

    python -m tests.benchmarks.orchestration [--candidates 5000] [--ray]

The stub of `cluster.throughput_run` answers at once, the evaluator answers at once and runs nothing (jail off, no
fork), the journal is SQLite with fsync in a temporary folder. CPU is counted once a fifth of the candidates have ended,
so that the start of processes is left out; "flat" is the CPU of the last tenth over that of the second. With `--ray`
beside it the row of `adrs bench throughput` that does the same.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adrs_ray.candidate import Verdict
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.ledger import Ledger, RunStatus
from adrs_ray.local import LocalHost
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import load_task
from cluster.throughput import Row, measure
from cluster.throughput_run import ISLANDS, TASK, Latency, Load, StubModel, constant_verdict

IN_FLIGHT = 16
AT_ONCE = Latency(0.0)


class ConstantEvaluator:
    """A verdict at once."""

    slots = 4

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        return constant_verdict(job)

    async def close(self) -> None: ...


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    where: str
    rate: float
    cpu_ms: dict[str, float]
    """CPU per candidate by part, in milliseconds."""
    flat: float


def measure_local(candidates: int, folder: Path) -> Line:
    values = {
        "budget.max_candidates": candidates,
        "islands.count": ISLANDS,
        "islands.in_flight": IN_FLIGHT // ISLANDS,
    }
    config = override(RunConfig(), values)
    run = RunFolder.create(folder, config, str(TASK), True)
    samples: list[tuple[int, float, float]] = []
    """Candidates ended, seconds since the epoch of the clock, CPU seconds."""

    async def main() -> None:
        journal = SqliteJournal.open(run.journal)
        ledger = await Ledger.open(journal, config)
        task = load_task(str(TASK))
        models = {"mutate": StubModel(AT_ONCE)}
        parts = IslandParts(config, brief_of(task, config), models, ConstantEvaluator(), ledger)

        def sample(status: RunStatus) -> None:
            samples.append((status.candidates, time.perf_counter(), time.process_time()))

        search = Search(task, parts, run, ledger, LocalHost(parts), sample, StopSwitch())
        await search.run([Seed(task.seed_source, "seed")])
        await journal.close()

    asyncio.run(main())
    ended, at, cpu_s = map(np.array, zip(*samples, strict=True))

    def between(low: float, high: float, what: np.ndarray) -> float:
        begin, end = np.interp([low * candidates, high * candidates], ended, what)
        return float(end - begin) / ((high - low) * candidates)

    flat = between(0.9, 1.0, cpu_s) / between(0.1, 0.2, cpu_s)
    return Line("--local", 1 / between(0.2, 1.0, at), {"all in one process": 1000 * between(0.2, 1.0, cpu_s)}, flat)


def measure_ray(candidates: int) -> Line:
    measured = measure(Row("on Ray", Load(AT_ONCE, IN_FLIGHT, candidates, jailed=False)))
    return Line("on Ray", measured.rate, measured.cpu_ms, measured.flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=5000)
    parser.add_argument("--ray", action="store_true", help="on Ray, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        lines = [measure_local(options.candidates, Path(folder) / "run")]
    if options.ray:
        lines.append(measure_ray(options.candidates))
    print("| where | candidates | candidates/s | CPU ms per candidate | of these | flat |")
    print("|---|---|---|---|---|---|")
    for line in lines:
        parts = ", ".join(f"{part} {ms:.2f}" for part, ms in line.cpu_ms.items())
        total = sum(line.cpu_ms.values())
        print(f"| {line.where} | {options.candidates} | {line.rate:.0f} | {total:.2f} | {parts} | {line.flat:.2f} |")


if __name__ == "__main__":
    main()
