"""Whole searches in memory: quick ones, ones that are cut off at a chosen append, and what their journals must say."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray import generation, runner, search
from adrs_ray.candidate import Usage
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import Evaluator
from adrs_ray.generator import total_usage
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost
from adrs_ray.prompt import TaskBrief
from adrs_ray.runner import IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.memory import MemoryJournal, _Store
from adrs_ray.storage.runfolder import RunFolder
from tests.doubles import LiteralModel, parts_for, stub_task


class Cut(Exception):
    """The process died."""


class CuttingJournal(MemoryJournal):
    """Dies at an append: either it was recorded and nobody hears of it, or it was not."""

    def __init__(self, at: int, recorded: bool, store: _Store | None = None) -> None:
        super().__init__(store)
        self._left = at
        self._recorded = recorded

    async def append(self, batch: Sequence[Event], epoch: int) -> list[Event]:
        self._left -= 1
        if self._left == 0 and self._recorded:
            await super().append(batch, epoch)
        if self._left <= 0:
            raise Cut
        return await super().append(batch, epoch)


def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for commands, budgets and stops far more often than a real run does."""
    monkeypatch.setattr(search, "SUPERVISION_INTERVAL_S", 0.01)
    monkeypatch.setattr(runner, "LISTENING_INTERVAL_S", 0.01)
    monkeypatch.setattr(generation, "BUDGET_POLL_S", 0.005)


def configured(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "budget.max_candidates": 20,
        "islands.count": 1,
        "islands.in_flight": 2,
        "selector.learn_bounds_from": 6,
    }
    return override(RunConfig(), values | {key.replace("__", "."): value for key, value in changes.items()})


def folder_for(path: Path, config: RunConfig) -> RunFolder:
    folder = path / "run"
    return RunFolder.open(folder) if folder.exists() else RunFolder.create(folder, config, "stub", True)


async def start(
    folder: RunFolder,
    journal: MemoryJournal,
    config: RunConfig,
    model: LiteralModel | None = None,
    evaluator: Evaluator | None = None,
    brief: TaskBrief | None = None,
    seeds: Sequence[Seed] = (),
    stop: StopSwitch | None = None,
    adapt: Callable[[IslandParts], IslandParts] = lambda parts: parts,
    hosted: Callable[[LocalHost], None] = lambda host: None,
) -> RunResult:
    """One start of a run, from beginning or journal to its end. `hosted` gets the host of its islands."""
    ledger = await Ledger.open(journal, config)
    await ledger.start_epoch()
    parts = adapt(parts_for(config, ledger, model, evaluator, brief))
    task = stub_task(seed=parts.brief.seed_source)
    host = LocalHost(parts)
    hosted(host)
    run = Search(task, parts, folder, ledger, host, lambda status: None, stop or StopSwitch())
    return await asyncio.wait_for(run.run(seeds), 30)


async def start_and_cut(
    folder: RunFolder,
    at: int,
    recorded: bool,
    config: RunConfig,
    model: LiteralModel | None = None,
    adapt: Callable[[IslandParts], IslandParts] = lambda parts: parts,
) -> CuttingJournal:
    """The journal of a run that died at its `at`-th append, or of one that had ended before."""
    journal = CuttingJournal(at, recorded)
    try:
        await start(folder, journal, config, model, adapt=adapt)
    except Cut:
        pass
    return journal


def kinds(events: Sequence[Event], *wanted: EventKind) -> list[Event]:
    return [event for event in events if event.kind in wanted]


def settled(events: Sequence[Event]) -> list[Event]:
    return kinds(events, *SETTLED)


def candidates(events: Sequence[Event]) -> list[str]:
    """Those in a terminal state; each once."""
    ended = Counter(str(event.candidate) for event in settled(events))
    assert not [name for name, count in ended.items() if count > 1]
    return list(ended)


def spent(events: Sequence[Event]) -> Usage:
    """What answered and lost requests cost."""
    answered = kinds(events, EventKind.COMPLETED, EventKind.LOST)
    return total_usage([Usage(**event.body["usage"]) for event in answered])


def check_requests(events: Sequence[Event], model: LiteralModel) -> None:
    """Each request was answered or lost once, sent once at most and, where it was answered, once exactly."""
    requested = [event.body["request"] for event in kinds(events, EventKind.REQUESTED)]
    answered = Counter(event.body["request"] for event in kinds(events, EventKind.COMPLETED, EventKind.LOST))
    assert answered == Counter(requested)
    sent = Counter(request.id for request in model.requests)
    assert not [name for name, count in sent.items() if count > 1]
    assert {event.body["request"] for event in kinds(events, EventKind.COMPLETED)} <= set(sent) <= set(requested)


def check_usage(events: Sequence[Event], result: RunResult) -> None:
    """The status counts every answered or lost request once."""
    told = total_usage([model.usage for model in result.status.models.values()])
    counted = spent(events)
    assert (told.tokens, told.attempts) == (counted.tokens, counted.attempts)
    assert told.usd == pytest.approx(counted.usd)


def with_brief(parts: IslandParts, **changes: object) -> IslandParts:
    return replace(parts, brief=replace(parts.brief, **changes))  # type: ignore[arg-type]
