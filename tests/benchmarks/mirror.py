"""What a mirror costs: CPU per 1,000 events, megabytes per 1,000 candidates, restore.

    python -m tests.benchmarks.mirror [--candidates 2000] [--appenders 8] [--folder .]

Candidates are those of `tests.benchmarks.journal`; the mirror is a folder on the same disk. CPU of a mirror is that of
the whole process less that of the same journal without one; `catch up` reads a journal that is there, and does nothing
else. A store over the network adds its client's CPU, per file and not per event.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.config import RunConfig
from adrs_ray.storage import excerpt
from adrs_ray.storage.journal import Journal
from adrs_ray.storage.mirror import open_mirrored, restore
from adrs_ray.storage.runfolder import RunFolder
from adrs_ray.storage.sqlite import SqliteJournal
from tests.benchmarks.journal import candidate_batches


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of appends took, and what it left."""

    events: int
    wall_s: float
    cpu_s: float
    files: int
    bytes: int


async def _append_all(journal: Journal, appenders: int, count: int) -> int:
    prepared = [[candidate_batches(island, n) for n in range(count // appenders)] for island in range(appenders)]

    async def one(island: int) -> None:
        for batches in prepared[island]:
            for batch in batches:
                await journal.append(batch, journal.epoch)

    await asyncio.gather(*(one(island) for island in range(appenders)))
    return sum(len(batch) for island in prepared for batches in island for batch in batches)


async def measured(folder: RunFolder, config: MirrorConfig, appenders: int, count: int) -> Cost:
    """Append candidates to a run's journal, and close it; with `count` 0, bring its mirror up to it."""
    wall, cpu = time.perf_counter(), time.process_time()
    own = await asyncio.to_thread(SqliteJournal.open, folder.journal)
    journal = await open_mirrored(own, config, folder.run_yaml)
    events = await _append_all(journal, appenders, count)
    events = events or (await journal.read())[-1].seq
    await journal.close()
    spent = time.perf_counter() - wall, time.process_time() - cpu
    sizes = [] if config.url is None else [path.stat().st_size for path in Path(config.url).glob("*.gz")]
    return Cost(events, *spent, len(sizes), sum(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--candidates", type=int, default=2000)
    parser.add_argument("--appenders", type=int, default=8)
    parser.add_argument("--folder", type=Path, default=Path("."), help="on the disk to be measured")
    options = parser.parse_args()
    count, appenders = options.candidates - options.candidates % options.appenders, options.appenders
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        _print_table(Path(name).absolute(), appenders, count)


def _print_table(base: Path, appenders: int, count: int) -> None:
    def run(name: str, config: Callable[[str], MirrorConfig], of: str | None = None, candidates: int = count) -> Cost:
        folder = RunFolder.create(base / name, RunConfig(), "txn", True) if of is None else RunFolder.open(base / of)
        return asyncio.run(measured(folder, config(str(base / f"{name}-mirror")), appenders, candidates))

    alone = run("alone", lambda _: MirrorConfig())
    rows = {
        "ack: local, lag_s 5": run("local", lambda url: MirrorConfig(url=url)),
        "ack: mirror": run("mirror", lambda url: MirrorConfig(url=url, ack="mirror")),
    }
    caught_up = {}
    for level in (1, 6, 9):
        excerpt.LEVEL = level
        caught_up[f"catch up, level {level}"] = run(
            f"level{level}", lambda url: MirrorConfig(url=url), "alone", candidates=0
        )
    begun, cpu = time.perf_counter(), time.process_time()
    restored = asyncio.run(restore(str(base / "local-mirror"), base / "again"))
    restore_s, restore_cpu = time.perf_counter() - begun, time.process_time() - cpu
    assert restored.events == alone.events, f"{restored.events} of {alone.events} events came back"

    journal = (base / "alone" / "journal.db").stat().st_size
    print(f"{count} candidates, {alone.events} events, {appenders} appenders\n")
    print(
        "| | wall s | ms CPU per 1,000 events, of the mirror | files | MB per 1,000 candidates |\n|---|---|---|---|---|"
    )
    print(f"| journal alone | {alone.wall_s:.2f} | - | - | {journal / count / 1e3:.2f} |")
    for name, cost in (rows | caught_up).items():
        spent = cost.cpu_s if name in caught_up else cost.cpu_s - alone.cpu_s
        print(
            f"| {name} | {cost.wall_s:.2f} | {spent / cost.events * 1e6:.0f} | {cost.files} "
            f"| {cost.bytes / count / 1e3:.2f} |"
        )
    print(f"| restore | {restore_s:.2f} | {restore_cpu / alone.events * 1e6:.0f} | - | - |")


if __name__ == "__main__":
    main()
