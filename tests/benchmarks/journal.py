"""What the journal costs: durable events/s, CPU per event, megabytes per 1,000 candidates, replay.

    python -m tests.benchmarks.journal [--candidates 2000] [--appenders 8] [--folder .]

Every append is fsynced to `--folder`'s disk. A candidate is what a run records: GENERATED with a program of 4 kB in one
append, MEASURED (8 cases of 3 metrics) and ADMITTED in a second; one in four is REJECTED at once, with no program kept.
CPU is that of the whole process, writer thread, JSON, compression and system calls included.
"""

from __future__ import annotations

import argparse
import asyncio
import heapq
import inspect
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.candidate import Candidate, CaseResult, Evaluation, Failure, FailureKind, Measurement, Refused
from adrs_ray.outcome import Standing
from adrs_ray.storage.events import generated_event, measured_event, screened_out_event, settled_event
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.reader import JournalReader
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.storage.views import RunView

PROGRAM = inspect.getsource(heapq)[:4000]


@dataclass(frozen=True, slots=True)
class Rate:
    """Events appended, and what that took."""

    events: int
    wall_s: float
    cpu_s: float

    def __str__(self) -> str:
        per_s, cpu_us = self.events / self.wall_s, self.cpu_s / self.events * 1e6
        return f"{per_s:8,.0f} events/s durable   {cpu_us:5.0f} us CPU per event"


def candidate_batches(island: int, number: int) -> list[list[Event]]:
    """The appends of one candidate."""
    name = f"{island}-{number}"
    if number % 4 == 3:
        duplicate = Failure(FailureKind.DUPLICATE, f"the same program as {island}-{number - 1}")
        return [[screened_out_event(Refused(name, island, number, "mutate:literal", (name,), duplicate), Standing())]]
    source = PROGRAM.replace("heap", f"heap{number * 7919 % 9973}", 3) + f"\n# {name}\n"
    candidate = Candidate(name, island, number, "mutate:literal", (f"{island}-{number - 1}",), source, f"{number:064x}")
    metrics = {"makespan": 0.123456789 * number, "waiting": 1.5, "moves": 17.0}
    cases = tuple(CaseResult(f"case-{i}", metrics, 0.0123456, 0.0234567) for i in range(8))
    verdict = Evaluation(1.0 / (number + 1), metrics, cases, "verified", 0.25)
    measured = measured_event(Measurement(name, "full", "train", 0, verdict), island)
    return [
        [generated_event(candidate, "mutation", 1)],
        [measured, settled_event(candidate, verdict, Standing(descriptor=(410.0, 12.0)))],
    ]


async def timed(events: int, appenders: int, one: Callable[[int], Awaitable[None]]) -> Rate:
    """Run the appenders together."""
    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(one(island) for island in range(appenders)))
    return Rate(events, time.perf_counter() - wall, time.process_time() - cpu)


async def single_events(journal: SqliteJournal, appenders: int, each: int, label: str) -> Rate:
    """Appends of one event with a small body."""

    async def one(island: int) -> None:
        for number in range(each):
            body = {"number": number, "note": "x" * 200}
            event = Event(f"{label}{island}-{number}", EventKind.LOST, f"{island}-{number}", island, body)
            await journal.append([event], journal.epoch)

    return await timed(appenders * each, appenders, one)


async def candidates(journal: SqliteJournal, appenders: int, count: int) -> Rate:
    """Whole candidates."""
    prepared = [
        [candidate_batches(island, number) for number in range(count // appenders)] for island in range(appenders)
    ]

    async def one(island: int) -> None:
        for batches in prepared[island]:
            for batch in batches:
                await journal.append(batch, journal.epoch)

    total = sum(len(batch) for island in prepared for batches in island for batch in batches)
    return await timed(total, appenders, one)


async def with_journal(path: Path, work: Callable[[SqliteJournal], Awaitable[Rate]]) -> Rate:
    """The work on a journal of its own, closed at the end."""
    journal = await asyncio.to_thread(SqliteJournal.open, path)
    try:
        return await work(journal)
    finally:
        await journal.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--appenders", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured")
    options = parser.parse_args()
    count, appenders = options.candidates - options.candidates % options.appenders, options.appenders
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        lone = asyncio.run(with_journal(folder / "lone.db", lambda j: single_events(j, 1, 1000, "lone")))
        many = asyncio.run(with_journal(folder / "many.db", lambda j: single_events(j, appenders, 1000, "many")))
        whole = asyncio.run(with_journal(folder / "run.db", lambda j: candidates(j, appenders, count)))
        megabytes = (folder / "run.db").stat().st_size / 1e6
        begun = time.perf_counter()
        with JournalReader(folder / "run.db") as reader:
            view = RunView.of(reader.replay())
        replay_s = time.perf_counter() - begun
    assert view.terminal == count, f"{view.terminal} of {count} candidates came back"
    print(f"one appender, single events      {lone}")
    print(f"{appenders} appenders, single events     {many}")
    print(f"{appenders} appenders, whole candidates  {whole}")
    print(f"CPU per candidate                {whole.cpu_s / count * 1e6:8,.0f} us ({appenders} under way)")
    print(f"file                             {megabytes / count * 1000:8.2f} MB per 1,000 candidates")
    print(f"replay into a view               {whole.events / replay_s:8,.0f} events/s")


if __name__ == "__main__":
    main()
