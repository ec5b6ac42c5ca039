"""Random kills every few seconds, with SIGKILL, on a cluster of three nodes: what is lost, and how soon it is back.

    python -m tests.benchmarks.chaos [--minutes 30] [--every 6] [--seed 1]

A job with two islands, two evaluation slots, three engines (fake ones, 0.1 s per answer) and a mirror runs all the
while. Each kill hits one process at random: a slot, an island, the journal's actor, an engine, a replica's actor, a
whole node (another one joins), or the driver (the same command starts it again). Afterwards the job drains, and its
journal is checked: every event that was there at any kill is there, unchanged; no candidate has two ends or two
verdicts; nothing is left.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from statistics import quantiles

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.reader import JournalReader
from tests.cluster.nightly import job, left_of_run, write_config
from tests.cluster.nodes import SmallCluster
from tests.processes import kill
from tests.runs import events_of
from tests.tiny import write_tiny_task

WEIGHTS = {
    "evaluation slot": 4,
    "island": 4,
    "journal's actor": 3,
    "engine": 3,
    "replica's actor": 2,
    "node": 1,
    "driver": 1,
}
COMMANDS = {
    "evaluation slot": "EvaluatorActor",
    "island": "IslandActor",
    "journal's actor": "LedgerActor",
    "engine": "api_server",
    "replica's actor": "ReplicaActor",
}
BUDGET = 1_000_000
BACK_WITHIN_S = 180.0


@dataclass
class Chaos:
    """What was done, and how long it took until things went on."""

    back_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """By what was killed: until a process of its kind was there again and a candidate had ended after that."""
    seen: list[Event] = field(default_factory=list)
    """The journal at the last kill."""
    changed: int = 0
    """Events that were there at one kill and not, or different, at a later one."""


class Night:
    """The job under attack."""

    def __init__(self, nodes: SmallCluster, folder: Path, rng: random.Random) -> None:
        self.nodes, self.folder, self.rng = nodes, folder, rng
        self.run = folder / "out" / "night"
        self.task = write_tiny_task(folder)
        self.config = write_config(folder, mirror={"url": str(folder / "mirror"), "lag_s": 2.0})
        self.process = self.start()
        self.chaos = Chaos()

    def start(self) -> subprocess.Popen[bytes]:
        return job(self.nodes, self.task, self.config, self.folder, BUDGET, "--set", "cluster.wait_s=120")

    def ended(self) -> int:
        """Candidates in a terminal state."""
        try:
            with JournalReader(self.run / "journal.db") as reader:
                return len(reader.read(kinds=SETTLED))
        except (UsageError, RunError):
            return 0

    def strike(self) -> None:
        """Kill one thing, and wait until it is back and a candidate has ended."""
        self.remember()
        kind = self.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        begun = time.monotonic()
        if kind == "driver":
            self.process.kill()
            self.process.wait()
            self.process = self.start()
        elif kind == "node":
            self.nodes.kill_node(self.rng.randrange(1, 3))
            self.nodes.add_node(1, 2)
        else:
            there = self.nodes.pids(COMMANDS[kind])
            if not there:
                return
            kill([self.rng.choice(there)])
            self.nodes.await_pids(COMMANDS[kind], len(there), seconds=BACK_WITHIN_S)
        self.await_candidate()
        self.chaos.back_s[kind].append(time.monotonic() - begun)

    def await_candidate(self) -> None:
        before, deadline = self.ended(), time.monotonic() + BACK_WITHIN_S
        while self.ended() <= before:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the job does not go on:\n{(self.folder / 'log').read_text()[-4000:]}")
            time.sleep(0.05)

    def remember(self) -> None:
        """Compare the journal with what it was; an event that has been there must stay as it was."""
        now = events_of(self.run)
        self.chaos.changed += sum(old != new for old, new in zip(self.chaos.seen, now, strict=False))
        self.chaos.changed += max(0, len(self.chaos.seen) - len(now))
        self.chaos.seen = now


def attack(minutes: float, every_s: float, seed: int) -> tuple[Chaos, list[Event], dict[int, str], int]:
    """The whole run: kills, drain, the journal at the end, what was left, and the job's exit code."""
    with tempfile.TemporaryDirectory() as folder, SmallCluster() as nodes:
        night = Night(nodes, Path(folder), random.Random(seed))
        night.await_candidate()
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            time.sleep(night.rng.expovariate(1 / every_s))
            night.strike()
        night.process.terminate()
        code = night.process.wait(120)
        night.remember()
        return night.chaos, events_of(night.run), left_of_run(nodes), code


def table(chaos: Chaos) -> str:
    lines = ["| killed | times | back after, s, p50 | p95 |", "|---|---|---|---|"]
    for kind in WEIGHTS:
        took = sorted(chaos.back_s.get(kind, []))
        if len(took) == 1:
            took *= 2
        if not took:
            continue
        cuts = quantiles(took, n=20, method="inclusive")
        lines.append(f"| {kind} | {len(chaos.back_s[kind])} | {cuts[9]:.1f} | {cuts[18]:.1f} |")
    return "\n".join(lines)


def verdict(chaos: Chaos, events: list[Event], left: dict[int, str]) -> str:
    ends = Counter(e.candidate for e in events if e.kind in SETTLED)
    verdicts = Counter((e.candidate, e.body["split"]) for e in events if e.kind is EventKind.MEASURED)
    quarantined = sum("quarantine" in str(e.body.get("detail", "")) for e in events if e.kind in SETTLED)
    return (
        f"{sum(len(times) for times in chaos.back_s.values())} kills, {len(ends)} candidates, {quarantined} of them "
        f"quarantined; lost or changed events: {chaos.changed}; candidates with two ends: "
        f"{sum(count > 1 for count in ends.values())}, with two verdicts: "
        f"{sum(count > 1 for count in verdicts.values())}; processes left: {len(left)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=6.0, help="mean seconds between two kills")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chaos, events, left, _ = attack(options.minutes, options.every, options.seed)
    print(table(chaos))
    print()
    print(verdict(chaos, events, left))


if __name__ == "__main__":
    main()
