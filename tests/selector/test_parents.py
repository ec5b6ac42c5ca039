from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import SelectorConfig
from adrs_ray.selector import Children, Elite, ParentContext
from adrs_ray.selector.parents import PARENT_RULES, choose_inspirations, choose_parent, choose_partner

ELITES = [Elite(f"0-{n}", float(n), {}, (0.0, 0.0), f"f{n}", f"s{n}") for n in range(5)]
NEVER = ParentContext(exploration=0.0)


def counts(
    rule: str, draws: int = 4000, elites: list[Elite] = ELITES, context: ParentContext = NEVER, **changes: object
) -> Counter[str]:
    config = SelectorConfig.model_validate({"parents": rule, "exploration": 0.0, **changes})
    rng = np.random.default_rng(0)
    return Counter(choose_parent(elites, config, context, rng).candidate for _ in range(draws))


def with_cases(*cases: tuple[float, ...]) -> list[Elite]:
    return [Elite(f"0-{n}", float(n), {}, (0.0, 0.0), f"f{n}", "", c) for n, c in enumerate(cases)]


@pytest.mark.parametrize("rule", sorted(PARENT_RULES))
def test_exploration_draws_all_elites_alike_under_every_rule(rule):
    found = counts(rule, context=ParentContext(exploration=1.0), exploitation=0.0)
    assert all(abs(found[e.candidate] - 800) < 120 for e in ELITES)


@pytest.mark.parametrize("rule", sorted(PARENT_RULES))
def test_a_lone_elite_is_the_parent_under_every_rule(rule):
    for elites in (ELITES[:1], with_cases((1.0, 2.0))):
        assert counts(rule, 20, elites) == {"0-0": 20}


@pytest.mark.parametrize("rule", sorted(PARENT_RULES))
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.lists(st.floats(), max_size=3)),
        min_size=1,
        max_size=6,
    ),
    st.integers(0, 99),
)
def test_any_figures_have_a_parent_under_every_rule(rule, values, seed):
    elites = [Elite(f"0-{n}", s, {}, (0.0, 0.0), f"f{n}", "", tuple(cases)) for n, (s, cases) in enumerate(values)]
    config = SelectorConfig.model_validate({"parents": rule})
    assert choose_parent(elites, config, NEVER, np.random.default_rng(seed)) in elites


@pytest.mark.parametrize("rule", sorted(PARENT_RULES))
def test_every_third_parent_is_a_pinned_one(rule):
    pinned = ParentContext(exploration=0.0, pinned=("0-1", "gone"))
    free = counts(rule, 6000)
    found = counts(rule, 6000, context=pinned)
    assert abs(found["0-1"] - (2000 + free["0-1"] * 2 / 3)) < 150
    assert counts(rule, 500, context=ParentContext(exploration=0.0, pinned=("gone",))) == counts(rule, 500)


def test_exploitation_prefers_better_scores_linearly():
    found = counts("explore_exploit", 15_000, exploitation=1.0)
    for n in range(5):
        assert abs(found[f"0-{n}"] - (n + 1) * 1000) < 150


def test_the_rest_goes_to_the_best():
    assert counts("explore_exploit", exploitation=0.0) == {"0-4": 4000}


def test_exploration_as_adaptation_has_it_counts_and_not_that_of_the_config():
    found = counts("explore_exploit", context=ParentContext(exploration=0.5), exploration=0.0, exploitation=0.0)
    assert abs(found["0-4"] - 2400) < 150


def test_explore_exploit_draws_as_it_always_did():
    """One draw decides between the three: the parents that these seeds gave before there were other rules."""
    config = SelectorConfig()
    context = ParentContext(config.exploration)
    found = [choose_parent(ELITES, config, context, np.random.default_rng(seed)).candidate for seed in range(16)]
    assert found == [f"0-{n}" for n in (4, 0, 4, 0, 4, 4, 3, 1, 0, 4, 4, 3, 0, 4, 4, 1)]


def test_softmax_follows_the_scores_in_units_of_their_spread():
    start = counts("softmax", 20_000, temperature=(1.0, 0.1))
    spread = np.arange(5.0).std()
    assert start["0-4"] / start["0-3"] == pytest.approx(np.exp(1 / spread), rel=0.1)
    scaled = [Elite(f"0-{n}", 1000.0 * n - 7, {}, (0.0, 0.0), f"f{n}", "") for n in range(5)]
    assert counts("softmax", 2000, scaled) == counts("softmax", 2000)


def test_softmax_cools_with_the_budget():
    shares = [
        counts("softmax", 2000, context=ParentContext(0.0, progress))["0-4"] / 2000 for progress in (0.0, 0.5, 1.0)
    ]
    assert shares == sorted(shares)
    assert shares[0] < 0.6
    assert shares[2] > 0.95


def test_softmax_draws_equal_scores_alike():
    equal = [Elite(f"0-{n}", 3.0, {}, (0.0, 0.0), f"f{n}", "") for n in range(5)]
    assert all(abs(count - 800) < 120 for count in counts("softmax", 4000, equal).values())


def test_lexicase_draws_specialists_and_never_one_that_is_beaten_everywhere():
    elites = with_cases((9.0, 0.0, 0.0), (0.0, 9.0, 0.0), (0.0, 0.0, 9.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))
    found = counts("lexicase", 3000, elites)
    assert set(found) == {"0-0", "0-1", "0-2"}
    assert all(abs(count - 1000) < 120 for count in found.values())


def test_lexicase_holds_small_differences_for_none():
    elites = with_cases((10.0, 0.0), (9.5, 1.0), (5.0, 0.0), (1.0, 0.0), (0.0, 0.0))
    found = counts("lexicase", 2000, elites)
    assert set(found) == {"0-1"}  # within the deviation of 4 on the first case, alone on the second


def test_lexicase_goes_by_rank_without_cases_and_takes_missing_figures_for_the_worst():
    found = counts("lexicase", 15_000)
    for n in range(5):
        assert abs(found[f"0-{n}"] - (n + 1) * 1000) < 150
    assert set(counts("lexicase", 500, with_cases((), (1.0,), ()))) == {"0-1"}


def test_power_law_falls_with_rank():
    found = counts("power_law", 20_000, power=1.0)
    total = sum(1 / rank for rank in range(1, 6))
    for n in range(5):
        assert found[f"0-{n}"] / 20_000 == pytest.approx(1 / (5 - n) / total, abs=0.02)
    assert counts("power_law", 2000, power=8.0)["0-4"] > 1980


def test_ucb_takes_those_without_children_first_the_best_of_them():
    children = {"0-4": Children(3, 3), "0-2": Children(0, 0)}
    assert counts("ucb", 10, context=ParentContext(0.0, children=children)) == {"0-3": 10}


def test_ucb_weighs_success_against_certainty():
    def chosen(ucb: float, *children: tuple[int, int]) -> set[str]:
        known = {f"0-{n}": Children(*pair) for n, pair in enumerate(children)}
        return set(counts("ucb", 5, ELITES[: len(children)], ParentContext(0.0, children=known), ucb=ucb))

    assert chosen(0.0, (10, 6), (10, 3)) == {"0-0"}
    assert chosen(0.0, (100, 50), (4, 1)) == {"0-0"}
    assert chosen(1.0, (100, 50), (4, 1)) == {"0-1"}
    assert chosen(1.0, (5, 2), (5, 2)) == {"0-1"}  # equal bounds: the better score


def test_a_partner_is_another_elite():
    rng = np.random.default_rng(0)
    partners = {choose_partner(ELITES, ELITES[2], rng).candidate for _ in range(200)}  # type: ignore[union-attr]
    assert partners == {"0-0", "0-1", "0-3", "0-4"}
    assert choose_partner(ELITES[:1], ELITES[0], rng) is None


def placed(number: int, score: float, *descriptor: float, fingerprint: str = "") -> Elite:
    return Elite(f"0-{number}", score, {}, descriptor, fingerprint or f"f{number}", "")


def test_inspirations_are_the_best_and_the_farthest_in_turn():
    scores = [0.0, 1.0, 9.0, 8.0, 2.0, 3.0, 0.5, 0.6, 0.7]
    line = [placed(n, score, float(n)) for n, score in enumerate(scores)]
    chosen = choose_inspirations(line, line[0], 4, np.random.default_rng(0))
    # 8 is farthest from 0 and 2; then 3 is the best left, and 5 lies between 3 and 8 with the most room
    assert [e.candidate for e in chosen] in (["0-2", "0-8", "0-3", "0-5"], ["0-2", "0-8", "0-3", "0-6"])


def test_a_program_is_shown_once_and_the_parent_never():
    twins = [placed(0, 5.0, 1.0, fingerprint="a"), placed(1, 4.0, 1.0, fingerprint="a"), placed(2, 3.0, 2.0)]
    parent = placed(3, 1.0, 0.0)
    copy = placed(4, 9.0, 9.0, fingerprint="f3")
    chosen = choose_inspirations([*twins, parent, copy], parent, 10, np.random.default_rng(0))
    assert [e.candidate for e in chosen] == ["0-0", "0-2"]


@given(
    st.lists(
        st.tuples(st.floats(-5, 5), st.floats(), st.integers(0, 3), st.lists(st.floats(), max_size=2)),
        min_size=1,
        max_size=8,
    ),
    st.integers(0, 6),
    st.integers(0, 99),
)
def test_inspirations_of_any_archive_differ_and_depend_on_the_generator_alone(values, count, seed):
    elites = [Elite(f"0-{n}", s, {}, (d,), f"f{f}", "", tuple(c)) for n, (s, d, f, c) in enumerate(values)]
    chosen = choose_inspirations(elites, elites[0], count, np.random.default_rng(seed))
    assert chosen == choose_inspirations(elites, elites[0], count, np.random.default_rng(seed))
    programs = [e.fingerprint for e in chosen]
    others = {e.fingerprint for e in elites} - {elites[0].fingerprint}
    assert len(set(programs)) == len(programs) == min(count, len(others))
    assert set(programs) <= others
    if chosen:
        assert chosen[0].score == max(e.score for e in elites if e.fingerprint != elites[0].fingerprint)


def test_the_generator_decides_among_equals():
    equal = [placed(n, 1.0, 0.0) for n in range(6)]
    first = {choose_inspirations(equal, equal[0], 1, np.random.default_rng(s))[0].candidate for s in range(60)}
    assert first == {f"0-{n}" for n in range(1, 6)}
