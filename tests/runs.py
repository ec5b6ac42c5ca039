"""Runs as real processes: starting them, waiting for their progress, checking what their journals hold."""

from __future__ import annotations

import subprocess
import time
from collections import Counter
from pathlib import Path

from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.reader import JournalReader
from tests.cli.command import ADRS, environment


def start(*arguments: object, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as out:
        return subprocess.Popen(
            [*ADRS, *map(str, arguments)],
            stdout=out,
            stderr=out,
            stdin=subprocess.DEVNULL,
            env=environment(),
            start_new_session=True,
        )


def events_of(run: Path) -> list[Event]:
    with JournalReader(run / "journal.db") as reader:
        return list(reader.replay())


def terminal(run: Path) -> int:
    if not (run / "journal.db").exists():
        return 0
    try:
        return sum(event.kind in SETTLED for event in events_of(run))
    except (UsageError, RunError):  # the journal is just being made
        return 0


def wait_for(run: Path, candidates: int, process: subprocess.Popen[bytes], log: Path, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while terminal(run) < candidates:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def check_exact(run: Path, budget: int) -> list[Event]:
    """Exactly the budget of terminal candidates, none with two terminal states or two verdicts."""
    events = events_of(run)
    ended = Counter(e.candidate for e in events if e.kind in SETTLED)
    assert len(ended) == sum(ended.values()) == budget
    verdicts = Counter((e.candidate, e.body["split"]) for e in events if e.kind is EventKind.MEASURED)
    assert max(verdicts.values()) == 1
    return events
