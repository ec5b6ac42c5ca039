"""What the storage tests share: events to append, and the writers that the contract suite runs against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest

from adrs_ray.storage.journal import Event, EventKind, Journal, text_ref
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.sqlite import SqliteJournal

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


@pytest.fixture(params=["memory", "sqlite"])
def writers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Writers]:
    made = _MemoryWriters() if request.param == "memory" else _SqliteWriters(tmp_path / "journal.db")
    yield made
    made.close()


@pytest.fixture
def event() -> Make:
    return make_event


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Result]], Result]:
    """Run one coroutine to its end."""
    return asyncio.run
