"""Whole runs over doubles at the model and the evaluator; journal, ledger, islands and supervisor are real."""

import asyncio
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray.candidate import Candidate, Completion, Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import RunConfig, override
from adrs_ray.errors import RunError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.storage.events import generated_event
from adrs_ray.storage.journal import SETTLED, Event, EventKind, Journal
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.runfolder import RunFolder, post_command
from adrs_ray.storage.sqlite import SqliteJournal
from adrs_ray.storage.views import RunView
from tests.doubles import SEED, LiteralEvaluator, LiteralModel, asking, parts_for, stub_task


def configured(**changes: object) -> RunConfig:
    values = {"budget.max_candidates": 60, "islands.migration_interval": 6, "islands.in_flight": 3}
    return override(RunConfig(), values | {key.replace("__", "."): value for key, value in changes.items()})


async def run_once(
    folder: RunFolder,
    journal: Journal,
    config: RunConfig,
    model: LiteralModel | None = None,
    evaluator: LiteralEvaluator | None = None,
    stop: StopSwitch | None = None,
    seeds: tuple[Seed, ...] = (Seed(SEED, "seed"),),
) -> RunResult:
    ledger = await Ledger.open(journal, config)
    await ledger.start_epoch()
    parts = parts_for(config, ledger, model, evaluator)
    search = Search(stub_task(), parts, folder, ledger, LocalHost(parts), lambda status: None, stop or StopSwitch())
    return await search.run(seeds)


def folder_for(path: Path, config: RunConfig) -> RunFolder:
    return RunFolder.create(path / "run", config, "stub", True)


def settled(events: list[Event]) -> list[Event]:
    return [event for event in events if event.kind in SETTLED]


def check_exact(events: list[Event], budget: int) -> None:
    """The budget of terminal candidates, none twice; nothing evaluated before it was acknowledged."""
    ended = Counter(event.candidate for event in settled(events))
    assert sum(ended.values()) == len(ended) == budget
    position = {event.id: event.seq for event in events}
    for event in events:
        if event.kind is EventKind.MEASURED and not str(event.candidate).startswith("baseline"):
            assert position[f"{event.candidate}:generated"] < event.seq
    assert max(Counter(event.id for event in events).values()) == 1


def test_a_run_ends_with_exactly_its_budget_and_a_champion_chosen_on_validation(tmp_path):
    config = configured()
    journal = MemoryJournal()
    evaluator = LiteralEvaluator()
    folder = folder_for(tmp_path, config)
    result = asyncio.run(run_once(folder, journal, config, evaluator=evaluator))
    events = asyncio.run(journal.read())
    check_exact(events, 60)
    assert result.finished
    assert result.champion is not None
    judged = result.status.judged
    top = [leader.candidate for leader in result.status.leaders[:5]]
    scores = {name: judged[name]["validation"] for name in top}
    champion = scores[result.champion.candidate]
    assert isinstance(champion, Evaluation)
    assert all(champion.score >= v.score for v in scores.values() if isinstance(v, Evaluation))
    assert set(result.verdicts) == {result.champion.candidate, "seed-0"}
    assert [job.candidate for job in evaluator.jobs if job.split == "test"] == [result.champion.candidate, "seed-0"]
    assert folder.best_program.read_text() == result.champion_source
    view = RunView.of(events)
    assert view.terminal == result.status.candidates == 60
    assert view.champion == result.champion.candidate
    failures = {kind.value: count for kind, count in view.failures.items()}
    assert failures == dict(result.status.failures)
    assert {"duplicate", "crash"} <= set(failures)


def test_duplicates_are_redrawn_first_and_never_evaluated(tmp_path):
    config = configured(budget__max_candidates=40)
    journal = MemoryJournal()
    evaluator, model = LiteralEvaluator(), LiteralModel(redraws=3)
    asyncio.run(run_once(folder_for(tmp_path, config), journal, config, model, evaluator))
    events = asyncio.run(journal.read())
    rejected = [e for e in events if e.kind is EventKind.REJECTED and e.body["failure"] == FailureKind.DUPLICATE]
    assert rejected
    assert not {e.candidate for e in rejected} & {job.candidate for job in evaluator.jobs}
    assert model.calls > 40
    for number in (0, 1):
        mine = [j.source for j in evaluator.jobs if j.split == "train" and j.candidate.startswith(f"{number}-")]
        assert len(mine) == len(set(mine))


def test_elites_migrate_through_the_journal(tmp_path):
    config = configured(budget__max_candidates=80, islands__count=3)
    journal = MemoryJournal()
    asyncio.run(run_once(folder_for(tmp_path, config), journal, config))
    migrated = [e for e in asyncio.run(journal.read()) if e.kind is EventKind.MIGRATED]
    assert migrated
    assert all(e.island == (e.body["from"] + 1) % 3 for e in migrated)
    children = [e for e in asyncio.run(journal.read()) if e.kind is EventKind.GENERATED and e.island >= 0]
    abroad = [e for e in children if any(not p.startswith((f"{e.island}-", "seed")) for p in e.body["parents"])]
    assert abroad


@pytest.mark.parametrize("stop_after", [1, 7, 23, 41])
def test_a_run_cut_off_anywhere_goes_on_to_exactly_its_budget(tmp_path, stop_after):
    config = configured()
    folder = folder_for(tmp_path, config)

    class Cut(Exception):
        pass

    class CuttingJournal(SqliteJournal):
        async def append(self, batch, epoch):
            recorded = await super().append(batch, epoch)
            self.appends = getattr(self, "appends", 0) + 1
            if self.appends >= stop_after:
                raise Cut
            return recorded

    async def cut() -> None:
        journal = CuttingJournal.open(folder.journal)
        with pytest.raises(Cut):
            await run_once(folder, journal, config)
        await journal.close()

    async def again() -> tuple[RunResult, list[Event]]:
        journal = SqliteJournal.open(folder.journal)
        result = await run_once(folder, journal, config, seeds=())
        events = await journal.read()
        await journal.close()
        return result, events

    if stop_after == 1:
        asyncio.run(cut())
        journal = SqliteJournal.open(folder.journal)
        asyncio.run(run_once(folder, journal, config))
        check_exact(asyncio.run(journal.read()), 60)
        return
    asyncio.run(cut())
    result, events = asyncio.run(again())
    check_exact(events, 60)
    assert result.status.resumes == 1
    pending = [e for e in events if e.kind is EventKind.GENERATED and e.epoch == 1]
    ended_before = {e.candidate for e in settled(events) if e.epoch == 1}
    reopened = [e for e in pending if e.candidate not in ended_before]
    attempts = {e.candidate: e.body["verdict"]["attempts"] for e in events if e.kind is EventKind.MEASURED}
    assert all(attempts[e.candidate] >= 2 for e in reopened)


def test_what_is_under_way_on_islands_that_are_not_up_yet_is_not_granted_again(tmp_path):
    config = configured(budget__max_candidates=10)

    async def main() -> int:
        journal = MemoryJournal()
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        for number in range(4):
            candidate = Candidate(f"1-{number}", 1, number, "literal", (), f"{SEED}# {number}", str(number))
            await ledger.append([generated_event(candidate, "literal", 1)], ledger.epoch)
        resumed = await Ledger.open(journal.take_over(), config)
        await resumed.start_epoch()
        await resumed.reopen(0, 0, "fast island")
        granted = 0
        while more := await resumed.grant(0, 32, f"{granted}"):
            granted += more
        await resumed.reopen(1, 4, "slow island")
        return granted + await resumed.grant(1, 32, "late")

    assert asyncio.run(main()) == 6


def test_a_paid_request_without_an_answer_is_made_again_and_ends(tmp_path):
    config = asking(configured(budget__max_candidates=20, islands__count=1))
    folder = folder_for(tmp_path, config)
    journal = MemoryJournal()

    class Stuck(LiteralModel):
        async def complete(self, request: GenerationRequest) -> Completion:
            if request.candidate == "0-3":
                await asyncio.Event().wait()
            return await super().complete(request)

    async def main() -> list[Event]:
        first = asyncio.create_task(run_once(folder, journal, config, Stuck(paid=True)))
        while len(settled(await journal.read())) < 10:
            await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await run_once(folder, journal.take_over(), config, LiteralModel(paid=True), seeds=())
        return await journal.read()

    events = asyncio.run(main())
    check_exact(events, 20)
    proposed = {e.candidate for e in events if e.kind is EventKind.PROPOSED}
    assert "0-3" in proposed
    assert proposed <= {e.candidate for e in settled(events)}


def test_no_program_is_measured_twice_on_a_held_out_split(tmp_path):
    config = configured()
    evaluator = LiteralEvaluator()
    asyncio.run(run_once(folder_for(tmp_path, config), MemoryJournal(), config, evaluator=evaluator))
    held_out = Counter((job.candidate, job.split) for job in evaluator.jobs if job.split != "train")
    assert max(held_out.values()) == 1


def test_a_run_that_is_cut_off_records_no_verdict_on_validation_that_never_was(tmp_path):
    config = configured(budget__max_candidates=1000)
    journal = MemoryJournal()

    class Closing(LiteralEvaluator):
        """Answers what is under way as a closed evaluator does."""

        def __init__(self) -> None:
            super().__init__(delay_s=0.01)
            self.closed = asyncio.Event()
            self.validating = asyncio.Event()

        async def evaluate(self, job: EvaluationJob) -> Verdict:
            if job.split != "validation":
                return await super().evaluate(job)
            self.validating.set()
            await self.closed.wait()
            return Failure(FailureKind.INFRASTRUCTURE, "the evaluator was closed")

    async def main() -> None:
        evaluator = Closing()
        run = asyncio.create_task(run_once(folder_for(tmp_path, config), journal, config, evaluator=evaluator))
        await evaluator.validating.wait()
        run.cancel()
        await asyncio.gather(run, return_exceptions=True)
        evaluator.closed.set()
        await asyncio.sleep(0.05)

    asyncio.run(main())
    assert not [e for e in asyncio.run(journal.read()) if e.id.endswith("validation:0")]


def test_a_stopped_run_begins_nothing_new_though_it_was_granted_more(tmp_path, monkeypatch):
    config = configured(budget__max_candidates=5000)
    stop = StopSwitch()
    drained = asyncio.Event()
    drain = LocalHost.drain

    async def noted(host: LocalHost) -> None:
        await drain(host)
        drained.set()

    class Gated(LiteralEvaluator):
        async def evaluate(self, job: EvaluationJob) -> Verdict:
            if job.split == "train" and job.candidate != "seed-0":
                stop.drain("stopped by a test")
                await drained.wait()
            return await super().evaluate(job)

    monkeypatch.setattr(LocalHost, "drain", noted)
    evaluator = Gated()
    result = asyncio.run(
        run_once(folder_for(tmp_path, config), MemoryJournal(), config, evaluator=evaluator, stop=stop)
    )
    assert not result.finished
    begun = [job for job in evaluator.jobs if job.split == "train"]
    assert len(begun) <= 1 + config.islands.count * config.islands.in_flight


def test_a_stop_while_the_seeds_are_evaluated_lets_no_island_begin(tmp_path):
    config = configured(budget__max_candidates=5000)
    stop = StopSwitch()

    class Interrupted(LiteralEvaluator):
        async def evaluate(self, job: EvaluationJob) -> Verdict:
            stop.drain("stopped by a test")
            return await super().evaluate(job)

    evaluator = Interrupted()
    result = asyncio.run(
        run_once(folder_for(tmp_path, config), MemoryJournal(), config, evaluator=evaluator, stop=stop)
    )
    assert not result.finished
    assert [job.candidate for job in evaluator.jobs if job.split == "train"] == ["seed-0"]


def test_a_stop_that_was_asked_before_this_start_is_taken_in_but_not_obeyed(tmp_path):
    config = configured(budget__max_candidates=20)
    folder = folder_for(tmp_path, config)
    journal = MemoryJournal()
    command = folder.commands / f"{post_command(folder, 'stop', {})}.json"
    os.utime(command, (command.stat().st_mtime - 60,) * 2)
    result = asyncio.run(run_once(folder, journal, config))
    assert result.finished
    assert result.status.candidates == 20
    assert len([e for e in asyncio.run(journal.read()) if e.kind is EventKind.COMMAND]) == 1


def test_a_finished_run_is_extended_by_a_larger_budget(tmp_path):
    config = configured(budget__max_candidates=20)
    folder = folder_for(tmp_path, config)
    journal = MemoryJournal()
    asyncio.run(run_once(folder, journal, config))
    more = override(config, {"budget.max_candidates": 50})
    result = asyncio.run(run_once(folder, journal, more, seeds=()))
    check_exact(asyncio.run(journal.read()), 50)
    assert result.status.candidates == 50


def test_resuming_a_finished_run_changes_nothing_and_looks_at_test_no_second_time(tmp_path):
    config = configured(budget__max_candidates=20)
    folder = folder_for(tmp_path, config)
    journal = MemoryJournal()
    first = asyncio.run(run_once(folder, journal, config))
    evaluator = LiteralEvaluator()
    second = asyncio.run(run_once(folder, journal, config, evaluator=evaluator, seeds=()))
    assert evaluator.jobs == []
    assert second.champion == first.champion
    assert second.verdicts.keys() == first.verdicts.keys()


def test_a_stop_command_drains_and_is_journaled_once(tmp_path):
    config = configured(budget__max_candidates=5000)
    folder = folder_for(tmp_path, config)
    journal = MemoryJournal()

    async def main() -> RunResult:
        run = asyncio.create_task(run_once(folder, journal, config, evaluator=LiteralEvaluator(delay_s=0.01)))
        await asyncio.sleep(0.5)
        post_command(folder, "stop", {})
        return await asyncio.wait_for(run, 10)

    result = asyncio.run(main())
    assert not result.finished
    assert "adrs stop" in result.reason
    events = asyncio.run(journal.read())
    generated = {e.candidate for e in events if e.kind is EventKind.GENERATED}
    assert generated <= {e.candidate for e in settled(events)}
    assert len([e for e in events if e.kind is EventKind.COMMAND]) == 1
    assert RunView.of(events).champion is None
    assert not any(e.kind is EventKind.MEASURED and e.body["split"] == "test" for e in events)
    more = override(config, {"budget.max_candidates": result.status.candidates + 10})
    again = asyncio.run(run_once(folder, journal, more, seeds=()))
    check_exact(asyncio.run(journal.read()), again.status.candidates)
    assert again.finished


@pytest.mark.parametrize(
    ("key", "value", "word"),
    [("budget__target_score", 8.0, "target"), ("budget__patience", 30, "better"), ("budget__max_wall_s", 0.5, "wall")],
)
def test_each_stop_rule_ends_a_run_that_is_judged_at_the_end(tmp_path, key, value, word):
    config = configured(budget__max_candidates=100_000, **{key: value})
    evaluator = LiteralEvaluator(delay_s=0.005, cap=20.0)
    journal = MemoryJournal()
    result = asyncio.run(run_once(folder_for(tmp_path, config), journal, config, evaluator=evaluator))
    assert word in result.reason
    assert result.finished
    assert result.verdicts
    assert result.status.candidates < 100_000


def test_a_seed_that_fails_ends_the_run_in_one_line(tmp_path):
    config = configured()
    seed = SEED.replace("VALUE = 1", "VALUE = 9")
    with pytest.raises(RunError, match="seed of stub fails on train: crash: nine"):
        asyncio.run(run_once(folder_for(tmp_path, config), MemoryJournal(), config, seeds=(Seed(seed, "seed"),)))


def test_warm_starts_are_seeds_too_and_the_same_program_twice_is_one(tmp_path):
    config = configured(budget__max_candidates=12)
    journal = MemoryJournal()
    seeds = (Seed(SEED, "seed"), Seed(SEED + "\n# the same\n", "again"), Seed(SEED.replace("1", "50"), "warm start x"))
    result = asyncio.run(run_once(folder_for(tmp_path, config), journal, config, seeds=seeds))
    events = asyncio.run(journal.read())
    check_exact(events, 12)
    started = [e for e in events if e.kind is EventKind.GENERATED and e.island == -1]
    assert [(e.candidate, e.body["operator"]) for e in started] == [("seed-0", "seed"), ("seed-1", "warm start x")]
    assert result.status.leaders[0].score >= 50


def test_a_refusing_journal_ends_the_run_with_its_error(tmp_path):
    config = configured()

    class Full(MemoryJournal):
        async def append(self, batch, epoch):
            if len(await self.read()) > 40:
                raise RunError("the disk is full")
            return await super().append(batch, epoch)

    journal = Full()
    with pytest.raises(RunError, match="disk is full"):
        asyncio.run(run_once(folder_for(tmp_path, config), journal, config))
    ended = Counter(e.candidate for e in settled(asyncio.run(journal.read())))
    assert max(ended.values()) == 1


def test_proposed_is_journaled_before_a_paid_request_only(tmp_path):
    config = configured(budget__max_candidates=15)
    free, paid = MemoryJournal(), MemoryJournal()
    asyncio.run(run_once(folder_for(tmp_path / "a", config), free, config))
    asyncio.run(run_once(folder_for(tmp_path / "b", config), paid, asking(config), model=LiteralModel(paid=True)))
    assert not [e for e in asyncio.run(free.read()) if e.kind in (EventKind.PROPOSED, EventKind.REQUESTED)]
    events = asyncio.run(paid.read())
    position = {e.id: e.seq for e in events}
    proposed = [e for e in events if e.kind is EventKind.PROPOSED]
    assert len(proposed) == 14
    for event in events:
        if event.kind is EventKind.COMPLETED:
            assert position[f"{event.body['request']}:requested"] < event.seq
        if event.kind is EventKind.GENERATED and event.island >= 0:
            assert position[f"{event.candidate}:proposed"] < position[f"{event.candidate}/0:answered"] < event.seq


def test_two_runs_with_one_seed_and_one_slot_are_equal(tmp_path):
    def history(name: str, seed: int) -> list[object]:
        config = configured(seed=seed, budget__max_candidates=50)
        journal = MemoryJournal()
        evaluator = LiteralEvaluator(slots=1)
        asyncio.run(run_once(folder_for(tmp_path / name, config), journal, config, evaluator=evaluator))
        assert evaluator.most_busy == 1
        events = asyncio.run(journal.read())
        return [(e.id, e.kind, e.body.get("source"), e.body.get("score")) for e in events if e.kind in SETTLED]

    assert history("a", 1) == history("b", 1)
    assert history("c", 1) != history("d", 2)


class Extreme(LiteralEvaluator):
    """Scores as far apart as floats go."""

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        verdict = await super().evaluate(job)
        if isinstance(verdict, Failure):
            return verdict
        score = (1.7e308, -1.7e308, 0.0)[int(verdict.score) % 3]
        return replace(verdict, score=score, metrics={"value": score})


@pytest.mark.parametrize("asks", [False, True])
def test_scores_as_far_apart_as_floats_go_end_no_run(tmp_path, asks):
    config = configured(selector__archive="topk", adaptation__enabled=True, health__window=10)
    config = asking(config) if asks else config
    journal = MemoryJournal()
    asyncio.run(run_once(folder_for(tmp_path, config), journal, config, LiteralModel(paid=asks), Extreme()))
    check_exact(asyncio.run(journal.read()), 60)


def test_looking_for_commands_does_not_go_over_the_whole_run_again(tmp_path, monkeypatch):
    monkeypatch.setattr("adrs_ray.runner.LISTENING_INTERVAL_S", 0.01)
    config = configured(budget__max_candidates=120)
    looks: list[int] = []

    class Noting(MemoryJournal):
        async def read(self, after_seq=0, kinds=None, island=None, limit=None):  # type: ignore[no-untyped-def]
            if list(kinds or ()) == [EventKind.COMMAND, EventKind.ADMITTED]:
                looks.append(after_seq)
            return await super().read(after_seq, kinds, island, limit)

    journal = Noting()
    evaluator = LiteralEvaluator(delay_s=0.005)
    asyncio.run(run_once(folder_for(tmp_path, config), journal, config, LiteralModel(), evaluator))
    assert max(looks) > len(asyncio.run(journal.read())) / 2
