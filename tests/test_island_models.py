"""An island that asks models: which operator, on whom, how hot, and what people and detectors change of it."""

from dataclasses import replace
from typing import Any

import pytest

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, FailureKind, Refused
from adrs_ray.config import RunConfig, override
from adrs_ray.island import Island, Proposal
from adrs_ray.outcome import Outcome
from adrs_ray.selector import Elite
from adrs_ray.storage.journal import text_ref
from adrs_ray.supervision.interventions import Intervention
from tests.doubles import asking, stub_brief

SEED = "# EVOLVE-BLOCK-START\ndef f(x):\n    return x + 1\n# EVOLVE-BLOCK-END\n"


def variant(number: int) -> str:
    return SEED.replace("x + 1", f"x * {number} + {number}")


def elite(island: Island, candidate: str, source: str, score: float) -> Elite:
    return Elite(candidate, score, {}, island.describe(source), program.fingerprint(source), text_ref(source))


def island_with(operators: dict[str, float] | None = None, **changes: object) -> Island:
    config = asking(override(RunConfig(), {k.replace("__", "."): v for k, v in changes.items()}))
    if operators is not None:
        config = override(config, {"generator.operators": operators})
    island = Island(0, config, stub_brief(SEED))
    island.tell(elite(island, "seed-0", SEED, 0.0), SEED)
    return island


def outcome(proposal: Proposal, score: float | None, **changes: Any) -> Outcome:
    failure = FailureKind.CRASH if score is None else None
    made = Outcome(
        proposal.candidate, 0, proposal.decision, "diff", proposal.arm, proposal.parents, score, failure=failure
    )
    return replace(made, **changes)


def broken(island: Island, number: int) -> Proposal:
    """A decision whose program crashes."""
    return crashed(island, island.ask(), number)


def crashed(island: Island, proposal: Proposal, number: int) -> Proposal:
    text = variant(number)
    island.learn(outcome(proposal, None), text_ref(text))
    island.supply({text_ref(text): text})
    return proposal


def drawn(island: Island, count: int) -> list[Proposal]:
    return [island.ask() for _ in range(count)]


def test_fix_is_drawn_only_where_something_is_broken_and_once_for_each():
    island = island_with({"diff": 1.0, "fix": 1000.0})
    assert {proposal.operator for proposal in drawn(island, 20)} == {"diff"}
    failed = [crashed(island, proposal, number) for number, proposal in enumerate(drawn(island, 2), start=3)]
    proposals = drawn(island, 20)
    fixes = [proposal for proposal in proposals if proposal.operator == "fix"]
    assert [fix.parents for fix in fixes] == [(failed[1].candidate,), (failed[0].candidate,)]
    assert [fix.request.parents for fix in fixes] == [(variant(4),), (variant(3),)]
    assert {fix.request.form for fix in fixes} == {"diff"}


def test_crossover_needs_two_elites():
    island = island_with({"rewrite": 1.0, "crossover": 1000.0})
    assert {proposal.operator for proposal in drawn(island, 20)} == {"rewrite"}
    island.tell(elite(island, "0-90", variant(9), 9.0), variant(9))
    crossed = [proposal for proposal in drawn(island, 20) if proposal.operator == "crossover"]
    assert crossed
    assert all(set(proposal.parents) == {"seed-0", "0-90"} for proposal in crossed)


@pytest.mark.parametrize("operator", ["fix", "crossover"])
def test_where_no_configured_operator_is_possible_the_parent_is_edited(operator):
    island = island_with({operator: 1.0})
    for proposal in drawn(island, 10):
        assert proposal.operator == "diff"
        assert proposal.request.form == "diff"
        assert proposal.parents == ("seed-0",)


def test_mutation_may_be_mixed_in_and_asks_no_model():
    island = island_with({"diff": 1.0, "mutate": 1.0})
    proposals = drawn(island, 60)
    mutations = [proposal for proposal in proposals if proposal.operator == "mutate"]
    assert 10 < len(mutations) < 50
    assert all((p.request.model, p.request.form, p.inspirations) == ("mutate", "program", ()) for p in mutations)
    assert {p.request.model for p in proposals if p.operator == "diff"} == {"small", "strong"}


def test_an_island_asks_only_the_models_it_was_given():
    island = island_with(islands__count=1)
    config = override(asking(RunConfig()), {"islands.overrides": {0: {"models": ["strong"], "temperature": 0.3}}})
    chosen = Island(0, config, stub_brief(SEED))
    chosen.tell(elite(chosen, "seed-0", SEED, 0.0), SEED)
    assert {proposal.request.model for proposal in drawn(chosen, 20)} == {"strong"}
    assert {proposal.request.model for proposal in drawn(island, 20)} == {"small", "strong"}


def test_a_model_that_gains_at_less_cost_is_asked_more_often():
    island = island_with({"diff": 1.0})
    for number in range(60):
        proposal = island.ask()
        gain = 1.0 if proposal.arm[0] == "small" and number % 3 == 0 else 0.0
        island.learn(outcome(proposal, 1.0, gain=gain, cost=0.01 if proposal.arm[0] == "small" else 0.1), None)
    models = [proposal.arm[0] for proposal in drawn(island, 60)]
    assert models.count("small") > 45


def test_a_paradigm_shift_is_asked_of_the_strong_model_once_gains_stay_away():
    island = shifting(5)
    island.tell(elite(island, "0-90", variant(9), 9.0), variant(9))
    operators = []
    for _ in range(12):
        proposal = island.ask()
        operators.append(proposal.operator)
        island.learn(outcome(proposal, 1.0, gain=-8.0), None)
        if proposal.operator == "paradigm_shift":
            assert proposal.arm == ("strong", "paradigm_shift")
            assert proposal.parents == ("0-90",)
            assert proposal.request.form == "rewrite"
    assert [number for number, operator in enumerate(operators) if operator == "paradigm_shift"] == [5, 10]


def shifting(after: int) -> Island:
    config = override(asking(RunConfig()), {"adaptation.shift_after": after, "generator.operators": {"diff": 1.0}})
    island = Island(0, config, stub_brief(SEED))
    island.tell(elite(island, "seed-0", SEED, 0.0), SEED)
    return island


def test_interventions_change_what_is_asked():
    island = island_with({"diff": 99.0, "rewrite": 1.0})
    assert {proposal.request.temperature for proposal in drawn(island, 5)} == {None}
    island.intervene(Intervention("temperature", 0, "why", {"factor": 1.25}))
    assert {proposal.request.temperature for proposal in drawn(island, 5)} == {1.0}
    island.intervene(Intervention("temperature", 0, "why", {"factor": 4.0}))
    assert {proposal.request.temperature for proposal in drawn(island, 5)} == {2.0}
    before = sum(proposal.operator == "rewrite" for proposal in drawn(island, 40))
    island.intervene(Intervention("operators", 0, "why"))
    after = sum(proposal.operator == "rewrite" for proposal in drawn(island, 40))
    assert before < 5 < after
    island.intervene(Intervention("shift", 0, "why"))
    assert [proposal.operator == "paradigm_shift" for proposal in drawn(island, 3)] == [True, False, False]
    assert not island.migration_due(3)
    island.intervene(Intervention("migrate", 0, "why"))
    assert island.migration_due(3)
    island.emigrants()
    assert not island.migration_due(3)


def test_hints_reach_proposals_of_the_islands_they_are_for():
    island = island_with({"diff": 1.0})
    island.obey("hint", {"text": "for all", "island": None})
    island.obey("hint", {"text": "for us", "island": 0})
    island.obey("hint", {"text": "for others", "island": 1})
    island.scribble("larger is better")
    proposal = island.ask()
    assert proposal.hints == ("for all", "for us")
    assert proposal.scratchpad == "larger is better"


def filled(**changes: object) -> Island:
    island = island_with({"diff": 1.0}, **{"selector__archive": "topk", "selector__capacity": 4, **changes})
    for number in range(2, 12):
        island.tell(elite(island, f"0-{100 + number}", variant(number), float(number)), variant(number))
    return island


def test_a_banned_elite_is_no_parent_and_comes_back_by_no_way():
    island = filled()
    assert {e.candidate for e in island.archive} == {"0-108", "0-109", "0-110", "0-111"}
    island.obey("pin", {"candidate": "0-111"})
    island.obey("ban", {"candidate": "0-111"})
    island.tell(elite(island, "0-111", variant(11), 11.0), variant(11))
    proposals = drawn(island, 40)
    assert not any("0-111" in proposal.parents for proposal in proposals)
    assert not any("0-111" in {shown.candidate for shown in proposal.inspirations} for proposal in proposals)
    again = island.screen(proposals[0], proposals[0].request, answer(proposals[0], variant(11)))
    assert isinstance(again, Refused)


def answer(proposal: Proposal, text: str) -> Completion:
    line = proposal.request.parents[0].splitlines()[2]
    new = text.splitlines()[2]
    edit = f"<<<<<<< SEARCH\n{line}\n=======\n{new}\n>>>>>>> REPLACE\n"
    return Completion(edit, "small", "diff")


def test_an_archive_emptied_by_bans_is_filled_with_the_best_that_were_told():
    island = filled()
    for name in ("0-108", "0-109", "0-110", "0-111"):
        island.obey("ban", {"candidate": name})
    assert [e.candidate for e in island.archive] == ["0-107", "0-106", "0-105"]
    assert island.missing_programs() == []
    assert {proposal.parents[0] for proposal in drawn(island, 30)} <= {"0-107", "0-106", "0-105"}


def test_the_only_program_stays_a_parent_until_there_is_another():
    island = island_with({"diff": 1.0})
    island.obey("ban", {"candidate": "seed-0"})
    assert island.ask().parents == ("seed-0",)
    island.tell(elite(island, "0-90", variant(9), 9.0), variant(9))
    assert [e.candidate for e in island.archive] == ["0-90"]
    assert {proposal.parents for proposal in drawn(island, 10)} == {("0-90",)}


def test_a_restart_keeps_the_best_and_those_most_different_from_it():
    island = filled(selector__capacity=12)
    island.obey("restart", {"island": 0})
    kept = [e.candidate for e in island.archive]
    assert len(kept) == 3
    assert "0-111" in kept


def test_a_pinned_elite_is_drawn_about_every_third_time_and_more():
    island = filled()
    before = sum("0-108" in proposal.parents for proposal in drawn(island, 90))
    island.obey("pin", {"candidate": "0-108"})
    after = sum("0-108" in proposal.parents for proposal in drawn(island, 90))
    assert before < 30 < after


def test_storms_of_failures_keep_few_programs():
    island = island_with({"diff": 1.0})
    for number in range(200):
        broken(island, number + 2)
    assert len(island._population._programs) <= 2 * len(island.archive) + 16
    assert island.missing_programs() == []


def test_near_duplicates_of_elites_are_refused_and_of_former_elites_are_not():
    # Long enough that one changed number leaves more than nine tenths of the token 3-grams.
    body = "\n".join(f"    a{number} = x + {number}" for number in range(40))
    text = SEED.replace("    return x + 1", f"{body}\n    return x + 1")
    near = text.replace("return x + 1", "return x + 2")
    island = island_with({"rewrite": 1.0}, generator__near_duplicate=0.9)
    island.tell(elite(island, "0-90", text, 9.0), text)
    proposal = island.ask()
    given = Completion(f"```python\n{near}```\n", "small", "rewrite")
    request = replace(proposal.request, form="rewrite", parents=(SEED,))
    refused = island.screen(proposal, request, given)
    assert isinstance(refused, Refused)
    assert refused.failure.kind is FailureKind.DUPLICATE
    assert "nearly the same program as 0-90" in refused.failure.detail
    island.obey("ban", {"candidate": "0-90"})
    assert isinstance(island.screen(proposal, request, given), Candidate)
