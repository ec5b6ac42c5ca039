"""Detectors: pure functions from a history to what is wrong with it, or None.

Thresholds are constants beside each detector. All were set so that simulated healthy searches seldom trip them
(`tests/supervision/test_island_detectors.py` states how seldom).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

InterventionKind: TypeAlias = Literal["temperature", "operators", "migrate", "shift", "restart", "ask_hint"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong with a search."""

    detector: str
    island: int | None
    """None: the run as a whole."""
    evidence: str
    """One line with the figures that made the detector fire."""
    figures: Mapping[str, float]
    remedies: tuple[InterventionKind, ...]
    """What may help, mildest first; () where only a look by a person does."""
    subject: str = ""
    """Of what it is a finding: the failure kind, the model, the metric, the limit."""


def figure(value: float) -> str:
    """A figure as evidence shows it."""
    return f"{value:.0f}" if abs(value) < 1e15 and value == int(value) else f"{value:.3g}"


def percent(share: float) -> str:
    """A share of 1 as evidence shows it."""
    return f"{100 * share:.0f} %"


def most_common(texts: Iterable[str]) -> str:
    """The most frequent text as one printable line of at most 100 characters; numbers do not tell texts apart."""
    counts: Counter[str] = Counter()
    shown: dict[str, str] = {}
    for text in texts:
        line = " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())[:100]
        if line:
            key = re.sub(r"\d+", "0", line)
            counts[key] += 1
            shown.setdefault(key, line)
    return shown[counts.most_common(1)[0][0]] if counts else ""
