"""What is done about findings: one intervention at a time, the mildest that was not tried lately. Pure.

Escalation: temperature -> operators -> migrate -> shift -> restart -> ask_hint. Each later one throws more of the
present search away, or costs more: requests are only worded otherwise, then asked for otherwise; elites come from
elsewhere; the strong model is asked for another algorithm; the archive is cut down; a person is asked.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from adrs_ray.candidate import FailureKind
from adrs_ray.config import HealthConfig
from adrs_ray.supervision.detectors import Finding, InterventionKind

ESCALATION: tuple[InterventionKind, ...] = get_args(InterventionKind)
"""Mildest first."""

SPENT_COOLDOWNS = 8
"""Cool-downs for which a kind is not done again: longer than going through all six of them once."""

HEAT = 1.25
"""Factor for temperatures; its inverse where smaller steps are wanted."""
_CAREFUL = ("failure_storm", "drift", "model_gone_bad")


@dataclass(frozen=True, slots=True)
class Intervention:
    """One change to a search while it runs; journaled, so that its effect can be measured."""

    kind: InterventionKind
    island: int | None
    """None: all islands."""
    reason: str
    """`detector: evidence`, one line."""
    value: Mapping[str, Any] = field(default_factory=dict)
    """temperature: `factor`, of the configured temperatures. ask_hint: `question`, one line. Nothing for the others:
    operators are drawn evenly until there is news of them; elites are sent at the next decision; the next proposal is
    a paradigm shift; the archive keeps its best and those most different from it."""


def decide(
    findings: Sequence[Finding],
    last: Mapping[str, int],
    decision: int,
    config: HealthConfig,
    possible: Collection[InterventionKind] = ESCALATION,
) -> Intervention | None:
    """What to do now, or None.

    `last` says of each kind at which decision of the island (for findings of the run: after how many candidates of
    the run) it was last done, `decision` where we stand, `possible` what can be done here (no temperature without a
    language model, no migration with one island).

    - Nothing when `health.interventions` is off, or within `health.cooldown` of the last intervention of any kind.
    - Findings in their order; of the first that has one, the mildest remedy that was not done within eight cool-downs.
      So a finding that stays escalates, one with all remedies done waits, and after a quiet time it begins anew.
    """
    if not config.interventions or any(decision - done < config.cooldown for done in last.values()):
        return None
    spent = {kind for kind, done in last.items() if decision - done < SPENT_COOLDOWNS * config.cooldown}
    for finding in findings:
        for kind in ESCALATION:
            if kind in finding.remedies and kind in possible and kind not in spent:
                reason = f"{finding.detector}: {finding.evidence}"
                return Intervention(kind, finding.island, reason, _value(kind, finding))
    return None


def _value(kind: InterventionKind, finding: Finding) -> Mapping[str, Any]:
    """Storms and drift ask for smaller steps, what does not move asks for larger ones."""
    if kind == "temperature":
        careful = finding.detector in _CAREFUL and finding.subject != FailureKind.DUPLICATE.value
        return {"factor": 1 / HEAT if careful else HEAT}
    if kind == "ask_hint":
        where = "the run" if finding.island is None else f"island {finding.island}"
        return {"question": f"{where}, {finding.detector}: {finding.evidence}. What should be tried?"}
    return {}


def to_json(intervention: Intervention) -> dict[str, Any]:
    """A JSON-ready dict that `from_json` turns back into an equal value."""
    return {
        "kind": intervention.kind,
        "island": intervention.island,
        "reason": intervention.reason,
        "value": dict(intervention.value),
    }


def from_json(data: Mapping[str, Any]) -> Intervention:
    """The inverse of `to_json`. Raises KeyError or ValueError on a foreign dict."""
    if data["kind"] not in ESCALATION:
        raise ValueError(f"{data['kind']!r} is no intervention: one of {', '.join(ESCALATION)}")
    return Intervention(data["kind"], data["island"], data["reason"], data["value"])
