"""A journal writer in a process of its own, told what to do line by line on standard input.

python writer_process.py JOURNAL [fence] [URL of a mirror] [ack]
append N     append one event; answers `ok <id> <seq>` or `<error class> <message>`
stream N     N appenders that append batches without end; answers `ok <first id of the batch> <its seq>` each
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.errors import RunError
from adrs_ray.storage.journal import Event, EventKind, Journal, text_ref
from adrs_ray.storage.mirror import open_mirrored
from adrs_ray.storage.sqlite import SqliteJournal

LAG_S = 0.2
"""Of the mirror."""
BATCH = 3
"""Events in each batch of a stream."""


def stream_batch(appender: int, number: int) -> list[Event]:
    """A batch of a stream; its size in bytes varies from one page of the file to many."""
    text = f"{appender}:{number};" * (1 + (number * 7919) % 4000)
    names = [f"{appender}-{number}.{part}" for part in range(BATCH)]
    return [
        Event(f"{name}:generated", EventKind.GENERATED, name, appender, {"source": text_ref(text)}, (text,))
        for name in names
    ]


def say(line: str) -> None:
    os.write(1, line.encode() + b"\n")


async def append(journal: Journal, batch: list[Event]) -> None:
    try:
        recorded = await journal.append(batch, journal.epoch)
    except RunError as error:
        say(f"{type(error).__name__} {error}")
    else:
        say(f"ok {recorded[0].id} {recorded[0].seq}")


async def stream(journal: Journal, appenders: int) -> None:
    async def one(appender: int) -> None:
        number = 0
        while True:
            await append(journal, stream_batch(appender, number))
            number += 1

    await asyncio.gather(*(one(appender) for appender in range(appenders)))


def main() -> None:
    path, options = Path(sys.argv[1]), sys.argv[2:]
    own = SqliteJournal.open(path, wait_s=5.0, fence="fence" in options)
    urls = [option for option in options if "/" in option]
    config = MirrorConfig(url=urls[0] if urls else None, lag_s=LAG_S, ack="mirror" if "ack" in options else "local")
    journal = asyncio.run(open_mirrored(own, config, path.with_name("run.yaml") if urls else None))
    say(f"ready {journal.epoch}")
    for line in sys.stdin:
        order, number = line.split()
        if order == "stream":
            asyncio.run(stream(journal, int(number)))
        asyncio.run(append(journal, [Event(f"event{number}", EventKind.LOST, None, 0, {})]))


if __name__ == "__main__":
    main()
