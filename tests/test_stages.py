"""Runs of tasks with stages over doubles: gates, what is recorded when, crashes, replays."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray.candidate import CaseResult, Evaluation, Failure, FailureKind, Verdict
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.prompt import TaskBrief
from adrs_ray.prompter import Prompter
from adrs_ray.stage_pairs import champion_growth, fidelities, gate_counts, pairs_of, stages_of
from adrs_ray.storage.events import gate_of, measurement_of
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.views import RunView
from adrs_ray.task import Stage, Task
from tests import test_cassette
from tests.doubles import LiteralEvaluator, stub_brief, stub_task
from tests.searching import Cut, CuttingJournal, configured, folder_for, settled, start
from tests.test_cassette import UnevenEvaluator, again, check_identical, taped

CHEAP, DEAR = "simulated", "measured"
EAGER: dict[str, object] = {
    "evaluator__cascade__open_until": 6,
    "evaluator__cascade__random_pass": 0.25,
    "evaluator__cascade__chance": 0.3,
}
"""A gate that closes within a short run."""


def staged(names: tuple[str, ...] = (CHEAP, DEAR)) -> Task:
    task = stub_task()
    stages = tuple(Stage(name=name) for name in names)
    return replace(task, spec=task.spec.model_copy(update={"stages": stages}))


def brief(*names: str) -> TaskBrief:
    return replace(stub_brief(), stages=names or (CHEAP, DEAR))


class StagedEvaluator(LiteralEvaluator):
    """Programs with an even VALUE are bad, so that a search has good and bad children; the device scores twice what the
    simulator does."""

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        self.jobs.append(job)
        await asyncio.sleep(self.delay_s)
        value = int(job.source.partition("VALUE = ")[2].split()[0])
        if job.split == "train" and job.stage == CHEAP and value % 9 == 8:
            return Failure(FailureKind.CRASH, "eight", "case")
        if job.split == "train" and job.stage == DEAR and value % 9 == 6:
            return Failure(FailureKind.INVALID, "six on the device", "case")
        worth = float(value if value % 2 else -100 - value)
        score = {CHEAP: worth, "between": worth + 1, DEAR: 2 * worth}[job.stage]
        return Evaluation(score, {"value": score}, (CaseResult("case", {}, 0.0, 0.0),), "unsafe", 0.0, attempts=1)


def run(
    path: Path,
    evaluator: LiteralEvaluator,
    journal: MemoryJournal | None = None,
    told: TaskBrief | None = None,
    **changes: object,
) -> list[Event]:
    """The journal of a run to its end."""
    journal = journal or MemoryJournal()
    config = configured(**({"budget__max_candidates": 60} | EAGER | changes))
    folder = folder_for(path, config)

    async def whole() -> list[Event]:
        await start(folder, journal, config, evaluator=evaluator, brief=told or brief())
        return await journal.read()

    return asyncio.run(whole())


@pytest.fixture
def no_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The double of the task names no stages; what is judged at the end is not what these tests are about."""
    monkeypatch.setattr("tests.searching.stub_task", lambda seed: replace(staged(), seed_source=seed))


pytestmark = pytest.mark.usefixtures("no_held_out")


def measured(events: list[Event], candidate: str) -> list[Event]:
    return [
        e for e in events if e.kind is EventKind.MEASURED and e.candidate == candidate and e.body["split"] == "train"
    ]


def ended(events: list[Event], kind: str) -> list[Event]:
    return [event for event in settled(events) if event.body.get("failure") == kind]


def test_each_candidate_passes_the_stages_in_order_and_the_last_one_gives_the_score(tmp_path):
    evaluator = StagedEvaluator()
    events = run(tmp_path, evaluator, evaluator__cascade__open_until=1000)
    for event in settled(events):
        if event.kind is EventKind.ADMITTED:
            stages = event.body["stages"]
            assert list(stages) == [CHEAP, DEAR]
            assert event.body["score"] == stages[DEAR] == 2 * stages[CHEAP]
            first, second = measured(events, event.candidate)
            assert [e.body["stage"] for e in (first, second)] == [CHEAP, DEAR]
            assert gate_of(first).by == "open"
            assert gate_of(second) is None
            assert first.seq < second.seq < event.seq
            assert event.seq == second.seq + 1
    assert not ended(events, "gated")
    assert {job.stage for job in evaluator.jobs if job.split != "train"} == {DEAR}


def test_a_failure_in_a_cheap_stage_never_reaches_the_device(tmp_path):
    evaluator = StagedEvaluator()
    events = run(tmp_path, evaluator)
    crashed = {event.candidate for event in ended(events, "crash")}
    assert crashed
    assert not [job for job in evaluator.jobs if job.stage == DEAR and job.candidate in crashed]
    for event in ended(events, "invalid"):
        assert event.body["stages"].keys() == {CHEAP}
        assert event.body["detail"] == "six on the device"


def test_what_is_held_back_is_rejected_in_one_batch_with_its_reasons(tmp_path):
    evaluator = StagedEvaluator()
    events = run(tmp_path, evaluator)
    held = ended(events, "gated")
    assert held
    for event in held:
        (cheap,) = measured(events, event.candidate)
        gate = gate_of(cheap)
        assert gate.by == "held"
        assert gate.chance < 0.3
        assert cheap.seq + 1 == event.seq
        score = measurement_of(cheap).verdict.score
        for words in (CHEAP, DEAR, f"{score:.6g}", f"{gate.predicted:.6g}", f"{gate.chance:.2g}"):
            assert words in event.body["detail"]
        assert event.body["stages"] == {CHEAP: score}
    assert not [job for job in evaluator.jobs if job.stage == DEAR and job.candidate in {e.candidate for e in held}]


def test_marks_say_who_passed_at_random_and_fidelity_is_read_from_the_journal(tmp_path):
    half = EAGER | {"evaluator__cascade__random_pass": 0.5}
    config = configured(**half).evaluator.cascade
    events = run(tmp_path, StagedEvaluator(), **half | {"budget__max_candidates": 120})
    view = RunView.of(events)
    counts = gate_counts(view, CHEAP)
    by = Counter(gate_of(e).by for e in events if e.kind is EventKind.MEASURED and gate_of(e) is not None)
    assert counts == {name: by[name] for name in ("open", "chance", "random", "held")}
    assert counts["random"] > 0
    assert counts["held"] == view.failures[FailureKind.GATED]
    assert stages_of(view) == (CHEAP, DEAR)
    pairs = pairs_of(view, CHEAP, DEAR, config)
    assert len(pairs) == len(view.admitted)
    assert {pair.candidate for pair in pairs if pair.weight == 2.0} == view.random_passes & view.admitted.keys()
    (found,) = fidelities(view, config)
    assert found.spearman.value == pytest.approx(1.0)
    assert found.regret == 0.0
    assert not found.growths or not found.growths[0].is_exploited
    assert champion_growth(view) is None or champion_growth(view)[0] == CHEAP


def test_programs_that_a_run_starts_from_are_never_held_back(tmp_path):
    events = run(tmp_path, StagedEvaluator(), seeding__seeds=4, seeding__variants=4)
    seeds = [event for event in settled(events) if event.island == -1]
    assert len(seeds) > 1
    assert not [event for event in seeds if event.body.get("failure") == "gated"]


def test_two_runs_with_one_slot_are_equal(tmp_path):
    first, second = (
        run(tmp_path / name, StagedEvaluator(slots=1), islands__in_flight=3, islands__count=2) for name in "ab"
    )
    assert ended(first, "gated")
    assert test_cassette.facts_of(first) == test_cassette.facts_of(second)


def test_three_stages_have_two_gates(tmp_path):
    events = run(tmp_path, StagedEvaluator(), told=brief(CHEAP, "between", DEAR), budget__max_candidates=90)
    view = RunView.of(events)
    assert stages_of(view) == (CHEAP, "between", DEAR)
    assert gate_counts(view, CHEAP)["held"] > 0
    assert gate_counts(view, "between")["open"] >= 6
    assert len(fidelities(view, configured(**EAGER).evaluator.cascade)) == 2


def test_a_noisy_task_is_measured_again_in_the_last_stage_only(tmp_path):
    events = run(tmp_path, StagedEvaluator(), told=replace(brief(), noisy=True))
    repeats = Counter(
        (e.body["stage"], e.body["repeat"])
        for e in events
        if e.kind is EventKind.MEASURED and e.body["split"] == "train"
    )
    assert repeats[CHEAP, 1] == 0
    assert repeats[DEAR, 1] > 0


@pytest.mark.parametrize("recorded", [True, False])
def test_a_crash_neither_loses_nor_repeats_a_cheap_stage(tmp_path, recorded):
    """Cut at every append of a short run: the cheap verdict that was recorded is adopted, its gate not asked again."""
    for at in range(2, 26, 3):
        path, evaluator = tmp_path / f"{recorded}-{at}", StagedEvaluator()
        journal = CuttingJournal(at, recorded)
        with pytest.raises(Cut):
            run(path, evaluator, journal, budget__max_candidates=16)
        before = asyncio.run(journal.read())
        evaluator.jobs.clear()
        events = run(path, evaluator, MemoryJournal(journal._store), budget__max_candidates=16)
        assert len(settled(events)) == 16
        assert max(Counter(event.id for event in events).values()) == 1
        gone_on = {e.candidate for e in before if e.kind is EventKind.MEASURED and e.body["stage"] == CHEAP}
        over = {e.candidate for e in before if e.kind in SETTLED}
        assert not [j for j in evaluator.jobs if j.stage == CHEAP and j.split == "train" and j.candidate in gone_on]
        for name in gone_on - over:
            (job,) = [j for j in evaluator.jobs if j.candidate == name and j.split == "train"]
            assert (job.stage, job.attempts > 0) == (DEAR, True)


class UnevenStages(UnevenEvaluator):
    """As staged, after random times."""

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        async with self._free:
            await asyncio.sleep(self._rng.uniform(0, self._most_s))
            return await StagedEvaluator.evaluate(self, job)  # type: ignore[arg-type]


@pytest.mark.parametrize(("slots", "most_s"), [(1, 0.0), (4, 0.004)])
def test_a_strict_replay_of_a_task_with_stages_is_identical(tmp_path, monkeypatch, slots, most_s):
    monkeypatch.setattr(test_cassette, "UnevenEvaluator", UnevenStages)
    changes = EAGER | {"budget__max_candidates": 90, "islands__count": 2, "islands__in_flight": 4}
    cassette, events = taped(tmp_path, test_cassette.configured(**changes), paid=False, task=staged())
    assert ended(events, "gated")
    assert {key[1] for key in cassette.verdicts} == {CHEAP, DEAR}
    replayed, repeated = again(tmp_path, cassette, slots=slots, most_s=most_s, task=staged())
    check_identical(events, replayed, repeated)


def test_prompts_tell_what_a_held_back_or_failed_program_did_in_the_stage_where_it_ended(tmp_path):
    journal = MemoryJournal()
    events = run(tmp_path, StagedEvaluator(), journal)
    prompter = Prompter(brief(), configured(), journal)  # type: ignore[arg-type]

    def verdict(candidate: str) -> Verdict | None:
        return asyncio.run(prompter._verdict(candidate))

    held, crashed = ended(events, "gated")[0], ended(events, "crash")[0]
    told = verdict(held.candidate)
    assert isinstance(told, Failure)
    assert (told.kind, told.detail) == (FailureKind.GATED, held.body["detail"])
    assert isinstance(verdict(crashed.candidate), Failure)
    admitted = next(event for event in settled(events) if event.kind is EventKind.ADMITTED)
    best = verdict(admitted.candidate)
    assert isinstance(best, Evaluation)
    assert best.score == admitted.body["score"]
