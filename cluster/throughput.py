"""What the orchestration of a run on Ray costs and how near it comes to what its models allow: `adrs bench throughput`.

Each row is a run of its own (`cluster.throughput_run`) in a process of its own, watched from outside: candidates and
latencies from its journal, CPU and memory from /proc.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.reader import JournalReader
from cluster.process_cost import DRIVER, REST, Process, by_kind, pss_mb, tree
from cluster.throughput_run import KINDS, Latency, Load, read_detail, run_load

SAMPLE_S = 0.5
MEMORY_SAMPLE_S = 3.0
"""Looking at memory takes some milliseconds of a process's own time."""
WARM_UP = 0.2
"""Share of the candidates after which a run is at work: what is counted begins there."""
ORCHESTRATION = ("islands", "journal", DRIVER)
PARTS = (*ORCHESTRATION, "evaluator", REST)

_OVERNIGHT = Latency(12.0, 120.0)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the table."""

    name: str
    """Latency, requests in flight, jail: such as 0.2/64/off."""
    load: Load


def all_rows() -> list[Row]:
    """The whole table: latencies by requests in flight, without and with the jail; and one long run."""
    rows = []
    for jailed in (False, True):
        for latency in (Latency(0.0), Latency(0.2), Latency(1.0)):
            for in_flight in (16, 64, 256):
                # About half a minute of what two cores do, and not below ten rounds of what is in flight.
                rate = min(in_flight / latency.median_s if latency.median_s else 1000, 60 if jailed else 250)
                candidates = max(int(30 * rate), 10 * in_flight)
                rows.append(_row(f"{latency.median_s:g}/{in_flight}", latency, in_flight, candidates, jailed))
        rows.append(_row("overnight/512", _OVERNIGHT, 512, 4000, jailed))
    rows.append(Row("long/64/off", Load(Latency(0.0), 64, 20_000, jailed=False)))
    return rows


def quick_rows() -> list[Row]:
    """Enough to see that it works."""
    return [_row("0/16", Latency(0.0), 16, 2000, False), _row("0.2/16", Latency(0.2), 16, 300, True)]


def _row(name: str, latency: Latency, in_flight: int, candidates: int, jailed: bool) -> Row:
    return Row(f"{name}/{'on' if jailed else 'off'}", Load(latency, in_flight, candidates, jailed))


def chosen_rows(names: Sequence[str]) -> list[Row]:
    """The rows whose names begin with one of `names`, in the order of the table.

    Raises UsageError for a name that no row begins with.
    """
    rows = all_rows()
    for name in names:
        if not any(row.name.startswith(name) for row in rows):
            raise UsageError(f"--rows {name}: no row begins so; there are {', '.join(row.name for row in rows)}")
    return [row for row in rows if any(row.name.startswith(name) for name in names)]


@dataclass(frozen=True, slots=True)
class Sample:
    """Seconds since 1970; CPU seconds so far by pid."""

    at: float
    cpu_s: dict[int, float]


@dataclass(slots=True)
class Watched:
    """What was seen of a run's processes."""

    begun: float
    samples: list[Sample] = field(default_factory=list)
    kinds: dict[int, str] = field(default_factory=dict)
    """By pid. A worker gets its name after its start, and loses it at its end: what it was called last counts."""
    peak_mb: dict[str, float] = field(default_factory=dict)
    """By kind: the largest process at its largest; of `REST` all together."""

    def look(self, found: Mapping[str, Sequence[Process]]) -> None:
        """Note the CPU time of what `process_cost.by_kind` found. That of a process that has ended is its parent's."""
        self.samples.append(Sample(time.time(), {p.pid: p.cpu_s for members in found.values() for p in members}))
        for kind, members in found.items():
            for process in members:
                if kind != REST or process.pid not in self.kinds:
                    self.kinds[process.pid] = kind

    def weigh(self, found: Mapping[str, Sequence[Process]]) -> None:
        """Note the memory of the same."""
        for kind, members in found.items():
            sizes = [pss_mb(process.pid) for process in members]
            now = sum(sizes) if kind == REST else max(sizes, default=0.0)
            self.peak_mb[kind] = max(now, self.peak_mb.get(kind, 0.0))

    @property
    def until(self) -> float:
        """When all islands were last seen: what ends takes its CPU time with it."""
        there = [sum(self.kinds[pid] == "islands" for pid in sample.cpu_s) for sample in self.samples]
        return max((s.at for s, n in zip(self.samples, there, strict=True) if n == max(there)), default=self.begun)

    def cpu_ms(self, begin: float, end: float, candidates: int) -> dict[str, float]:
        """CPU milliseconds per candidate by kind between two times, linear between samples."""
        times = [sample.at for sample in self.samples]

        def spent(kind: str) -> float:
            so_far = [sum(s for pid, s in each.cpu_s.items() if self.kinds[pid] == kind) for each in self.samples]
            low, high = np.interp([begin, end], times, so_far)
            return float(high - low)

        return {kind: 1000 * spent(kind) / candidates for kind in PARTS}


@dataclass(frozen=True, slots=True)
class Measured:
    """One row of the table."""

    row: Row
    rate: float
    """Candidates per second after the warm-up."""
    latency_s: float
    """Mean of the model's answers in that time."""
    share: float | None
    """Of what is in flight, how much is at the model; None when the model answers at once. By Little's law this is the
    rate over the ideal, in flight / latency, without the noise of requests that are under way at either end."""
    cpu_ms: dict[str, float]
    """Per candidate, by kind."""
    peak_mb: dict[str, float]
    first_s: float
    """From the start of the driver's process to the end of the first candidate of an island."""
    flat: float
    """CPU per candidate of all kinds together: the last tenth over the second."""

    @property
    def orchestration_ms(self) -> float:
        return sum(self.cpu_ms[part] for part in ORCHESTRATION)


def measure(row: Row) -> Measured:
    """Run it and watch it. Raises RunError with the run's own line when it fails."""
    with tempfile.TemporaryDirectory(prefix="adrs-throughput-") as folder:
        run = Path(folder) / "run"
        watched = _watch(row.load, run)
        with JournalReader(run / "journal.db") as reader:
            events = reader.read(kinds=[EventKind.GENERATED, *SETTLED])
    return summary(row, events, watched)


def _watch(load: Load, run: Path) -> Watched:
    """Run the load in a process of its own and look at its processes until it ends."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe(duplex=False)
    driver = spawn.Process(target=_drive, args=(load, run, theirs), daemon=True)
    watched = Watched(time.time())
    driver.start()
    theirs.close()
    assert driver.pid is not None
    memory_at = 0.0
    try:
        while driver.is_alive():
            found = by_kind(tree(driver.pid), driver.pid, KINDS)
            watched.look(found)
            if time.monotonic() - memory_at > MEMORY_SAMPLE_S:
                watched.weigh(found)
                memory_at = time.monotonic()
            driver.join(SAMPLE_S)
    finally:
        driver.terminate()
        driver.join()
    problem = ours.recv() if ours.poll() else f"the run's process ended with {driver.exitcode}"
    if problem is not None:
        raise RunError(f"{problem}")
    return watched


def _drive(load: Load, run: Path, tell: Connection) -> None:
    """In the run's own process: says None at the end, or in one line what went wrong."""
    try:
        run_load(load, run)
    except (RunError, UsageError) as error:
        tell.send(str(error))
    else:
        tell.send(None)


def summary(row: Row, events: Sequence[Event], watched: Watched) -> Measured:
    """One row's figures. `events`: GENERATED and those that end candidates, in order.

    Raises RunError when too few candidates have ended to say anything.
    """
    ended = [event.at for event in events if event.kind in SETTLED and event.island >= 0 and event.at <= watched.until]
    generated = [event for event in events if event.kind is EventKind.GENERATED and event.island >= 0]
    if len(ended) < 20 or not generated:
        raise RunError(f"{row.name}: only {len(ended)} candidates were seen to end")
    begin, end = ended[int(WARM_UP * len(ended))], ended[-1]
    done = sum(begin < at <= end for at in ended)
    told = [read_detail(event.body["detail"]) for event in generated if begin < event.at <= end]
    latency_s = float(np.mean([each.latency_s for each in told]))
    per_candidate = watched.cpu_ms(begin, end, done)
    tenth = len(ended) // 10
    last = watched.cpu_ms(ended[-tenth - 1], end, tenth)
    second = watched.cpu_ms(ended[tenth], ended[2 * tenth], tenth)
    return Measured(
        row=row,
        rate=done / (end - begin),
        latency_s=latency_s,
        share=_at_model(generated, begin, end) / row.load.in_flight if row.load.latency.median_s else None,
        cpu_ms=per_candidate,
        peak_mb=watched.peak_mb,
        first_s=ended[0] - watched.begun,
        flat=sum(last.values()) / sum(second.values()),
    )


def _at_model(generated: Sequence[Event], begin: float, end: float) -> float:
    """Requests that are at the model on average, of all islands: from what their first and last answers in between say
    of the time that all have waited."""
    by_island: dict[int, list[Event]] = {}
    for event in generated:
        if begin < event.at <= end:
            by_island.setdefault(event.island, []).append(event)
    total = 0.0
    for events in by_island.values():
        told = sorted((read_detail(event.body["detail"]) for event in events), key=lambda each: each.at)
        if len(told) > 1:
            total += (told[-1].waited_s - told[0].waited_s) / (told[-1].at - told[0].at)
    return total


HEADER = (
    "| latency | in flight | jail | candidates | candidates/s | ideal | of it | CPU ms per candidate: islands "
    "| journal | driver | these three | evaluator | rest | peak MB: island | journal | driver | evaluator | rest "
    "| first after s | flat |"
)


def table(rows: Iterable[Measured], write: Callable[[str], None]) -> None:
    """The table in Markdown, a line as soon as it is measured."""
    write(HEADER)
    write("|" + "---|" * (HEADER.count("|") - 1))
    for measured in rows:
        write(_line(measured))


def _line(measured: Measured) -> str:
    load = measured.row.load
    cells = [
        f"{load.latency.median_s:g} s" + (f", p99 {load.latency.p99_s:g} s" if load.latency.p99_s else ""),
        str(load.in_flight),
        "on" if load.jailed else "off",
        f"{load.candidates:,}",
        f"{measured.rate:.1f}",
        "" if measured.share is None else f"{load.in_flight / measured.latency_s:.1f}",
        "" if measured.share is None else f"{measured.share:.1%}",
        *(f"{measured.cpu_ms[kind]:.2f}" for kind in ORCHESTRATION),
        f"{measured.orchestration_ms:.2f}",
        *(f"{measured.cpu_ms[kind]:.2f}" for kind in ("evaluator", REST)),
        *(f"{measured.peak_mb.get(kind, 0.0):.0f}" for kind in PARTS),
        f"{measured.first_s:.1f}",
        f"{measured.flat:.2f}",
    ]
    return "| " + " | ".join(cells) + " |"
