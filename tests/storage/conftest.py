"""What the storage tests share: events to append, and the writers that the contract suite runs against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from adrs_ray.cluster_config import MirrorConfig
from adrs_ray.storage.journal import Event, EventKind, Journal, text_ref
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.mirror import open_mirrored
from adrs_ray.storage.sqlite import SqliteJournal
from tests.storage.writer import Writer

Result = TypeVar("Result")
Make = Callable[..., Event]


COMMON_BODY: dict[str, Any] = {
    "decision": 0,
    "operator": "test",
    "arm": ["mutate", "mutate"],
    "parents": [],
    "source": "",
    "fingerprint": "",
    "cost": 0.0,
}
KIND_BODIES: dict[EventKind, dict[str, Any]] = {
    EventKind.MEASURED: {"stage": "full", "split": "train", "repeat": 0, "verdict": {"score": 0.0, "attempts": 1}},
    EventKind.ADMITTED: {"score": 0.0, "metrics": {}, "descriptor": [0.0, 0.0]},
}


def make_event(
    number: int | str, island: int = 0, kind: EventKind = EventKind.GENERATED, text: str | None = None, **body: Any
) -> Event:
    """An event with a body as its kind has it, changed by `body` and, when given, a text that the body refers to."""
    body = {**COMMON_BODY, **KIND_BODIES.get(kind, {}), **body}
    if text is not None:
        body["source"] = text_ref(text)
    candidate = f"{island}-{number}"
    return Event(f"{candidate}:{kind}", kind, candidate, island, body, () if text is None else (text,))


class Writers(Protocol):
    """A journal under test: `first` is its writer, `successor` fences it, as a resumed run does."""

    first: Journal

    def successor(self) -> Journal: ...


class _MemoryWriters:
    def __init__(self) -> None:
        self.first = MemoryJournal()

    def successor(self) -> Journal:
        return self.first.take_over()

    def close(self) -> None:
        asyncio.run(self.first.close())


class _SqliteWriters:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.first = SqliteJournal.open(path)
        self._all = [self.first]

    def successor(self) -> Journal:
        self._all.append(SqliteJournal.open(self._path, fence=True))
        return self._all[-1]

    def close(self) -> None:
        for journal in self._all:
            asyncio.run(journal.close())


class _MirroredWriters:
    def __init__(self, path: Path, config: MirrorConfig) -> None:
        self._path = path
        self._config = config
        self._all: list[Journal] = []
        self.first = self._open()

    def successor(self) -> Journal:
        return self._open()

    def _open(self) -> Journal:
        journal = SqliteJournal.open(self._path, fence=True)
        self._all.append(asyncio.run(open_mirrored(journal, self._config, None)))
        return self._all[-1]

    def close(self) -> None:
        for journal in self._all:
            asyncio.run(journal.close())


@pytest.fixture(params=["memory", "sqlite", "mirrored", "mirrored, ack: mirror"])
def writers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Writers]:
    made: _MemoryWriters | _SqliteWriters | _MirroredWriters
    path = tmp_path / "journal.db"
    if request.param == "memory":
        made = _MemoryWriters()
    elif request.param == "sqlite":
        made = _SqliteWriters(path)
    elif request.param == "mirrored":
        made = _MirroredWriters(path, MirrorConfig(url=str(tmp_path / "mirror"), lag_s=0.05))
    else:
        made = _MirroredWriters(path, MirrorConfig(url=f"memory://{tmp_path}", ack="mirror"))
    yield made
    made.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Writer]]:
    """Start writers, which are killed at the end."""
    started: list[Writer] = []

    def make(journal: Path, *options: str) -> Writer:
        started.append(Writer(journal, *options))
        return started[-1]

    yield make
    for writer in started:
        if writer.process.returncode is None:
            writer.end()


@pytest.fixture
def event() -> Make:
    return make_event


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Result]], Result]:
    """Run one coroutine to its end."""
    return asyncio.run
