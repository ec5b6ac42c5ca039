import pytest

from adrs_ray import program
from adrs_ray.candidate import Candidate, Completion, Failure, FailureKind
from adrs_ray.config import RunConfig, override
from adrs_ray.island import Island
from adrs_ray.selector import Elite
from adrs_ray.storage.journal import text_ref

SEED = "# EVOLVE-BLOCK-START\ndef f(x):\n    return x + 1\n# EVOLVE-BLOCK-END\n"


def variant(number: int) -> str:
    return SEED.replace("x + 1", f"x * {number} + {number}")


def elite(island: Island, candidate: str, source: str, score: float) -> Elite:
    return Elite(candidate, score, {}, island.describe(source), program.fingerprint(source), text_ref(source))


def planted(**changes: object) -> Island:
    config = override(RunConfig(), {"seed": 3, **{k.replace("__", "."): v for k, v in changes.items()}})
    island = Island(0, config, SEED)
    island.tell(elite(island, "seed-0", SEED, 0.0), SEED)
    return island


def completion(text: str | None) -> Completion:
    return Completion(text, "test", "mutate:test", "why not" if text is None else "")


def test_asking_before_any_program_says_what_to_do():
    with pytest.raises(RuntimeError, match=r"welcome\(\) a valid program first"):
        Island(2, RunConfig(), SEED).ask()


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
    screened = island.screen(proposal, completion(reformatted))
    assert isinstance(screened, Failure)
    assert screened.kind is FailureKind.DUPLICATE
    assert "seed-0" in screened.detail
    fresh = island.screen(proposal, completion(variant(7)))
    assert isinstance(fresh, Candidate)
    again = island.screen(island.ask(), completion(variant(7)))
    assert isinstance(again, Failure)
    assert proposal.candidate in again.detail


def test_what_is_no_program_is_named():
    island = planted()
    nothing = island.screen(island.ask(), completion(None))
    broken = island.screen(island.ask(), completion("def f(:\n"))
    assert isinstance(nothing, Failure)
    assert (nothing.kind, nothing.detail) == (FailureKind.GENERATION, "why not")
    assert isinstance(broken, Failure)
    assert broken.kind is FailureKind.SYNTAX
    assert broken.detail.startswith("line 1: ")


def test_replay_in_any_mix_goes_on_with_the_same_decision():
    live = planted(selector__learn_bounds_from=3)
    history = []
    for number in range(12):
        proposal = live.ask()
        candidate = live.screen(proposal, completion(variant(number + 2)))
        assert isinstance(candidate, Candidate)
        told = elite(live, candidate.id, candidate.source, float(number % 5))
        live.tell(told, candidate.source)
        history.append((candidate, told))

    rebuilt = Island(0, override(RunConfig(), {"seed": 3, "selector.learn_bounds_from": 3}), SEED)
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
    assert isinstance(rebuilt.screen(rebuilt.ask(), completion(variant(5))), Failure)


def test_emigrants_are_sent_once_and_only_when_due():
    island = planted(islands__count=2, islands__migration_interval=5, islands__migration_count=1)
    island.tell(elite(island, "0-90", variant(9), 9.0), variant(9))
    assert island.emigrants(3) == []
    ((best, source),) = island.emigrants(4)
    assert (best.candidate, source) == ("0-90", variant(9))
    island.sent("0-90")
    assert [e.candidate for e, _ in island.emigrants(9)] == ["seed-0"]


def test_programs_of_replaced_elites_are_forgotten():
    island = planted(selector__learn_bounds_from=2, selector__bins=2)
    for number in range(200):
        text = SEED.replace("x + 1", f"x + {number + 2}")
        island.tell(elite(island, f"0-{number}", text, float(number)), text)
    assert len(island._programs) <= 2 * len(island.archive) + 8
    assert island.missing_programs() == []
