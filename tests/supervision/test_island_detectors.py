"""Each island detector fires on a history with its problem, says why, and stays silent beside it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.candidate import FailureKind
from adrs_ray.config import HealthConfig
from adrs_ray.supervision.detectors import Finding, figure
from adrs_ray.supervision.detectors.island import (
    drift,
    early_convergence,
    failure_storm,
    shallow_optimisation,
    stagnation,
)
from adrs_ray.supervision.health import examine_island
from tests.supervision.histories import WINDOW, HealthyIsland, elite, island, outcome


def fired(finding: Finding | None) -> Finding:
    """The finding, with evidence of one line that has all its figures."""
    assert finding is not None
    assert "\n" not in finding.evidence
    for name, value in finding.figures.items():
        assert figure(value) in finding.evidence, name
    return finding


def lineage(ancestors: int, parents: int) -> list:
    """Two windows: unrelated candidates, then children of `parents` of them, or of each other in a chain (0)."""
    first = [outcome(n, -float(n)) for n in range(WINDOW)]
    second = [
        outcome(
            WINDOW + n,
            -1.0,
            parents=(f"c{n % ancestors}",) if parents or n < ancestors else (f"c{WINDOW + n - ancestors}",),
        )
        for n in range(WINDOW)
    ]
    return first + second


def test_one_ancestor_and_few_places_taken_are_early_convergence():
    finding = fired(early_convergence(island(lineage(1, 0), elites=[elite(n) for n in range(5)]), WINDOW))
    assert "100 % of the last 50 valid candidates' ancestry from c0" in finding.evidence
    assert "5 elites for 64 places" in finding.evidence


def test_one_parent_for_all_is_early_convergence_in_a_full_archive():
    finding = fired(early_convergence(island(lineage(1, 1)), WINDOW))
    assert finding.figures["effective_parents"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("outcomes", "changes"),
    [
        (lineage(1, 0), {}),  # a chain, but through many parents and in a full archive
        (lineage(20, 1), {"elites": [elite(n) for n in range(5)]}),  # few places taken, but many lines
        (lineage(1, 1)[: WINDOW + 30], {}),  # too early to say
    ],
    ids=["one sign: ancestor", "one sign: occupancy", "early"],
)
def test_one_sign_alone_is_no_early_convergence(outcomes, changes):
    assert early_convergence(island(outcomes, **changes), WINDOW) is None


def test_crossover_owes_half_to_each_parent():
    mixed = [
        outcome(each.decision, each.score, parents=(*each.parents, f"c{each.decision - WINDOW}"))
        if each.parents
        else each
        for each in lineage(1, 1)
    ]
    finding = fired(early_convergence(island(mixed, elites=[elite(0)]), WINDOW))
    assert finding.figures["dominance"] == pytest.approx(51)


def regular_gains(every: int, until: int, total: int) -> list:
    """A better best every so many candidates until one, none afterwards."""
    return [outcome(n, float(n) if n % every == 0 and n <= until else -1.0) for n in range(total)]


def test_a_wait_that_the_own_rate_makes_unlikely_is_stagnation():
    finding = fired(stagnation(island(regular_gains(5, 200, 281)), WINDOW))
    assert finding.figures["waited"] == 80
    assert finding.figures["rate"] == pytest.approx(0.2)
    assert finding.figures["chance"] < 0.01


@pytest.mark.parametrize(("every", "waited"), [(5, 49), (25, 120), (40, 150), (50, 220)])
def test_a_wait_that_is_usual_at_its_rate_is_none(every, waited):
    assert stagnation(island(regular_gains(every, 200, 201 + waited)), WINDOW) is None


@pytest.mark.parametrize("changes", [{}, {"gains": ()}], ids=["rare", "not counted"])
def test_no_rate_excuses_a_wait_beyond_the_floor(changes):
    rare = regular_gains(400, 400, 640)
    assert "the floor" in fired(stagnation(island(rare, **changes), WINDOW)).evidence
    assert stagnation(island(rare[:620], **changes), WINDOW) is None


def test_an_island_without_any_valid_candidate_stagnates():
    assert fired(stagnation(island([outcome(n) for n in range(230)]), WINDOW)).figures["waited"] == 230


def two_windows(fall: float, growth: float) -> dict:
    rng = np.random.default_rng(3)
    scores = [*rng.normal(10, 1, WINDOW), *rng.normal(10 - fall, 1, WINDOW)]
    sizes = [*rng.normal(100, 10, WINDOW), *rng.normal(100 * growth, 10, WINDOW)]
    outcomes = [outcome(n, score) for n, score in enumerate(scores)]
    return {"outcomes": outcomes, "descriptors": {f"c{n}": (size, 0.5) for n, size in enumerate(sizes)}, "elites": ()}


def test_scores_that_fall_while_programs_grow_are_drift():
    finding = fired(drift(island(**two_windows(2.0, 1.5)), WINDOW))
    assert "median size from" in finding.evidence
    assert finding.figures["median"] < finding.figures["median_before"] - 1


def test_descriptors_of_elites_count_for_drift():
    values = two_windows(2.0, 1.5)
    values["elites"] = [elite(n, 0.0, values["descriptors"].pop(f"c{n}")) for n in range(0, 2 * WINDOW, 2)]
    assert drift(island(**values), WINDOW) is not None


@pytest.mark.parametrize(("fall", "growth"), [(2.0, 1.0), (2.0, 0.5), (0.0, 1.5), (-2.0, 1.5)])
def test_falling_alone_or_growing_alone_is_no_drift(fall, growth):
    assert drift(island(**two_windows(fall, growth)), WINDOW) is None


def failing(before: int, now: int, kind: FailureKind = FailureKind.TIMEOUT) -> list:
    """Three windows: `before` failures among the first two, then `now` among the last."""
    spread = [i < before for i in range(2 * WINDOW)] + [i < now for i in range(WINDOW)]
    return [
        outcome(n, failure=kind, detail=f"case {n}: 30 s\x1b[31m\nare over") if bad else outcome(n, 1.0)
        for n, bad in enumerate(spread)
    ]


def test_a_kind_of_failure_that_becomes_frequent_is_a_storm():
    finding = fired(failure_storm(island(failing(10, 30)), WINDOW))
    assert finding.subject == "timeout"
    assert "30 of the last 50 candidates (60 %) failed with timeout, 10 of 100 before" in finding.evidence
    assert finding.evidence.endswith("most often: case 100: 30 s [31m are over")


def test_what_nearly_always_fails_is_a_storm_from_the_start():
    outcomes = failing(0, 45)[-WINDOW:]
    assert fired(failure_storm(island(outcomes), WINDOW)).figures["candidates_before"] == 0
    assert failure_storm(island(failing(90, 45)), WINDOW) is not None


@pytest.mark.parametrize(("before", "now"), [(0, 15), (40, 25), (60, 30), (100, 35)])
def test_failures_that_are_few_or_usual_are_no_storm(before, now):
    assert failure_storm(island(failing(before, now)), WINDOW) is None


def test_only_a_person_can_help_against_failures_of_ours():
    assert fired(failure_storm(island(failing(0, 40, FailureKind.INFRASTRUCTURE)), WINDOW)).remedies == ("ask_hint",)


def shaped(new_every: int) -> list:
    return [outcome(n, 1.0, parents=("c0",), shape=f"s{n - n % new_every}") for n in range(100)]


def test_children_that_differ_in_constants_only_are_shallow():
    finding = fired(shallow_optimisation(island(shaped(25)), WINDOW))
    assert finding.figures == {"same_shape": 48, "children": 50}


def test_new_shapes_now_and_then_are_not_shallow():
    assert shallow_optimisation(island(shaped(3)), WINDOW) is None
    assert shallow_optimisation(island([outcome(n, 1.0, parents=("c0",)) for n in range(100)]), WINDOW) is None


def test_findings_come_in_a_fixed_order_and_none_when_switched_off():
    still = [outcome(n, -1.0, parents=("c0",), shape="s") for n in range(270)]
    history = island([outcome(n) if n >= 240 else each for n, each in enumerate(still)], elites=[elite(0)])
    names = [finding.detector for finding in examine_island(history, HealthConfig())]
    assert names == ["failure_storm", "early_convergence", "stagnation", "shallow_optimisation"]
    assert examine_island(history, HealthConfig(enabled=False)) == ()


BOUNDS = {
    "failure_storm": 0.01,
    "early_convergence": 0.02,
    "stagnation": 0.05,
    "drift": 0.01,
    "shallow_optimisation": 0.01,
}
"""Share of looks at healthy islands at which each detector may fire."""


def test_healthy_islands_seldom_raise_an_alarm():
    looks, alarms = 0, dict.fromkeys(BOUNDS, 0)
    for seed in range(200):
        healthy = HealthyIsland(seed)
        for _ in range(300):
            healthy.step()
            if len(healthy.outcomes) % 100 == 0:
                looks += 1
                for finding in examine_island(healthy.history(), HealthConfig()):
                    alarms[finding.detector] += 1
    assert looks == 600
    assert {name: count for name, count in alarms.items() if count > BOUNDS[name] * looks} == {}


scores = st.none() | st.floats(-1e9, 1e9)
any_outcome = st.builds(
    lambda number, score, parents, kind, detail, shape: outcome(
        number, score, parents=tuple(f"c{p}" for p in parents), failure=kind, detail=detail, shape=shape
    ),
    st.integers(0, 40),
    scores,
    st.lists(st.integers(0, 40), max_size=3),
    st.sampled_from([FailureKind.CRASH, FailureKind.CRASH, FailureKind.GENERATION]),
    st.text(max_size=30),
    st.sampled_from(["", "a", "a", "b"]),
)


@given(st.lists(any_outcome, max_size=60).flatmap(lambda part: st.sampled_from([part, part * 4])), st.integers(1, 60))
def test_any_history_is_examined_and_evidence_is_one_bounded_line(outcomes, capacity):
    history = island(outcomes, capacity=capacity, descriptors={"c1": (), "c2": (5.0,), "c3": (5.0, 0.1)})
    for finding in examine_island(history, HealthConfig(window=10)):
        assert fired(finding).evidence.isprintable()
        assert len(finding.evidence) < 400
