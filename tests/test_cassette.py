"""Runs that are recorded and replayed; models and evaluators are doubles that take random times."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.candidate import Completion, Evaluation, Failure, FailureKind, Usage, Verdict
from adrs_ray.cassette import (
    Cassette,
    Fact,
    RecordedCommand,
    RecordedCompletion,
    RecordedVerdict,
    difference,
    digest_of,
    facts_of,
    record,
)
from adrs_ray.config import RunConfig, override
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.replayed import CassetteEvaluator
from adrs_ray.generation import NoBudgetError
from adrs_ray.generator import GenerationRequest, Message, Models
from adrs_ray.generator.mailbox import MailboxModel
from adrs_ray.generator.replayed import CassetteModel
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost
from adrs_ray.order import Order
from adrs_ray.prompt.brief import brief_of
from adrs_ray.replay import Replayed, cassette_models, refuse_unfit, rerun
from adrs_ray.runner import IslandParts
from adrs_ray.search import RunResult, Search, Seed, StopSwitch
from adrs_ray.selector.arms import MAILBOX
from adrs_ray.storage import cassette_file
from adrs_ray.storage.events import request_of, request_texts
from adrs_ray.storage.journal import SETTLED, Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.storage.runfolder import RunFolder, post_command
from adrs_ray.task import Task
from tests.doubles import SEED, LiteralEvaluator, LiteralModel, asking, stub_task
from tests.test_search import configured


class Uneven(LiteralModel):
    """Answers after a random time."""

    def __init__(self, seed: int, most_s: float, paid: bool = False) -> None:
        super().__init__(paid=paid)
        self._rng = random.Random(seed)
        self._most_s = most_s

    async def complete(self, request: GenerationRequest) -> Completion:
        await asyncio.sleep(self._rng.uniform(0, self._most_s))
        return replace(await super().complete(request), model=request.model)


class UnevenEvaluator(LiteralEvaluator):
    """Judges after a random time, `slots` at once; with `noise` the same program gets another score each time."""

    def __init__(self, seed: int, most_s: float, slots: int = 3, noise: float = 0.0) -> None:
        super().__init__(slots=slots, cap=15.0)
        self._rng = random.Random(seed)
        self._most_s = most_s
        self._noise = noise
        self._free = asyncio.Semaphore(slots)

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        async with self._free:
            await asyncio.sleep(self._rng.uniform(0, self._most_s))
            verdict = await super().evaluate(job)
        if not self._noise or isinstance(verdict, Failure):
            return verdict
        return replace(verdict, score=verdict.score + self._rng.gauss(0, self._noise))


class LateModel(CassetteModel):
    def __init__(self, cassette: Cassette, seed: int, most_s: float) -> None:
        super().__init__(cassette, strict=True)
        self._rng = random.Random(seed)
        self._most_s = most_s

    async def complete(self, request: GenerationRequest) -> Completion:
        await asyncio.sleep(self._rng.uniform(0, self._most_s))
        return await super().complete(request)


class LateEvaluator(CassetteEvaluator):
    def __init__(self, cassette: Cassette, seed: int, most_s: float, slots: int) -> None:
        super().__init__(cassette, slots)
        self._rng = random.Random(seed)
        self._most_s = most_s

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        await asyncio.sleep(self._rng.uniform(0, self._most_s))
        return await super().evaluate(job)


class _Reader:
    """A journal in memory, read as a recorder reads it."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    def replay(self) -> Iterable[Event]:
        return asyncio.run(self._journal.read())

    def texts(self, refs: Sequence[str]) -> dict[str, str]:
        return asyncio.run(self._journal.texts(refs))


def noisy(task: Task) -> Task:
    return replace(task, spec=task.spec.model_copy(update={"noisy": True}))


def taped(
    path: Path,
    config: RunConfig,
    paid: bool = True,
    noise: float = 0.0,
    seeds: Sequence[Seed] = (Seed(SEED, "seed"),),
    steer: Any = None,
    task: Task | None = None,
    most_s: float = 0.004,
    stop: StopSwitch | None = None,
) -> tuple[Cassette, list[Event]]:
    """A live run over uneven doubles, recorded, written to a file and read back."""
    journal = MemoryJournal()
    folder = RunFolder.create(path / "recorded", config, "stub", True)
    task = task or stub_task()

    async def live() -> RunResult:
        ledger = await Ledger.open(journal, config)
        await ledger.start_epoch()
        model, evaluator = Uneven(1, most_s, paid), UnevenEvaluator(2, most_s, noise=noise)
        models = {**dict.fromkeys(config.models, model), "mutate": Uneven(3, most_s), MAILBOX: MailboxModel()}
        parts = IslandParts(config, brief_of(task, config), models, evaluator, ledger)
        search = Search(task, parts, folder, ledger, LocalHost(parts), lambda status: None, stop or StopSwitch())
        steering = asyncio.create_task(steer(folder, journal)) if steer else None
        result = await search.run(seeds)
        if steering is not None:
            await steering
        return result

    asyncio.run(live())
    cassette_file.write(record(_Reader(journal), folder), path / "tape.gz")
    return cassette_file.read(path / "tape.gz"), asyncio.run(journal.read())


def again(
    path: Path,
    cassette: Cassette,
    seed: int = 7,
    slots: int = 2,
    most_s: float = 0.002,
    task: Task | None = None,
    models: Models | None = None,
    stall_s: float = 20.0,
) -> tuple[Replayed, list[Event]]:
    journal = MemoryJournal()
    folder = RunFolder.create(path / f"replay-{seed}-{slots}", cassette.config, "stub", True)
    given = models or {
        **dict.fromkeys(cassette_models(cassette, strict=True), LateModel(cassette, seed, most_s)),
        "mutate": Uneven(seed, most_s),
    }
    evaluator = LateEvaluator(cassette, seed, most_s, slots)
    task = task or stub_task()
    refuse_unfit(cassette, task)
    replayed = asyncio.run(rerun(cassette, task, folder, journal, given, evaluator, lambda status: None, stall_s))
    return replayed, asyncio.run(journal.read())


def train_verdicts(events: list[Event]) -> dict[str, Any]:
    return {e.id: e.body for e in events if e.kind is EventKind.MEASURED and e.body["split"] == "train"}


def ends(events: list[Event], island: int) -> list[tuple[str, str]]:
    return [(str(e.candidate), e.kind.value) for e in events if e.kind in SETTLED and e.island == island]


def check_identical(recorded: list[Event], replayed: Replayed, events: list[Event]) -> None:
    assert replayed.difference is None
    assert facts_of(events) == facts_of(recorded)
    assert train_verdicts(events) == train_verdicts(recorded)
    for island in {event.island for event in recorded}:
        assert ends(events, island) == ends(recorded, island)


def busy(**changes: object) -> RunConfig:
    values: dict[str, object] = {
        "budget__max_candidates": 90,
        "islands__count": 3,
        "islands__in_flight": 4,
        "islands__migration_interval": 4,
        "health__window": 10,
        "health__cooldown": 5,
        "health__interventions": True,
        "adaptation__enabled": True,
    }
    return configured(**(values | changes))


@pytest.mark.parametrize(("seed", "slots", "most_s"), [(7, 1, 0.0), (8, 2, 0.002), (9, 5, 0.01)])
def test_a_replay_with_other_delays_and_slots_is_identical(tmp_path, seed, slots, most_s):
    config = asking(busy(budget__max_candidates=300))
    cassette, recorded = taped(tmp_path, config)
    kinds = {event.kind for event in recorded}
    assert {EventKind.MIGRATED, EventKind.NOTED, EventKind.FOUND, EventKind.INTERVENED, EventKind.REJECTED} <= kinds
    replayed, events = again(tmp_path, cassette, seed, slots, most_s)
    check_identical(recorded, replayed, events)
    assert replayed.result.finished
    assert replayed.result.champion is not None
    assert not (kinds & {EventKind.COMMAND})


def test_a_replay_of_a_replay_is_identical_too(tmp_path):
    cassette, recorded = taped(tmp_path, asking(busy()))
    _, events = again(tmp_path, cassette)

    class Replays:
        def replay(self) -> Iterable[Event]:
            return events

        def texts(self, refs: Sequence[str]) -> dict[str, str]:
            return dict.fromkeys(refs, "")

    folder = RunFolder.open(tmp_path / "recorded")
    second = record(Replays(), folder)
    assert second.scripts == cassette.scripts
    assert second.facts == cassette.facts
    check_identical(recorded, *again(tmp_path, cassette, seed=3))


def test_a_model_free_run_is_replayed_without_its_completions(tmp_path):
    cassette, recorded = taped(tmp_path, busy(), paid=False)
    assert not cassette.completions
    check_identical(recorded, *again(tmp_path, cassette))


def test_measurements_of_a_noisy_task_are_repeated_where_they_were(tmp_path):
    task = noisy(stub_task())
    cassette, recorded = taped(tmp_path, asking(busy()), noise=1.0, task=task)
    assert any(event.body["repeat"] for event in recorded if event.kind is EventKind.MEASURED)
    check_identical(recorded, *again(tmp_path, cassette, task=task))


@pytest.mark.parametrize("paid", [True, False])
def test_the_seeding_phase_and_warm_starts_replay(tmp_path, paid):
    config = busy(seeding__seeds=3, seeding__variants=3, selector__archive="cvt", selector__learn_bounds_from=6)
    config = asking(config) if paid else config
    seeds = [Seed(SEED, "seed"), *(Seed(SEED.replace("1", str(n)), f"warm start {n}") for n in (30, 44, 52))]
    cassette, recorded = taped(tmp_path, config, paid=paid, seeds=seeds)
    assert any("-v" in str(event.candidate) for event in recorded if event.kind is EventKind.GENERATED)
    check_identical(recorded, *again(tmp_path, cassette, seed=7, slots=1, most_s=0.01))
    check_identical(recorded, *again(tmp_path, cassette, seed=8, slots=4))


def test_hints_pins_bans_and_pauses_are_obeyed_where_they_were(tmp_path):
    async def steer(folder: RunFolder, journal: MemoryJournal) -> None:
        while sum(event.kind is EventKind.ADMITTED for event in await journal.read()) < 15:
            await asyncio.sleep(0.01)
        valid = [str(e.candidate) for e in await journal.read() if e.kind is EventKind.ADMITTED]
        post_command(folder, "hint", {"text": "larger", "island": None})
        post_command(folder, "pin", {"candidate": valid[3]})
        post_command(folder, "ban", {"candidate": valid[-1]})
        post_command(folder, "restart", {"island": 1})
        post_command(folder, "pause", {"island": 0})
        while not any(e.kind is EventKind.COMMAND and e.body["kind"] == "pause" for e in await journal.read()):
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.7)
        post_command(folder, "continue", {"island": 0})

    config = asking(busy(budget__max_candidates=400))
    cassette, recorded = taped(tmp_path, config, steer=steer, most_s=0.03)
    heard = [step for script in cassette.scripts.values() for step in script if step.startswith("c")]
    assert len(heard) >= 10
    replayed, events = again(tmp_path, cassette)
    check_identical(recorded, replayed, events)
    orders = [e.body for e in recorded if e.kind is EventKind.COMMAND]
    assert [e.body for e in events if e.kind is EventKind.COMMAND] == orders


def test_a_run_that_people_answered_is_replayed_without_them(tmp_path):
    async def answer(folder: RunFolder, journal: MemoryJournal) -> None:
        done: set[str] = set()
        while not any(event.kind is EventKind.RUN_ENDED for event in await journal.read()):
            for event in await journal.read(kinds=[EventKind.REQUESTED]):
                if event.id not in done:
                    done.add(event.id)
                    request = request_of(event, await journal.texts(request_texts(event)))
                    text = (await LiteralModel().complete(request)).text or "nothing came to mind"
                    post_command(folder, "answer", {"request": request.id, "text": text})
            await asyncio.sleep(0.02)

    config = busy(budget__max_candidates=25, generator__kind="mailbox", islands__count=2)
    cassette, recorded = taped(tmp_path, config, steer=answer)
    assert len(cassette.completions) >= 24
    check_identical(recorded, *again(tmp_path, cassette))


def test_commands_given_before_the_islands_begin_replay(tmp_path):
    async def steer(folder: RunFolder, journal: MemoryJournal) -> None:
        post_command(folder, "hint", {"text": "larger", "island": None})

    cassette, recorded = taped(tmp_path, asking(busy(budget__max_candidates=30)), steer=steer)
    assert all(script[0].startswith("c") for number, script in cassette.scripts.items() if number >= 0)
    check_identical(recorded, *again(tmp_path, cassette))


@pytest.mark.parametrize("limit", [{"budget__max_usd": 0.4}, {"budget__patience": 25}, {"budget__target_score": 12.0}])
def test_a_run_that_a_limit_ended_early_replays_to_where_it_ended(tmp_path, limit):
    config = asking(busy(budget__max_candidates=5000, **limit))
    cassette, recorded = taped(tmp_path, config)
    assert 10 < len(cassette.ended) < 5000
    replayed, events = again(tmp_path, cassette)
    check_identical(recorded, replayed, events)
    assert replayed.result.reason == cassette.reason


def test_a_run_that_was_stopped_replays_and_names_no_champion(tmp_path):
    stop = StopSwitch()

    async def steer(folder: RunFolder, journal: MemoryJournal) -> None:
        while sum(event.kind in SETTLED for event in await journal.read()) < 20:
            await asyncio.sleep(0.01)
        stop.drain("stopped by a test")

    cassette, recorded = taped(tmp_path, asking(busy(budget__max_candidates=5000)), steer=steer, stop=stop)
    replayed, events = again(tmp_path, cassette)
    check_identical(recorded, replayed, events)
    assert not replayed.result.finished


def test_equal_scores_of_different_islands_lead_in_the_recorded_order(tmp_path):
    cassette, recorded = taped(tmp_path, asking(busy(budget__max_candidates=60, finish__top_k=2)))
    for seed in range(3):
        check_identical(recorded, *again(tmp_path, cassette, seed=seed, most_s=0.005))


def test_a_replay_that_asks_something_else_ends_in_one_line(tmp_path):
    cassette, _ = taped(tmp_path, asking(busy(budget__max_candidates=20)))
    other = replace(cassette, config=override(cassette.config, {"prompt.inspirations": 0, "prompt.attempts": 0}))
    with pytest.raises(RunError, match=r"replay: request .* asks something else than was recorded.*--loose"):
        again(tmp_path, other)


def test_a_replay_whose_programs_differ_ends_in_one_line(tmp_path):
    cassette, _ = taped(tmp_path, busy(budget__max_candidates=20), paid=False)

    class Other(Uneven):
        async def complete(self, request: GenerationRequest) -> Completion:
            made = await super().complete(request)
            return replace(made, text=None if made.text is None else made.text + "OTHER = 1\n")

    with pytest.raises(RunError, match=r"replay: .*--loose"):
        again(tmp_path, cassette, models={"mutate": Other(1, 0.0)})


def test_a_replay_that_stalls_ends_in_one_line_that_says_where(tmp_path):
    cassette, _ = taped(tmp_path, busy(budget__max_candidates=20), paid=False)
    script = cassette.scripts[1]
    told = next(step for step in script if step.startswith("d"))
    # The end of a candidate before it was asked for.
    swapped = (told, *(step for step in script if step != told))
    broken = replace(cassette, scripts={**cassette.scripts, 1: swapped})
    with pytest.raises(RunError, match="does not come as it was recorded"):
        again(tmp_path, broken, stall_s=0.3)


def test_differences_are_named(tmp_path):
    cassette, recorded = taped(tmp_path, busy(budget__max_candidates=20), paid=False)
    facts = list(cassette.facts)
    assert difference(facts, facts_of(recorded)) is None
    first = facts[0]
    changed = replace(first, body={**first.body, "score": 99.0})
    assert difference(facts, [changed, *facts[1:]]) == "seed-0:settled: score 99.0, recorded was 1.0"
    assert difference(facts, facts[1:]) == "seed-0:settled is missing"
    assert difference(facts[1:], facts) == "seed-0:settled was not recorded"
    assert (
        difference(facts, [facts[1], facts[0], *facts[2:]]) == f"{facts[1].id} came where seed-0:settled was recorded"
    )
    assert difference(facts, [replace(first, kind="rejected"), *facts[1:]]) is not None


def command_of(kind: str, body: dict[str, Any]) -> Event:
    return Event(f"command:x-{kind}", EventKind.COMMAND, None, -1, {"kind": kind, "body": body})


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (command_of("inject", {"source": SEED}), "injected"),
        (command_of("spawn", {"island": 2}), "spawned"),
        (command_of("retire", {"island": 1}), "retired"),
        (command_of("budget", {"values": {"max_candidates": 30}}), "max_candidates was changed"),
        (Event("run_started:2", EventKind.RUN_STARTED, None, -1, {}), "started 2 times"),
        (Event("grant:reopen:x", EventKind.GRANT, None, 1, {"reopened": 1}), "began more than once"),
        (None, "has not ended"),
    ],
)
def test_what_cannot_be_replayed_strictly_is_refused_with_the_reason(tmp_path, more, why):
    config = busy(budget__max_candidates=12)
    _, recorded = taped(tmp_path, config, paid=False)

    class Reader:
        def replay(self) -> Iterable[Event]:
            return [*recorded, more] if more else [e for e in recorded if e.kind is not EventKind.RUN_ENDED]

        def texts(self, refs: Sequence[str]) -> dict[str, str]:
            return dict.fromkeys(refs, SEED)

    cassette = record(Reader(), RunFolder.open(tmp_path / "recorded"))
    with pytest.raises(UsageError, match=rf"{why}.*--loose"):
        refuse_unfit(cassette, stub_task())


def test_another_seed_than_was_recorded_is_refused(tmp_path):
    cassette, _ = taped(tmp_path, busy(budget__max_candidates=12), paid=False)
    with pytest.raises(UsageError, match="the seed of task stub"):
        refuse_unfit(cassette, stub_task(seed=SEED.replace("1", "2")))


# -- the model and the evaluator -------------------------------------------------------------------------------------


def request_for(name: str, operator: str = "diff", content: str = "improve it") -> GenerationRequest:
    return GenerationRequest(
        name.split("/")[0], operator, (SEED,), (0, 0, 1), id=name, model="small", messages=(Message("user", content),)
    )


def tape_of(config: RunConfig, *names: str) -> Cassette:
    completions = {}
    for name in names:
        answer = Completion(f"answer {name}", "small", "diff", usage=Usage(tokens_in=3, tokens_out=4))
        completions[name] = RecordedCompletion(name, "diff", digest_of(request_for(name)), answer)
    facts = (Fact("0-1:settled", "admitted", {}), Fact("0-2:settled", "rejected", {}))
    return Cassette("stub", config, "0", None, "done", False, completions=completions, facts=facts)


def test_a_strict_model_tells_what_was_paid_and_knows_which_requests_were_never_made():
    model = CassetteModel(tape_of(RunConfig(), "0-1/0"), strict=True)
    assert model.worst(request_for("0-1/0")) == Usage(tokens_in=3, tokens_out=4)
    assert asyncio.run(model.complete(request_for("0-1/0"))).text == "answer 0-1/0"
    with pytest.raises(RunError, match="0-1/0 asks something else"):
        asyncio.run(model.complete(request_for("0-1/0", content="improve that")))
    with pytest.raises(RunError, match="0-2/0 asks something else"):
        model.worst(request_for("0-2/0"))
    for never_made in ("0-1/1", "0-9/0", "0-note24/0"):
        with pytest.raises(NoBudgetError):
            model.worst(request_for(never_made))


def test_a_loose_model_answers_by_id_then_by_operator_and_each_answer_once():
    model = CassetteModel(tape_of(RunConfig(), "0-1/0", "0-2/0", "0-3/0"), strict=False)
    asked = ["0-2/0", "0-2/0", "1-7/0", "0-1/0"]
    answers = [asyncio.run(model.complete(request_for(name, content="other words"))) for name in asked]
    assert [a.text for a in answers] == ["answer 0-2/0", "answer 0-1/0", "answer 0-3/0", None]
    assert answers[-1].detail == "the cassette has no more completions"
    fresh = CassetteModel(tape_of(RunConfig(), "0-1/0"), strict=False)
    assert asyncio.run(fresh.complete(request_for("0-1/0", operator="rewrite"))).text is None


def test_an_evaluator_delivers_what_was_recorded_of_this_program_alone(tmp_path):
    cassette, _ = taped(tmp_path, busy(budget__max_candidates=12), paid=False)
    evaluator = CassetteEvaluator(cassette)
    verdict = asyncio.run(evaluator.evaluate(EvaluationJob("seed-0", SEED)))
    assert isinstance(verdict, Evaluation)
    assert verdict.score == 1.0
    with pytest.raises(RunError, match="seed-0 on train is another program"):
        asyncio.run(evaluator.evaluate(EvaluationJob("seed-0", SEED + "# more\n")))
    with pytest.raises(RunError, match="0-99 on train was not measured"):
        asyncio.run(evaluator.evaluate(EvaluationJob("0-99", SEED)))


# -- the order -------------------------------------------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_steps_come_in_the_order_of_the_script_however_they_arrive(script, rng):
    taken: list[str] = []

    async def main() -> None:
        order = Order(script)

        async def step(name: str) -> None:
            await order.turn(name)
            taken.append(name)

        arriving = list(script)
        rng.shuffle(arriving)
        await asyncio.gather(*(step(name) for name in arriving))
        assert order.taken() == tuple(script)
        with pytest.raises(RunError, match="was not recorded"):
            await order.turn("a")

    asyncio.run(main())
    assert taken == script


# -- the file --------------------------------------------------------------------------------------------------------


def test_a_file_gives_back_what_was_written_and_is_the_same_each_time(tmp_path):
    odd = "caf\u00e9 \ud800 \x00"
    config = override(asking(RunConfig()), {"islands.overrides": {1: {"archive": "topk"}}})
    tape = tape_of(config, "0-1/0")
    failure = Failure(FailureKind.CRASH, odd, None, artifacts={"stderr": odd})
    full = replace(
        tape,
        seeds=(Seed(odd, "seed"),),
        verdicts={("0-1", "full", "train", 0): RecordedVerdict("0-1", "full", "train", 0, "ab", failure)},
        scripts={-1: (), 0: ("a", "s0-1")},
        commands=(RecordedCommand("c", "hint", {"text": odd, "island": None}),),
    )
    cassette_file.write(full, tmp_path / "a.gz")
    cassette_file.write(full, tmp_path / "b.gz")
    assert cassette_file.read(tmp_path / "a.gz") == full
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def put(path: Path, lines: Sequence[Any]) -> None:
    path.write_bytes(gzip.compress("".join(f"{json.dumps(line)}\n" for line in lines).encode()))


def test_files_that_are_no_cassette_are_refused_in_one_line(tmp_path):
    good = tmp_path / "good.gz"
    cassette, _ = taped(tmp_path, busy(budget__max_candidates=12), paid=False)
    cassette_file.write(cassette, good)
    lines = lines_of(good)
    bad = tmp_path / "bad.gz"
    verdict = next(n for n, line in enumerate(lines) if "verdict" in line)
    infinite = json.loads(json.dumps(lines))
    infinite[verdict]["verdict"]["verdict"]["score"] = float("inf")
    words = json.loads(json.dumps(lines))
    words[verdict]["verdict"]["verdict"]["score"] = "many"
    for content, said in (
        (b"", "empty"),
        (b"no gzip", "Not a gzipped file"),
        (good.read_bytes()[:-40], "cut off"),
        (gzip.compress(b"[1]\n"), "line 1 is no object"),
        (gzip.compress(b"{}\n"), "header"),
        ([{**lines[0], "format": 2}, *lines[1:]], "format 2, this version reads 1"),
        (lines[:-1], "its end is missing"),
        ([*lines[:5], *lines[6:]], "it ends after"),
        ([*lines, lines[1]], "something follows"),
        ([lines[0], {"melody": {}}, {"end": 1}], "no known kind"),
        ([lines[0], {"seed": {"source": "x"}}, {"end": 1}], "a seed that does not have"),
        ([{**lines[0], "config": "a: &a [1]\nb: [*a, *a]\n"}, *lines[1:]], "aliases"),
        ([{**lines[0], "config": "a: ["}, *lines[1:]], "no cassette"),
        ([{**lines[0], "config": "melody: 1"}, *lines[1:]], "melody"),
        (infinite, "Infinity is no JSON"),
        (words, "is of a wrong type"),
    ):
        if isinstance(content, bytes):
            bad.write_bytes(content)
        else:
            put(bad, content)
        with pytest.raises(UsageError, match=said) as caught:
            cassette_file.read(bad)
        assert "\n" not in str(caught.value)
        assert "bad.gz" in str(caught.value)
    with pytest.raises(UsageError, match="No such file"):
        cassette_file.read(tmp_path / "missing.gz")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("tape")
    taped(path, asking(busy(budget__max_candidates=12)))
    return lines_of(path / "tape.gz")


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_no_content_of_a_file_escapes_as_anything_but_a_usage_error(tmp_path_factory, whole, data):
    path = tmp_path_factory.mktemp("fuzz") / "x.gz"
    lines = json.loads(json.dumps(whole))
    number = data.draw(st.integers(0, len(lines) - 1))
    target = lines[number]
    while True:
        key = data.draw(st.sampled_from(sorted(target)))
        if isinstance(target[key], dict) and target[key] and data.draw(st.booleans()):
            target = target[key]
            continue
        target[key] = data.draw(json_values)
        break
    put(path, lines)
    with contextlib.suppress(UsageError):
        cassette_file.read(path)
