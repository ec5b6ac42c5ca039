"""What an island remembers: of lineages, and all of it again when it is rebuilt from the journal."""

import asyncio
import re
from dataclasses import replace
from typing import Any

import pytest

from adrs_ray.candidate import CaseResult, Completion, Failure, FailureKind, Verdict
from adrs_ray.checkup import Checkup
from adrs_ray.config import ArchiveName, ParentsName, RunConfig, override
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest
from adrs_ray.island import Island
from adrs_ray.ledger import Ledger
from adrs_ray.lineage import MOST_BROKEN, Lineage
from adrs_ray.local import LocalHost
from adrs_ray.outcome import Outcome
from adrs_ray.prompt import MetricBrief, TaskBrief
from adrs_ray.restoring import restore
from adrs_ray.storage.journal import EventKind
from adrs_ray.storage.memory import MemoryJournal
from tests.doubles import LiteralEvaluator, LiteralModel, asking, stub_brief
from tests.searching import configured, folder_for, hurry, kinds, settled, start


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


class Varied(LiteralModel):
    """Grows the program as it changes its value; every fifth answer does not compile, every seventh is no edit."""

    async def complete(self, request: GenerationRequest) -> Completion:
        completion = await super().complete(request)
        draw = sum(request.rng_key) * 31 + len(request.id)
        if completion.text is None or request.form == "text":
            return completion
        if draw % 7 == 0:
            return replace(completion, text="I would rather not.")
        broken = " =" if draw % 5 == 0 else ""
        more = "".join(f"\nX{draw % 11}_{n} = VALUE {'+-*'[draw % 3]} {n}" for n in range(draw % 4))
        found = re.search(r"VALUE =(?: =)* (\d+)\n(?:=======|# E)", completion.text.replace("=======\n", "", 1))
        value = int(found[1]) if found is not None else draw
        said = f"Idea: number {draw}\n"
        child = f"VALUE ={broken} {value + draw % 3}{more}"
        if request.form == "diff":
            line = next(line for line in request.parents[0].splitlines() if line.startswith("VALUE ="))
            return replace(completion, text=f"{said}<<<<<<< SEARCH\n{line}\n=======\n{child}\n>>>>>>> REPLACE\n")
        return replace(completion, text=f"{said}```python\n# EVOLVE-BLOCK-START\n{child}\n# EVOLVE-BLOCK-END\n```\n")


class Vector(LiteralEvaluator):
    """Three cases that want different things."""

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        verdict = await super().evaluate(job)
        if isinstance(verdict, Failure):
            return verdict
        value = int(verdict.score)
        figures = [float(value * k % m) for k, m in ((1, 50), (3, 17), (7, 23))]
        cases = tuple(CaseResult(f"c{n}", {"gain": figure}, 0.0, 0.0) for n, figure in enumerate(figures))
        return replace(verdict, score=sum(figures), metrics={"gain": sum(figures)}, cases=cases)


def vector_brief() -> TaskBrief:
    return replace(stub_brief(), metrics=(MetricBrief("gain", "", "max"),), case_metric="gain")


def state(island: Island) -> dict[str, Any]:
    """Everything that decides what an island does next."""
    lineage = island._lineage
    return {
        "archive": list(island.archive),
        "bandit": island.bandit.figures(),
        "signal": (island._signal.signal, island._signal.since_gain, island._signal.exploration),
        "reference": lineage._reference,
        "tried": lineage._tried,
        "own": lineage._own,
        "broken": list(lineage._broken),
        "children": lineage.children,
        "history": island.history(),
        "seen": island._screener._seen,
        "guidance": vars(island._guidance),
        "banned": island._population._banned,
        "spare": island._population._spare,
        "next": island._next_decision,
    }


def lived(tmp_path: Any, config: RunConfig, model: LiteralModel) -> tuple[Island, Island, MemoryJournal]:
    """An island after its run, and the same rebuilt from the journal."""
    hosts: list[LocalHost] = []
    journal = MemoryJournal()
    evaluator = Vector(slots=1)

    async def main() -> tuple[Island, Island]:
        folder = folder_for(tmp_path, config)
        await start(folder, journal, config, model, evaluator, vector_brief(), hosted=hosts.append)
        (loop,) = hosts[0]._loops
        ledger = await Ledger.open(journal.take_over(), config)
        rebuilt = Island(0, config, vector_brief())
        restored = await restore(rebuilt, ledger, Checkup(config.health))
        assert (restored.generated, restored.proposed, restored.open) == ({}, {}, {})
        rebuilt.supply(await ledger.texts(rebuilt.missing_programs()))
        return loop.island, rebuilt

    return *asyncio.run(main()), journal


def one_worker(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "budget.max_candidates": 60,
        "islands.in_flight": 1,
        "selector.capacity": 12,
        "selector.cells": 12,
        "adaptation.enabled": True,
        "health.window": 20,
        "health.cooldown": 8,
        "health.interventions": True,
        "generator.near_duplicate": 0.9,
    }
    return override(configured(), values | {key.replace("__", "."): value for key, value in changes.items()})


ARCHIVES: list[ArchiveName] = ["grid", "cvt", "topk", "pareto"]
PARENTS: list[ParentsName] = ["explore_exploit", "softmax", "lexicase", "power_law", "ucb"]


@pytest.mark.parametrize("archive", ARCHIVES)
@pytest.mark.parametrize("parents", PARENTS)
def test_an_island_of_models_rebuilt_from_the_journal_is_the_one_that_lived(tmp_path, archive, parents):
    operators = {"diff": 3.0, "rewrite": 1.0, "crossover": 1.0, "fix": 3.0, "mutate": 0.0}
    config = asking(one_worker(selector__archive=archive, selector__parents=parents))
    config = override(config, {"generator.operators": operators, "adaptation.shift_after": 9})
    live, rebuilt, journal = lived(tmp_path, config, Varied(paid=True))
    assert state(rebuilt) == state(live)
    assert [rebuilt.ask() for _ in range(8)] == [live.ask() for _ in range(8)]
    assert state(rebuilt) == state(live)
    events = asyncio.run(journal.read())
    drawn = {e.body["operator"] for e in kinds(events, EventKind.PROPOSED)}
    assert {"diff", "fix", "paradigm_shift"} <= drawn
    assert {e.kind for e in settled(events)} == {EventKind.ADMITTED, EventKind.REJECTED}
    assert rebuilt._population._programs.keys() >= {elite.source for elite in rebuilt.archive}


@pytest.mark.parametrize("archive", ARCHIVES)
def test_an_island_of_mutations_rebuilt_from_the_journal_is_the_one_that_lived(tmp_path, archive):
    live, rebuilt, _ = lived(tmp_path, one_worker(selector__archive=archive), LiteralModel())
    assert state(rebuilt) == state(live)
    assert [rebuilt.ask() for _ in range(8)] == [live.ask() for _ in range(8)]


# Prompts


def test_prompts_tell_results_attempts_hints_and_notes(tmp_path):
    operators = {"diff": 3.0, "rewrite": 1.0, "crossover": 2.0, "fix": 2.0, "mutate": 0.0}
    config = override(asking(one_worker()), {"generator.operators": operators, "prompt.inspirations": 2})
    model = Varied(paid=True)
    _, _, journal = lived(tmp_path, config, model)
    events = asyncio.run(journal.read())
    first = {r.candidate: r for r in reversed(model.requests)}
    ends = {str(e.candidate): e for e in settled(events)}
    measured = {str(e.candidate): e for e in kinds(events, EventKind.MEASURED) if e.body["split"] == "train"}
    proposed = kinds(events, EventKind.PROPOSED)
    tries: dict[str, list[str]] = {}
    told_gain = told_try = told_fix = told_note = 0
    for event in events:
        if event.kind in (EventKind.ADMITTED, EventKind.REJECTED) and event.body["parents"]:
            tries.setdefault(event.body["parents"][0], []).append(str(event.candidate))
        if event.kind is not EventKind.PROPOSED or event.body["operator"] == "paradigm_shift":
            continue
        request, parent = first[str(event.candidate)], event.body["parents"][0]
        prompt = "\n".join(message.content for message in request.messages)
        if event.body["operator"] == "fix":
            told_fix += 1
            assert " ".join(ends[parent].body["detail"].split()) in prompt
        elif parent in measured:
            for case in measured[parent].body["verdict"]["cases"]:
                assert re.search(rf"{case[0]}\b.*{case[1]['gain']:g}", prompt)
        for name in tries.get(parent, [])[-3:]:
            told_try += 1
            gain = ends[name].body.get("gain")
            assert ends[name].body["note"] in prompt
            told_gain += gain is not None and f"{gain:+.3g}".lstrip("+") in prompt
        told_note += "larger is better" in prompt
    assert min(told_gain, told_try, told_fix, told_note) > 0
    assert len({e.body["parents"][0] for e in proposed if e.body["operator"] == "fix"}) == told_fix


# Lineage alone


def outcome(candidate: str, parent: str | None, score: float | None, **changes: Any) -> Outcome:
    failure = FailureKind.CRASH if score is None else None
    parents = () if parent is None else (parent,)
    made = Outcome(candidate, 0, 0, "diff", ("small", "diff"), parents, score, failure=failure, note=f"try {candidate}")
    return replace(made, **changes)


def test_a_child_of_a_repaired_program_is_compared_with_what_the_failed_one_came_from():
    lineage = Lineage(8)
    lineage.refer("seed-0", 10.0)
    lineage.learn(outcome("0-0", "seed-0", None), "text")
    lineage.learn(outcome("0-1", "0-0", None), "text")
    assert lineage.gain(["0-1"], 12.0) == 2.0
    assert lineage.gain(["unknown"], 12.0) is None
    assert lineage.gain([], 12.0) is None


def test_each_failure_is_taken_for_repair_once_and_few_are_kept():
    lineage = Lineage(8)
    for number in range(20):
        lineage.learn(outcome(f"0-{number}", "seed-0", None), f"text {number}")
    taken = []
    while (broken := lineage.take_repairable()) is not None:
        taken.append(broken.candidate)
    assert taken == [f"0-{number}" for number in range(19, 19 - MOST_BROKEN, -1)]
    lineage.learn(outcome("0-20", "seed-0", None, failure=FailureKind.REWARD_HACKING), "text")
    lineage.learn(outcome("0-21", "seed-0", None, failure=FailureKind.DUPLICATE), None)
    assert lineage.repairable is None


def test_attempts_tell_the_line_first_and_then_what_was_tried_from_the_parent():
    lineage = Lineage(2)
    lineage.refer("seed-0", 1.0)
    lineage.learn(outcome("0-0", "seed-0", 2.0, gain=1.0), None)
    lineage.learn(outcome("0-1", "0-0", 3.0, gain=1.0), None)
    for number in range(2, 6):
        lineage.learn(outcome(f"0-{number}", "0-1", 2.5, gain=-0.5), None)
    told = lineage.attempts("0-1")
    assert [attempt.candidate for attempt in told] == ["0-0", "0-1", "0-4", "0-5"]
    assert [attempt.gain for attempt in told] == [1.0, 1.0, -0.5, -0.5]
    assert lineage.note("0-1") == "try 0-1"
    assert lineage.note("seed-0") == ""


def test_rises_are_counted_against_everything_that_was_seen():
    lineage = Lineage(0)
    lineage.refer("seed-0", 5.0)
    assert lineage.rise(7.0) == 2.0
    lineage.learn(outcome("0-0", "seed-0", 7.0), None)
    lineage.refer("0-0", 7.0)
    assert lineage.rise(6.0) == 0.0
    lineage.learn(outcome("0-1", "seed-0", 6.0), None)
    assert (lineage.since_rise, lineage.rises) == (1, [1])
