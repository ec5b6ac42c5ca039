"""Interventions: one at a time, cool-downs kept, mildest first."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import HealthConfig
from adrs_ray.supervision.detectors import Finding
from adrs_ray.supervision.interventions import (
    ESCALATION,
    SPENT_COOLDOWNS,
    Intervention,
    decide,
    from_json,
    to_json,
)

CONFIG = HealthConfig(interventions=True, cooldown=10)


def finding(*remedies: str, detector: str = "stagnation", subject: str = "") -> Finding:
    return Finding(detector, 1, "no gain in 80 candidates", {}, remedies, subject)  # type: ignore[arg-type]


EVERYTHING = finding(*ESCALATION)


def play(findings: list[Finding], decisions: int, **options: object) -> list[tuple[int, str]]:
    """What is done when the findings stay."""
    last: dict[str, int] = {}
    done = []
    for decision in range(decisions):
        intervention = decide(findings, last, decision, CONFIG, **options)  # type: ignore[arg-type]
        if intervention is not None:
            last[intervention.kind] = decision
            done.append((decision, intervention.kind))
    return done


def test_a_finding_that_stays_escalates_and_begins_anew():
    kinds = ("temperature", "operators", "migrate", "shift", "restart", "ask_hint")
    expected = [(10 * n, kind) for n, kind in enumerate(kinds)]
    assert play([EVERYTHING], 100) == [*expected, *((80 + decision, kind) for decision, kind in expected[:2])]


def test_nothing_is_done_without_leave_or_without_a_finding():
    assert decide([EVERYTHING], {}, 100, HealthConfig()) is None
    assert decide([], {}, 100, CONFIG) is None
    assert decide([finding()], {}, 100, CONFIG) is None


def test_any_intervention_starts_the_cool_down_of_all():
    assert decide([EVERYTHING], {"shift": 91}, 100, CONFIG) is None
    done = decide([EVERYTHING], {"shift": 90}, 100, CONFIG)
    assert done is not None
    assert done.kind == "temperature"


def test_the_first_finding_goes_first_and_waits_when_its_remedies_are_used():
    first, second = finding("migrate", detector="first"), finding("ask_hint", "operators", detector="second")
    assert play([first, second], 31) == [(0, "migrate"), (10, "operators"), (20, "ask_hint")]


def test_what_cannot_be_done_is_passed_over():
    assert play([EVERYTHING], 11, possible=("operators", "restart")) == [(0, "operators"), (10, "restart")]


def test_the_reason_is_the_evidence_and_a_question_repeats_it():
    done = decide([finding("ask_hint")], {}, 0, CONFIG)
    assert done is not None
    assert (done.island, done.reason) == (1, "stagnation: no gain in 80 candidates")
    assert done.value["question"].startswith("island 1, stagnation: no gain in 80 candidates")


@pytest.mark.parametrize(
    ("detector", "subject", "warmer"),
    [
        ("stagnation", "", True),
        ("drift", "", False),
        ("failure_storm", "crash", False),
        ("failure_storm", "duplicate", True),
    ],
)
def test_temperature_rises_where_nothing_moves_and_falls_in_storms(detector, subject, warmer):
    done = decide([finding("temperature", detector=detector, subject=subject)], {}, 0, CONFIG)
    assert done is not None
    assert (done.value["factor"] > 1) == warmer


kinds = st.sampled_from(ESCALATION)
any_findings = st.lists(st.builds(lambda r: finding(*r), st.lists(kinds, unique=True)), max_size=3)


@given(st.lists(any_findings, max_size=150))
def test_cool_downs_hold_whatever_is_found(history):
    last: dict[str, int] = {}
    done: list[tuple[int, str]] = []
    for decision, findings in enumerate(history):
        intervention = decide(findings, last, decision, CONFIG)
        if intervention is not None:
            assert any(intervention.kind in found.remedies for found in findings)
            assert all(decision - earlier >= CONFIG.cooldown for earlier, _ in done)
            again = [earlier for earlier, kind in done if kind == intervention.kind]
            assert all(decision - earlier >= SPENT_COOLDOWNS * CONFIG.cooldown for earlier in again)
            last[intervention.kind] = decision
            done.append((decision, intervention.kind))


@given(kinds, st.none() | st.integers(0, 9), st.text(), st.dictionaries(st.text(), st.integers() | st.text()))
def test_interventions_survive_the_journal(kind, island, reason, value):
    intervention = Intervention(kind, island, reason, value)
    assert from_json(json.loads(json.dumps(to_json(intervention)))) == intervention


def test_a_foreign_intervention_is_refused():
    with pytest.raises(ValueError, match="'explode' is no intervention"):
        from_json({"kind": "explode", "island": None, "reason": "", "value": {}})
