"""Detectors and interventions in whole runs that are made to fail."""

import asyncio
import itertools
from dataclasses import replace

import pytest

from adrs_ray import search
from adrs_ray.candidate import Completion
from adrs_ray.config import RunConfig, override
from adrs_ray.generator import GenerationRequest
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from tests.doubles import LiteralEvaluator, LiteralModel, asking
from tests.searching import candidates, configured, folder_for, hurry, kinds, settled, start


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


def healthy(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "budget.max_candidates": 120,
        "health.window": 20,
        "health.cooldown": 10,
        "health.interventions": True,
        "generator.redraws": 0,
    }
    return override(configured(), values | {key.replace("__", "."): value for key, value in changes.items()})


class Repeating(LiteralModel):
    """Gives its parent back."""

    async def complete(self, request: GenerationRequest) -> Completion:
        completion = await super().complete(request)
        if request.form == "text":
            return completion
        text = request.parents[0]
        if request.form == "diff":
            line = next(line for line in text.splitlines() if line.startswith("VALUE"))
            text = f"<<<<<<< SEARCH\n{line}\n=======\n{line}  # again\n>>>>>>> REPLACE\n"
        elif request.form == "rewrite":
            text = f"```python\n{text}```\n"
        return replace(completion, text=text)


def test_a_model_that_repeats_itself_is_found_out_and_something_is_done_with_rests_between(tmp_path):
    config = asking(healthy(budget__max_candidates=90))
    config = override(config, {"generator.duplicate_retries": 0})
    journal = MemoryJournal()
    result = asyncio.run(start(folder_for(tmp_path, config), journal, config, Repeating(paid=True)))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 90
    found = kinds(events, EventKind.FOUND)
    storms = [event for event in found if event.body["detector"] == "failure_storm"]
    assert storms
    assert "duplicate" in storms[0].body["evidence"]
    assert any("duplicate" in told for told in result.status.findings)
    done = kinds(events, EventKind.INTERVENED)
    assert [event.body["kind"] for event in done[:2]] == ["temperature", "operators"]
    check_rests(events, 10)


def check_rests(events: list[Event], cooldown: int) -> None:
    """No two interventions of an island, and no two tellings of one finding, within the cool-down."""
    for island in {event.island for event in events}:
        done = [e.body["decision"] for e in kinds(events, EventKind.INTERVENED) if e.island == island]
        assert all(later - earlier >= cooldown for earlier, later in itertools.pairwise(done))
        told: dict[str, int] = {}
        for event in kinds(events, EventKind.FOUND):
            if event.island == island:
                name, at = event.body["detector"], event.body["at"]
                assert at - told.get(name, -cooldown) >= cooldown
                told[name] = at


@pytest.mark.parametrize("first", [30, 37, 45, 60])
def test_rests_hold_across_a_resume(tmp_path, first):
    config = asking(healthy(budget__max_candidates=first, health__cooldown=25))
    config = override(config, {"generator.duplicate_retries": 0})
    folder = folder_for(tmp_path, config)

    async def main() -> list[Event]:
        journal = MemoryJournal()
        await start(folder, journal, config, Repeating(paid=True))
        later = journal.take_over()
        more = override(config, {"budget.max_candidates": 110})
        await start(folder, later, more, Repeating(paid=True))
        return await later.read()

    events = asyncio.run(main())
    assert len(kinds(events, EventKind.INTERVENED)) >= 2
    check_rests(events, 25)


def test_findings_about_the_run_are_told_once_within_the_cool_down_across_a_resume(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "HEALTH_INTERVAL_S", 0.0)
    config = asking(healthy(budget__max_candidates=40, health__cooldown=500))

    class Mute(LiteralModel):
        async def complete(self, request: GenerationRequest) -> Completion:
            completion = await super().complete(request)
            return replace(completion, text=None, detail="the server gave nothing")

    async def main() -> list[Event]:
        journal = MemoryJournal()
        folder = folder_for(tmp_path, config)
        await start(folder, journal, config, Mute(paid=True, delay_s=0.01))
        later = journal.take_over()
        more = override(config, {"budget.max_candidates": 80})
        await start(folder, later, more, Mute(paid=True, delay_s=0.01))
        return await later.read()

    found = [event.body["detector"] for event in kinds(asyncio.run(main()), EventKind.FOUND) if event.island == -1]
    assert "model_gone_bad" in found
    assert len(found) == len(set(found))


def history(tmp_path, name: str, config: RunConfig) -> list[object]:
    journal = MemoryJournal()
    evaluator = LiteralEvaluator(slots=1, cap=12.0)
    asyncio.run(start(folder_for(tmp_path / name, config), journal, config, None, evaluator))
    events = asyncio.run(journal.read())
    told = [(e.id, e.body.get("source"), e.body.get("score")) for e in settled(events)]
    return [*told, *(e.id for e in kinds(events, EventKind.INTERVENED))]


def test_without_interventions_looking_changes_nothing(tmp_path):
    looking = healthy(health__interventions=False, islands__count=2, islands__migration_interval=6)
    blind = override(looking, {"health.enabled": False})
    assert history(tmp_path, "a", looking) == history(tmp_path, "b", blind)


def test_two_runs_with_one_slot_and_one_seed_are_equal_with_interventions(tmp_path):
    config = healthy(islands__count=2, islands__migration_interval=6)
    first = history(tmp_path, "a", config)
    assert first == history(tmp_path, "b", config)
    assert any(isinstance(entry, str) for entry in first)
    assert first != history(tmp_path, "c", override(config, {"health.interventions": False}))


def test_nothing_is_found_where_health_is_off(tmp_path):
    config = asking(healthy(health__enabled=False, budget__max_candidates=60))
    journal = MemoryJournal()
    asyncio.run(start(folder_for(tmp_path, config), journal, config, Repeating(paid=True)))
    assert not kinds(asyncio.run(journal.read()), EventKind.FOUND, EventKind.INTERVENED)
