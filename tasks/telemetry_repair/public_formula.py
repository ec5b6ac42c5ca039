"""The public evaluator's formula: .75 counter + .05 status + .2 confidence per snapshot, mean over snapshots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .answer import STATUS_MISSING, STATUS_UP, WITH_CONFIDENCE, Answer
from .network import Floats
from .perturbation import Bools

COUNTER_WEIGHT, STATUS_WEIGHT, CONFIDENCE_WEIGHT = 0.75, 0.05, 0.2


@dataclass(frozen=True, slots=True)
class PublicScores:
    """Shares in 0..1 per snapshot."""

    counter: Floats
    status: Floats
    confidence: Floats

    @property
    def combined(self) -> Floats:
        """The public score of each snapshot."""
        total: Floats = (
            COUNTER_WEIGHT * self.counter + STATUS_WEIGHT * self.status + CONFIDENCE_WEIGHT * self.confidence
        )
        return total


def public_scores(answer: Answer, truth: Floats) -> PublicScores:
    """The public parts, which look at what was returned only.

    - counter: 1 - mean of min(|x - truth| / truth, 1) over returned counters whose truth is above 0; 0 without any;
    - status: share of the returned statuses that say up, as all are; 1 without any;
    - confidence: mean of `confidence_credit` over counters returned with a confidence; 1 without any.
    """
    present = answer.present
    measured = present & (truth > 0.0)
    error = np.minimum(np.abs(answer.values - truth) / np.where(truth > 0.0, truth, 1.0), 1.0)
    stated = answer.status != STATUS_MISSING
    return PublicScores(
        counter=_mean(1.0 - error, measured, 0.0),
        status=_mean((answer.status == STATUS_UP).astype(float), stated, 1.0),
        confidence=_mean(
            confidence_credit(answer.values, answer.confidence, truth), answer.given == WITH_CONFIDENCE, 1.0
        ),
    )


def confidence_credit(values: Floats, confidence: Floats, truth: Floats) -> Floats:
    """The public credit, 0..1, for a confidence; near the truth any above 0.7 counts alike."""
    accuracy = 1.0 - np.abs(truth - values) / np.maximum(np.maximum(np.abs(truth), np.abs(values)), 1.0)
    right = np.where(confidence > 0.7, 1.0, 0.5 + 1.25 * (confidence - 0.3))
    wrong = np.where(confidence < 0.3, 0.8, np.maximum(0.0, 0.8 - 2.0 * confidence * (1.0 - accuracy)))
    credit: Floats = np.clip(np.where(accuracy > 0.8, right, wrong), 0.0, 1.0)
    return credit


def _mean(values: Floats, counted: Bools, without: float) -> Floats:
    axes = tuple(range(1, values.ndim))
    number = counted.sum(axis=axes)
    total = np.where(counted, values, 0.0).sum(axis=axes)
    mean: Floats = np.where(number > 0, total / np.maximum(number, 1), without)
    return mean
