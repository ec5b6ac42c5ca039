"""The task telemetry_repair, slowly: plain dicts and loops, written from the rules, kept to compare with.

`public_readings` uses Python's global generator, as the public evaluator does.
"""

from __future__ import annotations

import random
from typing import Any

Telemetry = dict[str, dict[str, Any]]


def telemetry_of(truth: list[list[float]], public: dict[str, Any]) -> Telemetry:
    """The dicts of one snapshot from its counters."""
    return {
        name: {
            "interface_status": "up",
            "rx_rate": truth[i][0],
            "tx_rate": truth[i][1],
            "connected_to": public["connected_to"][i],
            "local_router": public["local_router"][i],
            "remote_router": public["remote_router"][i],
        }
        for i, name in enumerate(public["interfaces"])
    }


def public_readings(snapshots: list[Telemetry], topology: dict[str, list[str]]) -> list[Telemetry]:
    """What the public evaluator makes of the 30 snapshots; the global generator is left where it was."""
    state = random.getstate()
    try:
        random.seed(42)
        random.sample(range(40), 30)
        return [_public_reading(original, topology) for original in snapshots]
    finally:
        random.setstate(state)


def _public_reading(original: Telemetry, topology: dict[str, list[str]]) -> Telemetry:
    bug = random.choice(["dropped", "scaled", "correlated_dropped", "correlated_scaled"])
    changed = {name: dict(fields) for name, fields in original.items()}
    for fields in changed.values():
        fields["rx_rate"] *= random.uniform(0.98, 1.02)
        fields["tx_rate"] *= random.uniform(0.98, 1.02)
        if bug == "dropped":
            if random.random() < 0.2:
                fields["rx_rate"] = fields["tx_rate"] = 0.0
        elif bug == "scaled" and random.random() < 0.2:
            _scale(fields)
    for interfaces in topology.values():
        if random.random() < 0.8:
            continue
        for name in interfaces:
            if bug == "correlated_dropped":
                changed[name] = {**original[name], "rx_rate": 0.0, "tx_rate": 0.0}
            elif bug == "correlated_scaled":
                changed[name] = dict(original[name])
                _scale(changed[name])
    return changed


def _scale(fields: dict[str, Any]) -> None:
    for rate in ("rx_rate", "tx_rate"):
        fields[rate] *= random.choice([random.uniform(0.5, 0.8), random.uniform(1.2, 1.5)])


def public_score(answer: Telemetry, truth: Telemetry) -> tuple[float, float, float, float]:
    """(combined, counter, status, confidence) of one snapshot under the public formula."""
    errors, statuses, credits = [], [], []
    for name, fields in answer.items():
        for rate in ("rx_rate", "tx_rate"):
            true = truth[name][rate]
            value, confidence = _split(fields[rate])
            if true > 0:
                errors.append(min(abs(value - true) / true, 1.0))
            if confidence is not None:
                accuracy = 1 - abs(true - value) / max(abs(true), abs(value), 1.0)
                if accuracy > 0.8:
                    credit = 1.0 if confidence > 0.7 else 0.5 + 1.25 * (confidence - 0.3)
                else:
                    credit = 0.8 if confidence < 0.3 else max(0.0, 0.8 - 2 * confidence * (1 - accuracy))
                credits.append(min(1.0, max(0.0, credit)))
        status, _ = _split(fields["interface_status"])
        statuses.append(status == truth[name]["interface_status"])
    counter = 1 - sum(errors) / len(errors) if errors else 0.0
    status_share = sum(statuses) / len(statuses) if statuses else 1.0
    confidence_share = sum(credits) / len(credits) if credits else 1.0
    return (
        0.75 * counter + 0.05 * status_share + 0.2 * confidence_share,
        counter,
        status_share,
        confidence_share,
    )


def loss(answers: list[Telemetry], truths: list[Telemetry]) -> float:
    """The loss of the sound scoring over the snapshots of a case."""
    total = wrong_statuses = 0.0
    counters = interfaces = 0
    for answer, truth in zip(answers, truths, strict=True):
        for name, true in truth.items():
            fields = answer.get(name, {})
            interfaces += 1
            status, _ = _split(fields.get("interface_status"))
            wrong_statuses += status != "up"
            for rate in ("rx_rate", "tx_rate"):
                counters += 1
                error, confidence = 1.0, 1.0
                if rate in fields:
                    value, stated = _split(fields[rate])
                    confidence = 1.0 if stated is None else stated
                    error = min(1.0, abs(value - true[rate]) / max(true[rate], 0.01))
                right = 1.0 if error <= 0.05 else 0.0
                total += 0.75 * error + 0.1 * (1.0 - right) + 0.1 * (confidence - right) ** 2
    return total / counters + 0.05 * wrong_statuses / interfaces


def _split(value: Any) -> tuple[Any, float | None]:
    if isinstance(value, tuple) and len(value) == 3:
        return value[1], value[2]
    return value, None
