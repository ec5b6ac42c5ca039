"""Memory and SQLite journals do the same whatever is done to them."""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from adrs_ray.errors import RunError
from adrs_ray.storage.journal import Event, EventKind, text_ref
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.sqlite import SqliteJournal

KINDS = [EventKind.GENERATED, EventKind.MEASURED, EventKind.ADMITTED]
TEXTS = ["", "x = 1\n", "\udc80é☃", "y" * 10_000]

bodies = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_infinity=False) | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=4,
    ),
    max_size=3,
)
events = st.builds(
    Event,
    id=st.integers(0, 30).map(lambda n: f"event{n}"),
    kind=st.sampled_from(KINDS),
    candidate=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    island=st.integers(-1, 3),
    body=bodies,
    texts=st.lists(st.sampled_from(TEXTS), max_size=2).map(tuple),
)


class Journals(RuleBasedStateMachine):
    """Every step is done to both journals, and both answer the same."""

    @initialize()
    def make(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "journal.db"
        self.memory = MemoryJournal()
        self.sqlite = SqliteJournal.open(self.path)

    def both(self, method: str, *arguments: Any) -> tuple[Any, Any]:
        answers = []
        for journal in (self.memory, self.sqlite):
            try:
                answers.append(asyncio.run(getattr(journal, method)(*arguments)))
            except (RunError, ValueError, KeyError) as error:
                answers.append((type(error), error.args if isinstance(error, KeyError) else None))
        return answers[0], answers[1]

    @rule(batches=st.lists(st.lists(events, max_size=4), min_size=1, max_size=3), lag=st.sampled_from([0, 0, 0, 1]))
    def append(self, batches: list[list[Event]], lag: int) -> None:
        for batch in batches:
            memory, sqlite = self.both("append", batch, self.memory.epoch - lag)
            assert timeless(memory) == timeless(sqlite)

    @rule(fence=st.booleans())
    def go_on_with_another_writer(self, fence: bool) -> None:
        old = self.sqlite
        if not fence:
            asyncio.run(old.close())
        self.memory = self.memory.take_over()
        self.sqlite = SqliteJournal.open(self.path, wait_s=0, fence=fence)
        asyncio.run(old.close())

    @rule(
        after=st.integers(0, 40),
        kinds=st.none() | st.lists(st.sampled_from(KINDS), max_size=2),
        island=st.none() | st.integers(-1, 3),
        limit=st.none() | st.integers(0, 5),
    )
    def read(self, after: int, kinds: list[EventKind] | None, island: int | None, limit: int | None) -> None:
        memory, sqlite = self.both("read", after, kinds, island, limit)
        assert timeless(memory) == timeless(sqlite)

    @rule(chosen=st.lists(st.sampled_from(TEXTS), max_size=3))
    def texts(self, chosen: list[str]) -> None:
        memory, sqlite = self.both("texts", [text_ref(text) for text in chosen])
        assert memory == sqlite

    @invariant()
    def seqs_have_no_gaps(self) -> None:
        if hasattr(self, "sqlite"):
            seqs = [event.seq for event in asyncio.run(self.sqlite.read())]
            assert seqs == list(range(1, len(seqs) + 1))
            assert self.memory.epoch == self.sqlite.epoch

    def teardown(self) -> None:
        if hasattr(self, "sqlite"):
            asyncio.run(self.sqlite.close())
            self.folder.cleanup()


def timeless(answer: Any) -> Any:
    return [replace(event, at=0.0) for event in answer] if isinstance(answer, list) else answer


TestJournals = Journals.TestCase
TestJournals.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
