from dataclasses import replace

import pytest

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, FailureKind, Refused
from adrs_ray.config import RunConfig, override
from adrs_ray.island import Island
from adrs_ray.selector import Elite
from adrs_ray.storage.journal import text_ref
from tests.doubles import stub_brief

SEED = "# EVOLVE-BLOCK-START\ndef f(x):\n    return x + 1\n# EVOLVE-BLOCK-END\n"


def variant(number: int) -> str:
    return SEED.replace("x + 1", f"x * {number} + {number}")


def elite(island: Island, candidate: str, source: str, score: float) -> Elite:
    return Elite(candidate, score, {}, island.describe(source), program.fingerprint(source), text_ref(source))


def planted(**changes: object) -> Island:
    config = override(RunConfig(), {"seed": 3, **{k.replace("__", "."): v for k, v in changes.items()}})
    island = Island(0, config, stub_brief(SEED))
    island.tell(elite(island, "seed-0", SEED, 0.0), SEED)
    return island


def screened(island: Island, given: Completion) -> Candidate | Refused:
    proposal = island.ask()
    return island.screen(proposal, proposal.request, given)


def completion(text: str | None) -> Completion:
    return Completion(text, "test", "mutate:test", "why not" if text is None else "")


def test_asking_before_any_program_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"tell\(\) a valid program first"):
        Island(2, RunConfig(), stub_brief(SEED)).ask()


def test_decisions_depend_on_seed_island_and_number_alone():
    def decisions(island: Island) -> list[object]:
        for number in range(6):
            island.tell(elite(island, f"0-{100 + number}", variant(number), float(number)), variant(number))
        return [island.ask() for _ in range(10)]

    first, second = decisions(planted()), decisions(planted())
    assert first == second
    assert [p.candidate for p in first] == [f"0-{n}" for n in range(10)]  # type: ignore[attr-defined]
    other = planted(seed=4)
    assert decisions(other) != first


def test_a_known_program_is_a_duplicate_however_it_is_formatted():
    island = planted()
    proposal = island.ask()
    reformatted = SEED.replace("    return x + 1", "    # a comment\n    return (x+1)")
    refused = island.screen(proposal, proposal.request, completion(reformatted))
    assert isinstance(refused, Refused)
    assert refused.failure.kind is FailureKind.DUPLICATE
    assert "seed-0" in refused.failure.detail
    fresh = island.screen(proposal, proposal.request, completion(variant(7)))
    assert isinstance(fresh, Candidate)
    again = screened(island, completion(variant(7)))
    assert isinstance(again, Refused)
    assert proposal.candidate in again.failure.detail


def test_what_is_no_program_is_named():
    island = planted()
    nothing = screened(island, completion(None))
    broken = screened(island, completion("def f(:\n"))
    assert isinstance(nothing, Refused)
    assert (nothing.failure.kind, nothing.failure.detail) == (FailureKind.GENERATION, "why not")
    assert isinstance(broken, Refused)
    assert broken.failure.kind is FailureKind.SYNTAX
    assert broken.failure.detail.startswith("line 1: ")


def test_replay_in_any_mix_goes_on_with_the_same_decision():
    live = planted(selector__learn_bounds_from=3)
    history = []
    for number in range(12):
        proposal = live.ask()
        candidate = live.screen(proposal, proposal.request, completion(variant(number + 2)))
        assert isinstance(candidate, Candidate)
        told = elite(live, candidate.id, candidate.source, float(number % 5))
        live.tell(told, candidate.source)
        history.append((candidate, told))

    rebuilt = Island(0, override(RunConfig(), {"seed": 3, "selector.learn_bounds_from": 3}), stub_brief(SEED))
    rebuilt.tell(elite(rebuilt, "seed-0", SEED, 0.0))
    for candidate, told in history:
        rebuilt.note(candidate.id, candidate.fingerprint, candidate.decision)
        rebuilt.tell(told)
    sources = {text_ref(SEED): SEED} | {told.source: candidate.source for candidate, told in history}
    missing = rebuilt.missing_programs()
    assert missing
    rebuilt.supply({ref: sources[ref] for ref in missing})
    assert list(rebuilt.archive) == list(live.archive)
    assert rebuilt.ask() == live.ask()
    assert isinstance(screened(rebuilt, completion(variant(5))), Refused)


def test_emigrants_are_sent_once_and_only_when_due():
    island = planted(islands__count=2, islands__migration_interval=5, islands__migration_count=1)
    island.tell(elite(island, "0-90", variant(9), 9.0), variant(9))
    assert not island.migration_due(3)
    assert island.migration_due(4)
    assert island.targets == (1,)
    assert [e.candidate for e in island.emigrants()] == ["0-90"]
    assert [e.candidate for e in island.emigrants()] == ["seed-0"]
    assert island.emigrants() == []


def test_programs_of_replaced_elites_are_forgotten():
    island = planted(selector__learn_bounds_from=2, selector__bins=2)
    for number in range(200):
        text = SEED.replace("x + 1", f"x + {number + 2}")
        island.tell(elite(island, f"0-{number}", text, float(number)), text)
    assert len(island._population._programs) <= 2 * len(island.archive) + 16
    assert island.missing_programs() == []


def test_an_elite_that_arrives_again_and_again_takes_no_place_of_those_kept_for_a_ban():
    island = planted(selector__archive="topk", selector__capacity=2)
    for name, number, score in (("0-1", 1, 5.0), ("0-2", 2, 4.0), *[("1-3", 3, 1.0)] * 8):
        island.tell(elite(island, name, variant(number), score), variant(number))
    for name in ("0-1", "0-2"):
        island.obey("ban", {"candidate": name})
    assert {kept.candidate for kept in island.archive} == {"1-3", "seed-0"}


@pytest.mark.parametrize("archive", ["grid", "cvt", "topk", "pareto"])
def test_a_banned_only_parent_makes_way_for_a_worse_one(archive):
    island = planted(selector__archive=archive, selector__learn_bounds_from=2)
    island.archive.freeze()
    island.obey("ban", {"candidate": "seed-0"})
    island.tell(replace(elite(island, "0-1", variant(1), -1.0), descriptor=island.describe(SEED)), variant(1))
    assert [kept.candidate for kept in island.archive] == ["0-1"]
    assert island.ask().parents[0] == "0-1"
