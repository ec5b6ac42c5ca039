"""What the orchestration costs: CPU per candidate of runner + island + journal (+ Ray), on a trivial task.

    python -m tests.benchmarks.orchestration [--candidates 5000] [--ray]

The generator answers in constant time (a new literal in a five-line program), the evaluator answers at once and runs
nothing (jail off, no fork), the journal is SQLite with fsync in a temporary folder. CPU is counted from the second
tenth of the candidates on, so that the start of processes is left out; "flat" is the CPU of the last tenth over that of
the second.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from adrs_ray.candidate import CaseResult, Completion, Evaluation, Usage, Verdict
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest, Models
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.search import Search, Seed, StopSwitch
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.task import Task, TaskSpec

SEED = "# EVOLVE-BLOCK-START\ndef f(x):\n    y = x + 1\n    return y * 2\n# EVOLVE-BLOCK-END\n"


OTHERS = "raylet, gcs, idle workers"


class ConstantModel:
    """A new program in constant time: the candidate's number becomes a literal."""

    name = "constant"
    paid = False
    durable = False
    redraws = 0

    def worst(self, request: GenerationRequest) -> Usage:
        return Usage()

    async def close(self) -> None: ...

    async def complete(self, request: GenerationRequest) -> Completion:
        _, island, decision = request.rng_key
        return Completion(SEED.replace("x + 1", f"x + {decision}{island}7"), self.name, "literal")


def constant_models(config: RunConfig, limiter: Any = None) -> Models:
    return {"mutate": ConstantModel()}


class ConstantEvaluator:
    """A verdict at once."""

    slots = 4

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        score = (hash(job.candidate) % 1000) / 1000
        cases = (CaseResult("a", {"x": score}, 0.0, 0.0),)
        return Evaluation(score, {"x": score}, cases, "unsafe", 0.0)

    async def close(self) -> None: ...


Sample: TypeAlias = tuple[int, dict[int, tuple[str, float]]]
"""Candidates ended; by process its part and CPU seconds."""


@dataclass
class Measured:
    name: str
    candidates: int
    wall_s: float
    cpu_ms: dict[str, float]
    """CPU per candidate by part, in milliseconds."""
    flat: float


def trivial_task() -> Task:
    spec = TaskSpec(name="trivial", summary="nothing", splits=("train",))
    return Task(spec, Path(), "native", SEED, Path(), lambda: None)  # type: ignore[arg-type, return-value]


def config_for(candidates: int) -> RunConfig:
    return override(RunConfig(), {"budget.max_candidates": candidates, "islands.count": 2, "islands.in_flight": 8})


def measure_local(candidates: int, folder: Path) -> Measured:
    config = config_for(candidates)
    run = RunFolder.create(folder / "local", config, "trivial", True)
    samples: list[Sample] = []

    async def main() -> None:
        journal = SqliteJournal.open(run.journal)
        ledger = await Ledger.open(journal, config)
        evaluator = ConstantEvaluator()
        parts = IslandParts(config, brief_of(trivial_task(), config), constant_models(config), evaluator, ledger)

        def sample(status: Any) -> None:
            samples.append((status.candidates, {0: ("all in one process", time.process_time())}))

        search = Search(trivial_task(), parts, run, ledger, LocalHost(parts), sample, StopSwitch())
        await search.run([Seed(SEED, "seed")])
        await journal.close()

    started = time.perf_counter()
    asyncio.run(main())
    return summary("--local", candidates, time.perf_counter() - started, samples)


def measure_ray(candidates: int, folder: Path) -> Measured:
    import ray

    from cluster.evaluator import RayEvaluator
    from cluster.island import RayHost
    from cluster.ledger import RayLedger, start_ledger
    from cluster.runtime import connect

    config = config_for(candidates)
    run = RunFolder.create(folder / "ray", config, "trivial", False)
    journal = SqliteJournal.open(run.journal)
    asyncio.run(journal.close())
    connect(None, 4)
    samples: list[Sample] = []

    async def main() -> None:
        actor = start_ledger(run.journal, journal.epoch, config)
        slots = [ray.remote(ConstantEvaluator).options(num_cpus=0, max_concurrency=64).remote() for _ in range(2)]
        ledger = RayLedger(actor, journal.epoch)
        await ledger.start_epoch()
        brief = brief_of(trivial_task(), config)
        host = RayHost(config, brief, actor, journal.epoch, slots, None, constant_models)
        evaluator = RayEvaluator(slots)
        parts = IslandParts(config, brief, constant_models(config), evaluator, ledger)
        await evaluator.start()
        processes: dict[int, tuple[str, float]] = {}

        def sample(status: Any) -> None:
            for pid, (part, seconds) in cpu_by_process().items():
                part = processes[pid][0] if part == OTHERS and pid in processes else part
                processes[pid] = (part, seconds)
            samples.append((status.candidates, dict(processes)))

        search = Search(trivial_task(), parts, run, ledger, host, sample, StopSwitch())
        await search.run([Seed(SEED, "seed")])
        sample(await ledger.status())

    started = time.perf_counter()
    asyncio.run(main())
    wall = time.perf_counter() - started
    ray.shutdown()
    return summary("on Ray", candidates, wall, samples)


def cpu_by_process() -> dict[int, tuple[str, float]]:
    """Part and CPU seconds of every process of this run, by pid."""
    parents, names, seconds = {}, {}, {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        pid = int(entry.name)
        parents[pid] = int(fields[1])
        names[pid] = command
        seconds[pid] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    found = {}
    for pid, spent in seconds.items():
        ancestor = pid
        while ancestor not in (0, 1, os.getpid()):
            ancestor = parents.get(ancestor, 0)
        if ancestor == os.getpid():
            found[pid] = (part_of(pid, names[pid]), spent)
    return found


def part_of(pid: int, command: str) -> str:
    if pid == os.getpid():
        return "driver"
    for name, part in (
        ("LedgerActor", "journal actor"),
        ("IslandActor", "island actors"),
        ("ConstantEvaluator", "evaluator actors"),
    ):
        if name in command:
            return part
    return OTHERS


def summary(name: str, candidates: int, wall_s: float, samples: list[Sample]) -> Measured:
    """CPU per candidate by part after the first tenth, and how flat it is."""
    done = samples[-1][0]

    def at(count: float, pid: int) -> float:
        """CPU seconds of a process when `count` candidates had ended."""
        before = max((s for s in samples if s[0] <= count), key=lambda s: s[0])
        after = min((s for s in samples if s[0] >= count), key=lambda s: s[0])
        share = 0.0 if after[0] == before[0] else (count - before[0]) / (after[0] - before[0])
        low, high = (s[1].get(pid, ("", 0.0))[1] for s in (before, after))
        return low + share * (high - low)

    def between(low: float, high: float) -> dict[str, float]:
        parts: dict[str, float] = {}
        for pid, (part, _) in samples[-1][1].items():
            spent = at(high * done, pid) - at(low * done, pid)
            parts[part] = parts.get(part, 0.0) + 1000 * spent / ((high - low) * done)
        return parts

    flat = sum(between(0.9, 1.0).values()) / sum(between(0.1, 0.2).values())
    return Measured(name, candidates, wall_s, between(0.1, 1.0), flat)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=5000)
    parser.add_argument("--ray", action="store_true", help="on Ray, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = [measure_local(options.candidates, Path(folder))]
        if options.ray:
            rows.append(measure_ray(options.candidates, Path(folder)))
    print("| where | candidates | candidates/s | CPU ms per candidate | of these | flat |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        parts = ", ".join(f"{part} {ms:.2f}" for part, ms in sorted(row.cpu_ms.items()))
        rate = row.candidates / row.wall_s
        total = sum(row.cpu_ms.values())
        print(f"| {row.name} | {row.candidates} | {rate:.0f} | {total:.2f} | {parts} | {row.flat:.2f} |")


if __name__ == "__main__":
    main()
