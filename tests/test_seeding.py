"""The seeding phase: seeds that differ one after another, variants of each, every island has them all."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from adrs_ray import program
from adrs_ray.candidate import Completion
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest, Models
from adrs_ray.generator.mailbox import MailboxModel
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.local import LocalHost
from adrs_ray.runner import IslandParts
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.selector.cvt import CVTArchive
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.runfolder import RunFolder, post_command
from tests.doubles import LiteralEvaluator, LiteralModel, asking, stub_brief
from tests.searching import (
    candidates,
    check_requests,
    check_usage,
    configured,
    folder_for,
    hurry,
    kinds,
    settled,
    start,
    start_and_cut,
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


class Kinds(LiteralModel):
    """Seeds of different kinds, each with a value of its own; the second answer crashes."""

    async def complete(self, request: GenerationRequest) -> Completion:
        completion = await super().complete(request)
        if request.operator != "seed_different" or "/" not in request.id:
            return completion
        number = int(request.candidate.removeprefix("seed-d").replace(".", ""))
        value = 59 if request.candidate == "seed-d2.0" else 100 + number
        body = "\n".join(f"KIND_{number}_{n} = {n}" for n in range(number % 7 + 1))
        text = (
            f"Idea: kind {number}\n```python\n# EVOLVE-BLOCK-START\nVALUE = {value}\n{body}\n# EVOLVE-BLOCK-END\n```\n"
        )
        return replace(completion, text=text)


def seeding(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "budget.max_candidates": 30,
        "islands.count": 2,
        "seeding.seeds": 3,
        "seeding.variants": 2,
        "selector.archive": "cvt",
    }
    return override(configured(), values | {key.replace("__", "."): value for key, value in changes.items()})


def planted(events: list[Event]) -> dict[str, Event]:
    return {str(e.candidate): e for e in settled(events) if e.island == -1}


def test_seeds_see_the_former_ones_and_every_island_has_all_valid_ones(tmp_path):
    config = asking(seeding())
    model = Kinds(paid=True)
    journal = MemoryJournal()
    hosts: list[LocalHost] = []
    result = asyncio.run(start(folder_for(tmp_path, config), journal, config, model, hosted=hosts.append))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 30
    check_requests(events, model)
    check_usage(events, result)
    ended = planted(events)
    assert {"seed-0", "seed-d1.0", "seed-d2.0", "seed-d2.1", "seed-d3.0"} <= set(ended)
    assert ended["seed-d2.0"].kind is EventKind.REJECTED
    valid = {name for name, event in ended.items() if event.kind is EventKind.ADMITTED}
    variants = {name for name in ended if "-v" in name}
    assert {name.rsplit("-v", 1)[0] for name in variants} == {"seed-0", "seed-d1.0", "seed-d2.1", "seed-d3.0"}
    assert len(variants) == 8
    asked = {r.candidate: r for r in reversed(model.requests)}
    third = "\n".join(m.content for m in asked["seed-d3.0"].messages)
    assert "VALUE = 110" in third
    assert "VALUE = 121" in third
    assert "VALUE = 59" not in third
    assert asked["seed-d3.0"].model == "strong"
    assert {asked[name].model for name in variants} == {"small"}
    shapes = [program.shape(asyncio.run(text_of(journal, ended[n]))) for n in valid if "-v" not in n]
    assert len(shapes) == len(set(shapes))
    first = min(e.seq for e in settled(events) if e.island >= 0)
    assert all(event.seq < first for event in ended.values())
    for loop in hosts[0]._loops:
        assert valid <= loop.island._lineage._reference.keys()


async def text_of(journal: MemoryJournal, event: Event) -> str:
    return (await journal.texts([event.body["source"]]))[event.body["source"]]


def test_cells_are_fixed_when_the_islands_begin(tmp_path):
    config = asking(seeding(seeding__seeds=2, seeding__variants=2, selector__learn_bounds_from=500))
    config = override(config, {"selector.cells": 4})
    hosts: list[LocalHost] = []
    seen: list[tuple[Any, int]] = []

    class Watching(Kinds):
        async def complete(self, request: GenerationRequest) -> Completion:
            for loop in hosts[0]._loops:
                archive = loop.island.archive
                assert isinstance(archive, CVTArchive)
                if len(archive):
                    seen.append((archive.cell_of(next(iter(archive)).descriptor), len(archive)))
            return await super().complete(request)

    asyncio.run(start(folder_for(tmp_path, config), MemoryJournal(), config, Watching(paid=True), hosted=hosts.append))
    assert seen
    assert all(cell is not None for cell, _ in seen)
    assert max(size for _, size in seen) <= 4


@pytest.mark.parametrize(("first", "recorded"), [(n, n % 4 > 0) for n in range(2, 62, 3)])
def test_a_seeding_phase_cut_off_anywhere_makes_no_seed_twice(tmp_path, first, recorded):
    config = asking(seeding(budget__max_candidates=18))

    async def main(at: int) -> None:
        model = Kinds(paid=True)
        folder = folder_for(tmp_path / str(at), config)
        journal = await start_and_cut(folder, at, recorded, config, model)
        later = journal.take_over()
        result = await start(folder, later, config, model)
        events = await later.read()
        assert len(candidates(events)) == 18
        check_requests(events, model)
        check_usage(events, result)
        ended = planted(events)
        assert len([n for n in ended if "-v" in n]) == 8
        prints = [e.body["fingerprint"] for e in ended.values() if e.kind is EventKind.ADMITTED]
        assert len(prints) == len(set(prints))

    for at in (first, first + 2):
        asyncio.run(main(at))


PROGRAM = """# EVOLVE-BLOCK-START
def order(jobs):
    first = sorted(jobs, key=lambda job: job[0])
    best = None
    for job in first:
        if best is None or job[1] < best[1]:
            best = job
        elif job[1] == 3 and len(first) > 4:
            best = first[0]
    return best
VALUE = 1
# EVOLVE-BLOCK-END
"""


class Sized(LiteralEvaluator):
    """Any program is valid."""

    async def evaluate(self, job: EvaluationJob) -> Any:
        found = re.search(r"VALUE = ", job.source)
        text = f"VALUE = {len(job.source) % 7}"
        assert found is not None or job.source
        return await super().evaluate(replace(job, source=text))


def mutating(parts: IslandParts) -> IslandParts:
    models: Models = {**parts.models, "mutate": MutationModel(redraws=20, max_mutations=3)}
    return replace(parts, models=models)


@pytest.mark.parametrize("seed", range(4))
def test_without_a_model_seeds_are_mutated_until_they_differ_in_shape(tmp_path, seed):
    config = override(seeding(budget__max_candidates=25, seeding__seeds=5, seeding__variants=1), {"seed": seed})
    journal = MemoryJournal()
    folder = folder_for(tmp_path, config)
    brief = stub_brief(PROGRAM)
    asyncio.run(start(folder, journal, config, None, Sized(), brief, adapt=mutating))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 25
    ended = planted(events)
    seeds = [e for n, e in ended.items() if e.kind is EventKind.ADMITTED and "-v" not in n]
    assert len(seeds) == 6
    shapes = {event.body["shape"] for event in seeds}
    assert len(shapes) == 6
    assert not kinds(events, EventKind.REQUESTED)


def test_where_nothing_but_constants_can_change_no_seed_is_made(tmp_path):
    config = seeding(budget__max_candidates=40, seeding__seeds=2, seeding__variants=1)
    journal = MemoryJournal()
    asyncio.run(start(folder_for(tmp_path, config), journal, config))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 40
    made = [e for n, e in planted(events).items() if n.startswith("seed-d") and "-v" not in n]
    assert {e.body.get("failure") for e in made} == {"duplicate"}
    assert [n for n in planted(events) if n.startswith("seed-0-v")]


def test_a_seeding_phase_ends_within_the_budget(tmp_path):
    config = asking(seeding(budget__max_candidates=7))
    journal = MemoryJournal()
    result = asyncio.run(start(folder_for(tmp_path, config), journal, config, Kinds(paid=True)))
    assert len(candidates(asyncio.run(journal.read()))) == 7
    assert result.finished
    poor = override(asking(seeding()), {"budget.max_usd": 0.055})
    journal = MemoryJournal()
    result = asyncio.run(start(folder_for(tmp_path / "poor", poor), journal, poor, Kinds(paid=True)))
    assert "max_usd" in result.reason
    assert result.finished
    rich = override(poor, {"budget.max_usd": 5.0})
    again = asyncio.run(start(folder_for(tmp_path / "poor", poor), journal.take_over(), rich, Kinds(paid=True)))
    events = asyncio.run(journal.read())
    assert again.status.candidates == 30
    assert len([n for n in planted(events) if "-v" in n]) == 8


# People as the generator


class Answerer:
    """Answers every open request of a run, each with a value that nobody has had."""

    def __init__(self, folder: RunFolder, journal: MemoryJournal) -> None:
        self.folder = folder
        self.journal = journal
        self.asked: list[str] = []

    async def work(self) -> None:
        while True:
            await self.answer_open()
            await asyncio.sleep(0.005)

    async def answer_open(self) -> None:
        for event in kinds(await self.journal.read(), EventKind.REQUESTED):
            if event.body["request"] in self.asked:
                continue
            self.asked.append(event.body["request"])
            (parent,) = event.body["parents"]
            found = re.search(r"VALUE = \d+", (await self.journal.texts([parent]))[parent])
            assert found is not None
            value = f"VALUE = {1000 + 10 * len(self.asked)}"
            text = f"```python\n# EVOLVE-BLOCK-START\n{value}\n# EVOLVE-BLOCK-END\n```\n"
            if event.body["form"] == "diff":
                text = f"<<<<<<< SEARCH\n{found[0]}\n=======\n{value}\n>>>>>>> REPLACE\n"
            post_command(self.folder, "answer", {"request": event.body["request"], "text": text})


def mailbox_config() -> RunConfig:
    return override(
        seeding(budget__max_candidates=10, seeding__seeds=2, seeding__variants=1),
        {"generator.kind": "mailbox", "generator.operators": {"rewrite": 1.0}},
    )


def with_mailbox(parts: IslandParts) -> IslandParts:
    return replace(parts, models={"mutate": LiteralModel(), MAILBOX: MailboxModel()})


def test_people_are_asked_for_seeds_too_and_their_answers_count(tmp_path):
    config = mailbox_config()
    folder = folder_for(tmp_path, config)

    async def main() -> list[Event]:
        journal = MemoryJournal()
        answering = asyncio.create_task(Answerer(folder, journal).work())
        try:
            await start(folder, journal, config, adapt=with_mailbox)
        finally:
            answering.cancel()
        return await journal.read()

    events = asyncio.run(main())
    assert len(candidates(events)) == 10
    assert {"seed-d1.0", "seed-d2.0", "seed-d1.0-v0"} <= planted(events).keys()
    assert not kinds(events, EventKind.LOST)


def test_a_stop_leaves_the_request_for_a_seed_open_and_an_answer_given_meanwhile_counts(tmp_path):
    config = mailbox_config()
    folder = folder_for(tmp_path, config)

    async def main() -> None:
        journal = MemoryJournal()
        first = asyncio.create_task(start(folder, journal, config, adapt=with_mailbox))
        while not kinds(await journal.read(), EventKind.REQUESTED):
            await asyncio.sleep(0.005)
        post_command(folder, "stop", {})
        result = await first
        assert result.reason == "stopped by `adrs stop`"
        assert [e.body["request"] for e in kinds(await journal.read(), EventKind.REQUESTED)] == ["seed-d1.0/0"]
        later = journal.take_over()
        answerer = Answerer(folder, later)
        await answerer.answer_open()
        answering = asyncio.create_task(answerer.work())
        try:
            await start(folder, later, config, adapt=with_mailbox)
        finally:
            answering.cancel()
        events = await later.read()
        assert len(candidates(events)) == 10
        assert "seed-d1.0" in planted(events)
        assert not kinds(events, EventKind.LOST)

    asyncio.run(main())
