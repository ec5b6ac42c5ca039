"""Requests that cost something: bought once, charged once, followed up as configured, within the budget."""

import asyncio
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from adrs_ray.candidate import Completion, FailureKind, Usage
from adrs_ray.config import RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.generator import GenerationRequest
from adrs_ray.ledger import Ledger
from adrs_ray.search import RunResult
from adrs_ray.storage.events import completed_event, requested_event
from adrs_ray.storage.journal import Event, EventKind
from adrs_ray.storage.memory import MemoryJournal
from tests.doubles import SEED, LiteralModel, asking, stub_brief
from tests.searching import (
    candidates,
    check_requests,
    check_usage,
    configured,
    folder_for,
    hurry,
    kinds,
    settled,
    spent,
    start,
    start_and_cut,
)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    hurry(monkeypatch)


def paid_config(**changes: object) -> RunConfig:
    return override(asking(configured()), {key.replace("__", "."): value for key, value in changes.items()})


@pytest.mark.parametrize("first", range(3, 63, 3))
def test_a_paid_run_cut_off_at_any_append_buys_every_completion_once(tmp_path, first):
    config = paid_config(islands__in_flight=3, budget__max_candidates=14)

    async def main(at: int, recorded: bool) -> None:
        model = LiteralModel(paid=True)
        folder = folder_for(tmp_path / f"{at}{recorded}", config)
        journal = await start_and_cut(folder, at, recorded, config, model)
        before = kinds(await journal.read(), EventKind.COMPLETED)
        later = journal.take_over()
        result = await start(folder, later, config, model)
        events = await later.read()
        assert len(candidates(events)) == 14
        check_requests(events, model)
        check_usage(events, result)
        assert {event.id for event in before} <= {e.id for e in kinds(events, EventKind.COMPLETED)}
        check_lost_are_asked_anew(events)

    for at in range(first, first + 3):
        asyncio.run(main(at, recorded=True))
    asyncio.run(main(first, recorded=False))


def check_lost_are_asked_anew(events: list[Event]) -> None:
    requested = {event.body["request"]: event for event in kinds(events, EventKind.REQUESTED)}
    for lost in kinds(events, EventKind.LOST):
        name = lost.body["request"]
        assert lost.body["usage"] == requested[name].body["worst"]
        candidate, number = name.rsplit("/", 1)
        if "note" in candidate:
            continue  # the next scratchpad comes soon enough
        again = requested[f"{candidate}/{int(number) + 1}"]
        assert again.body["messages"] == requested[name].body["messages"]
        assert again.body["rng_key"] == requested[name].body["rng_key"]


def test_a_request_in_flight_when_the_run_was_cut_off_is_charged_in_full_and_made_again(tmp_path):
    config = paid_config()

    async def main() -> tuple[list[Event], RunResult]:
        journal = MemoryJournal()
        folder = folder_for(tmp_path, config)
        with pytest.raises(RuntimeError):
            await start(folder, journal, config, Fatal(paid=True))
        later = journal.take_over()
        result = await start(folder, later, config, LiteralModel(paid=True))
        return await later.read(), result

    class Fatal(LiteralModel):
        async def complete(self, request: GenerationRequest) -> Completion:
            if request.candidate == "0-4":
                raise RuntimeError("the machine is gone")
            return await super().complete(request)

    events, result = asyncio.run(main())
    lost = kinds(events, EventKind.LOST)
    assert "0-4/0" in {event.body["request"] for event in lost}
    assert all(event.body["usage"]["usd"] == 0.02 for event in lost)
    check_lost_are_asked_anew(events)
    (end,) = [event for event in settled(events) if event.candidate == "0-4"]
    answers = [e for e in kinds(events, EventKind.COMPLETED, EventKind.LOST) if e.candidate == "0-4"]
    assert end.body["cost"] == pytest.approx(sum(e.body["usage"]["usd"] for e in answers))
    check_usage(events, result)


# Budgets


def test_what_comes_in_while_a_request_is_weighed_leaves_room_for_it():
    config = paid_config(budget__max_usd=0.03)
    worst = LiteralModel(paid=True).worst

    class Weighing(MemoryJournal):
        """The first request is answered while the journal is searched for the second."""

        async def find(self, ids: Sequence[str]) -> dict[str, Event]:
            if ids == ["0-1/0:requested"]:
                answer = Completion("text", "literal", "diff", usage=Usage(tokens_in=60, usd=0.01))
                await ledger.append([completed_event(asked(0), 0, answer)], 1)
            return await super().find(ids)

    def asked(number: int) -> GenerationRequest:
        return GenerationRequest(f"0-{number}", "diff", (SEED,), (0,), id=f"0-{number}/0", model="small")

    async def main() -> None:
        nonlocal ledger
        ledger = await Ledger.open(Weighing(), config)
        for number in range(2):
            batch = [requested_event(asked(number), 0, worst(asked(number)))]
            assert await ledger.request(batch, 1) is not None
            assert (await ledger.status()).exhausted is None

    ledger: Ledger = None  # type: ignore[assignment]
    asyncio.run(main())


def check_never_above(events: list[Event], limit: float, unit: str) -> None:
    """At no prefix of the journal do settled usage and open reservations exceed the limit."""
    counted = 0.0
    reserved: dict[str, float] = {}
    for event in events:
        if event.kind is EventKind.REQUESTED:
            reserved[event.body["request"]] = amount(event.body["worst"], unit)
        elif event.kind in (EventKind.COMPLETED, EventKind.LOST):
            del reserved[event.body["request"]]
            counted += amount(event.body["usage"], unit)
        assert counted + sum(reserved.values()) <= limit + 1e-9


def amount(usage: dict[str, float], unit: str) -> float:
    return usage["tokens_in"] + usage["tokens_out"] if unit == "tokens" else usage[unit]


class Metered(LiteralModel):
    """Uses GPUs, too."""

    def worst(self, request: GenerationRequest) -> Usage:
        return replace(super().worst(request), gpu_s=4.0)

    async def complete(self, request: GenerationRequest) -> Completion:
        completion = await super().complete(request)
        return replace(completion, usage=replace(completion.usage, gpu_s=2.0))


def metered(config: RunConfig) -> RunConfig:
    models = {name: {**model.model_dump(), "gpus": 1.0} for name, model in config.models.items()}
    return override(config, {"models": models})


@pytest.mark.parametrize(
    ("key", "limit", "unit"), [("max_usd", 0.205, "usd"), ("max_tokens", 2050, "tokens"), ("max_gpu_s", 41.0, "gpu_s")]
)
@pytest.mark.parametrize("islands", [1, 3])
def test_a_budget_of_models_is_never_exceeded_and_ends_the_run_judged(tmp_path, key, limit, unit, islands):
    config = override(
        metered(paid_config(budget__max_candidates=1000, islands__count=islands, islands__in_flight=4)),
        {f"budget.{key}": limit},
    )
    journal = MemoryJournal()
    folder = folder_for(tmp_path, config)
    result = asyncio.run(start(folder, journal, config, Metered(paid=True, delay_s=0.001)))
    events = asyncio.run(journal.read())
    check_never_above(events, limit, unit)
    assert key in result.reason
    assert result.finished
    assert result.verdicts
    # The last request was refused for what it might have cost, not for what it did.
    assert amount(vars_of(spent(events)), unit) > limit * 0.8
    more = override(config, {f"budget.{key}": 2 * limit})
    again = asyncio.run(start(folder, journal.take_over(), more, Metered(paid=True)))
    later = asyncio.run(journal.read())
    check_never_above(later, 2 * limit, unit)
    assert again.status.candidates > result.status.candidates
    candidates(later)


def vars_of(usage: Usage) -> dict[str, float]:
    return {name: getattr(usage, name) for name in ("tokens_in", "tokens_out", "usd", "gpu_s")}


def test_a_budget_that_pays_for_no_request_ends_the_run_with_its_seed(tmp_path):
    config = paid_config(budget__max_usd=0.01)
    result = asyncio.run(start(folder_for(tmp_path, config), MemoryJournal(), config, LiteralModel(paid=True)))
    assert "max_usd" in result.reason
    assert result.finished
    assert result.champion is not None
    assert result.champion.candidate == "seed-0"


@pytest.mark.parametrize("at", [9, 17, 23, 24, 25, 26, 27, 28, 31, 40])
def test_a_run_cut_off_near_the_end_of_its_budget_does_not_wait_for_requests_that_died(tmp_path, at):
    """Reservations of requests that nobody will answer, those of scratchpads as well, do not hang the next start."""
    config = paid_config(budget__max_usd=0.17, budget__max_candidates=500)

    async def main() -> None:
        model = LiteralModel(paid=True)
        folder = folder_for(tmp_path, config)
        journal = await start_and_cut(folder, at, True, config, model)
        later = journal.take_over()
        result = await start(folder, later, config, model)
        events = await later.read()
        check_never_above(events, 0.17, "usd")
        check_requests(events, model)
        assert "max_usd" in result.reason

    asyncio.run(main())


# Asking again


class Scripted(LiteralModel):
    """Gives the answers of a script to each candidate, one per request; behind its end a good one."""

    def __init__(self, *script: Completion | str) -> None:
        super().__init__(paid=True)
        self.script = script
        self.asked: Counter[str] = Counter()

    async def complete(self, request: GenerationRequest) -> Completion:
        number = self.asked[request.candidate]
        self.asked[request.candidate] += 1
        if request.form == "text" or number >= len(self.script):
            return await super().complete(request)
        self.requests.append(request)
        given = self.script[number]
        usage = Usage(tokens_in=60, tokens_out=40, usd=0.01)
        if isinstance(given, str):
            return Completion(given, self.name, request.operator, usage=usage)
        return replace(given, usage=usage)


def one_operator(operator: str, **changes: object) -> RunConfig:
    config = override(paid_config(**changes), {"generator.summarize_every": None})
    weights = dict.fromkeys(["diff", "rewrite", "crossover", "fix", "mutate"], 0.0) | {operator: 1.0}
    return config.model_copy(
        update={"generator": config.generator.model_copy(update={"operators": weights, "summarize_every": None})}
    )


def scripted(tmp_path, config: RunConfig, *script: Completion | str) -> tuple[Scripted, list[Event]]:
    model = Scripted(*script)
    journal = MemoryJournal()
    asyncio.run(start(folder_for(tmp_path, config), journal, config, model))
    events = asyncio.run(journal.read())
    check_requests(events, model)
    return model, events


def first_end(events: list[Event]) -> Event:
    (end,) = [event for event in settled(events) if event.candidate == "0-0"]
    return end


def of_first(model: Scripted) -> list[GenerationRequest]:
    return [request for request in model.requests if request.candidate == "0-0"]


BAD_EDIT = "Idea: x\n<<<<<<< SEARCH\nNOWHERE = 3\n=======\nVALUE = 4\n>>>>>>> REPLACE\n"
SAME = "Idea: x\n<<<<<<< SEARCH\nVALUE = 1\n=======\nVALUE  =  1\n>>>>>>> REPLACE\n"
GOOD = "Idea: two\n<<<<<<< SEARCH\nVALUE = 1\n=======\nVALUE = 2\n>>>>>>> REPLACE\n"
SYNTAX = "Idea: x\n<<<<<<< SEARCH\nVALUE = 1\n=======\nVALUE = = 1\n>>>>>>> REPLACE\n"


def test_an_edit_that_cannot_be_applied_goes_back_once_with_the_reason(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    model, events = scripted(tmp_path, config, BAD_EDIT, GOOD)
    first, second = of_first(model)
    assert second.messages[: len(first.messages)] == first.messages
    assert second.messages[-2].role == "assistant"
    assert "NOWHERE = 3" in second.messages[-2].content
    assert "SEARCH" in second.messages[-1].content
    assert first_end(events).kind is EventKind.ADMITTED
    assert first_end(events).body["cost"] == pytest.approx(0.02)
    model, events = scripted(tmp_path / "b", config, *[BAD_EDIT] * 5)
    assert len(of_first(model)) == 2
    assert first_end(events).body["failure"] == FailureKind.GENERATION
    assert first_end(events).body["cost"] == pytest.approx(0.02)


def test_a_duplicate_is_asked_for_again_twice_and_told_what_it_repeated(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    model, events = scripted(tmp_path, config, *[SAME] * 5)
    requests = of_first(model)
    assert len(requests) == 3
    assert all("seed-0" in request.messages[-1].content for request in requests[1:])
    assert first_end(events).body["failure"] == FailureKind.DUPLICATE
    assert first_end(events).body["cost"] == pytest.approx(0.03)


def test_thinking_without_an_answer_is_asked_again_once_with_less_reasoning(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    thinking = Completion(None, "literal", "diff", "all tokens went into thinking", "hm", thinking_only=True)
    model, events = scripted(tmp_path, config, *[thinking] * 5)
    assert [request.less_reasoning for request in of_first(model)] == [0, 1]
    assert first_end(events).body["failure"] == FailureKind.GENERATION
    assert "thinking" in first_end(events).body["detail"]
    requested = [event for event in kinds(events, EventKind.REQUESTED) if event.candidate == "0-0"]
    assert [event.body["less_reasoning"] for event in requested] == [0, 1]


def test_what_is_no_python_goes_back_and_ends_as_syntax(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    model, events = scripted(tmp_path, config, *[SYNTAX] * 5)
    assert len(of_first(model)) == 2
    assert first_end(events).body["failure"] == FailureKind.SYNTAX


def test_different_problems_have_different_patience_and_every_request_is_paid_for(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    thinking = Completion(None, "literal", "diff", "all tokens went into thinking", thinking_only=True)
    model, events = scripted(tmp_path, config, BAD_EDIT, SAME, thinking, SAME, GOOD)
    assert len(of_first(model)) == 5
    assert first_end(events).kind is EventKind.ADMITTED
    assert first_end(events).body["cost"] == pytest.approx(0.05)


def test_nothing_is_asked_again_where_nothing_came(tmp_path):
    config = one_operator("diff", budget__max_candidates=2)
    model, events = scripted(tmp_path, config, Completion(None, "literal", "diff", "refused"))
    assert len(of_first(model)) == 1
    assert first_end(events).body["failure"] == FailureKind.GENERATION
    assert first_end(events).body["detail"] == "refused"


@pytest.mark.parametrize("at", range(3, 15))
def test_follow_ups_cut_off_anywhere_go_on_where_they_were(tmp_path, at):
    config = one_operator("diff", budget__max_candidates=3, islands__in_flight=1)

    async def main() -> None:
        model = Scripted(BAD_EDIT, SAME, SAME, GOOD)
        folder = folder_for(tmp_path, config)
        journal = await start_and_cut(folder, at, True, config, model)
        later = journal.take_over()
        await start(folder, later, config, model)
        events = await later.read()
        check_requests(events, model)
        check_lost_are_asked_anew(events)
        assert len(candidates(events)) == 3
        for end in settled(events):
            answers = [e for e in kinds(events, EventKind.COMPLETED, EventKind.LOST) if e.candidate == end.candidate]
            assert end.body["cost"] == pytest.approx(sum(e.body["usage"]["usd"] for e in answers))

    asyncio.run(main())


# Repairs


def test_programs_that_were_screened_out_are_repaired_once_each(tmp_path):
    config = override(paid_config(budget__max_candidates=40), {"generator.near_duplicate": None})
    operators = dict.fromkeys(["diff", "rewrite", "crossover", "mutate"], 0.0) | {"diff": 1.0, "fix": 5.0}
    config = override(config, {"generator.operators": operators, "generator.edit_retries": 0})

    class Careless(LiteralModel):
        """Every other program does not compile."""

        async def complete(self, request: GenerationRequest) -> Completion:
            if request.operator == "fix":
                self.requests.append(request)
                found = re.search(r"VALUE = = (\d+)", request.parents[0])
                assert found is not None
                edit = f"<<<<<<< SEARCH\n{found[0]}\n=======\nVALUE = {int(found[1]) + 20}\n>>>>>>> REPLACE\n"
                return Completion(edit, self.name, "fix", usage=Usage(60, 40, usd=0.01))
            completion = await super().complete(request)
            if completion.text is None or request.form == "text" or sum(request.rng_key) % 2:
                return completion
            return replace(completion, text=completion.text.replace("=======\nVALUE =", "=======\nVALUE = ="))

    journal = MemoryJournal()
    model = Careless(paid=True)
    asyncio.run(start(folder_for(tmp_path, config), journal, config, model))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 40
    repaired = [e.body["parents"][0] for e in kinds(events, EventKind.PROPOSED) if e.body["operator"] == "fix"]
    assert len(repaired) > 3
    assert len(repaired) == len(set(repaired))
    children = [e for e in kinds(events, EventKind.ADMITTED) if e.body["arm"][1] == "fix"]
    assert children
    scores = {e.candidate: e.body["score"] for e in kinds(events, EventKind.ADMITTED)}
    parents = {e.candidate: e.body["parents"][0] for e in settled(events) if e.body["parents"]}
    for child in children:
        reference = child.body["parents"][0]
        while reference not in scores:
            reference = parents[reference]
        assert child.body["gain"] == child.body["score"] - scores[reference]
    ended = {e.candidate: e for e in settled(events)}
    assert all(ended[name].kind is EventKind.REJECTED for name in repaired)
    for request in model.requests:
        if request.operator == "fix":
            assert ended[repaired_by(events, request.candidate)].body["detail"] in request.messages[1].content


def repaired_by(events: list[Event], candidate: str) -> str:
    (proposed,) = [e for e in kinds(events, EventKind.PROPOSED) if e.candidate == candidate]
    parent: str = proposed.body["parents"][0]
    return parent


# Prompts that do not fit


def test_a_parent_that_no_prompt_can_hold_costs_a_candidate_and_not_the_run(tmp_path):
    config = one_operator("rewrite", budget__max_candidates=12)
    config = override(config, {"generator.summarize_every": 2, "generator.near_duplicate": None})

    class Verbose(LiteralModel):
        async def complete(self, request: GenerationRequest) -> Completion:
            completion = await super().complete(request)
            if completion.text is None or request.form != "rewrite":
                return completion
            padded = completion.text.replace("# EVOLVE-BLOCK-END", "# " + "x" * 95_000 + "\n# EVOLVE-BLOCK-END")
            return replace(completion, text=padded)

    journal = MemoryJournal()
    asyncio.run(start(folder_for(tmp_path, config), journal, config, Verbose(paid=True)))
    events = asyncio.run(journal.read())
    assert len(candidates(events)) == 12
    refused = [e for e in settled(events) if e.body.get("failure") == FailureKind.BUDGET_EXHAUSTED]
    assert refused
    assert all("context_tokens" in e.body["detail"] for e in refused)
    assert all(e.body["cost"] == 0 for e in refused)


def test_a_seed_that_no_prompt_can_hold_ends_the_run_in_one_line(tmp_path):
    config = paid_config()
    long = SEED.replace("VALUE = 1", "VALUE = 1\n# " + "x" * 95_000)
    with pytest.raises(UsageError, match="context_tokens"):
        asyncio.run(
            start(
                folder_for(tmp_path, config), MemoryJournal(), config, LiteralModel(paid=True), brief=stub_brief(long)
            )
        )
