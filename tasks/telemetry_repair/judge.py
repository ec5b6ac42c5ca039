"""The trusted side: cases, losses against the truth that only it has, and the score of a split.

Every counter of every interface is judged; one that is not returned counts as wrong. With the mean relative error E of
the counters, the share W of wrong statuses, the share F of counters that are not within 5 % of the truth and the Brier
score B of the confidences that they are, the loss of an answer is

    .75 E + .05 W + .1 F + .1 B

B alone would reward answers that are surely wrong over such that are probably right. Expected F + B of a counter that
is right with probability q, stated as the confidence, is 1 - q^2: being right more often never costs.

The improvement of a case is 1 - loss / (loss of handing the readings back): 0 is doing nothing, 1 is the truth with
full confidence. The score of a split is the mean improvement of its cases.

On train and validation a case is a group of snapshots, as a process for each would cost more than the judging: there
a program that gets hold of several gains nothing, since their traffic is independent. Recorded snapshots resemble each
other. So on test and stress every snapshot is a case, with a process of its own, and its loss is held against that of
handing back the readings of its whole group, which gives the same score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import numpy.typing as npt

from adrs_ray.task import Case, CaseResult, Combined, DataFile, InvalidOutput, Split, data_file, quality, read_spec

from . import recorded, splits
from .answer import MISSING, PLAIN, STATUS_UP, WITH_CONFIDENCE, Answer, place, read
from .network import Floats
from .perturbation import FAMILIES, Bools
from .public_formula import CONFIDENCE_WEIGHT, COUNTER_WEIGHT, STATUS_WEIGHT, public_scores
from .splits import Snapshots

FLOOR_MBPS = 0.01
"""Errors are relative to the truth or this, the larger: an idle link has no relative error."""
CLOSE = 0.05
"""Up to this relative error a repaired counter is right, for its confidence; nearly all noise is below it."""
MOVED = 0.1
"""A reading counts as corrupted, and as changed by the program, from this relative difference on."""
ALONE: tuple[Split, ...] = ("test", "stress")
"""Splits whose snapshots are a case each."""
BOUND = 1.0
"""No loss is below 0, so no improvement is above 1."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge keeps of a case."""

    snapshots: Snapshots
    corrupted: Bools
    """Readings that are off by more than MOVED, rows x interfaces x (rx, tx)."""
    idle_loss: float
    """The loss of handing the readings of the group back, above 0."""
    oracle_loss: float
    """That of the better of own and opposite reading for each counter, chosen knowing the truth."""


def cases(split: Split) -> list[Case]:
    """The cases of a split. Raises UsageError when the recorded file is there with another content."""
    made = []
    for group in _snapshots(split):
        idle = _errors(group.readings, group.truth)
        idle_loss = _loss(idle, (idle > CLOSE).astype(float), ~group.up)
        parts = [group.row(i) for i in range(len(group.families))] if split in ALONE else [group]
        made += [_case(part, idle_loss) for part in parts]
    return made


def split_note(split: Split) -> str | None:
    """Says so when the test split is generated because the recorded snapshots are not on this machine."""
    file = recorded_file()
    if split != "test" or data_file(file) is not None:
        return None
    return f"generated: {file.file} is not here (`adrs data pull telemetry_repair` fetches the recorded snapshots)"


def score(case: Case, raw: Any) -> dict[str, float]:
    """Losses of one case's answers and what follows from them; what the case has no counters for is left out.

    Raises MalformedOutput for what is no answer or not finite, InvalidOutput for a negative counter, a confidence
    outside 0..1, a status that is neither up nor down, or an interface that does not exist.
    """
    reference: Reference = case.hidden
    snapshots = reference.snapshots
    answer = read(raw, snapshots.truth.shape)
    _check(answer)
    errors = np.where(answer.present, _errors(answer.values, snapshots.truth), 1.0)
    briers = _briers(answer, errors)
    wrong_status = answer.status != STATUS_UP
    loss = _loss(errors, briers, wrong_status)
    moved = ~answer.present | (_distance(answer.values, snapshots.readings) > MOVED)
    corrupted = reference.corrupted
    public = public_scores(answer, snapshots.truth)
    families = np.array(snapshots.families)
    parts = {
        **{f"accuracy_{family}": (1.0 - errors, families == family) for family in FAMILIES},
        "error_on_corrupted": (errors, corrupted),
        "error_on_intact": (errors, ~corrupted),
        "detected": (moved, corrupted),
        "false_alarms": (moved, ~corrupted),
    }
    return {
        "improvement": 1.0 - loss / reference.idle_loss,
        "counter_accuracy": 1.0 - float(errors.mean()),
        **{name: float(figures[where].mean()) for name, (figures, where) in parts.items() if where.any()},
        "not_close": float((errors > CLOSE).mean()),
        "brier": float(briers.mean()),
        "status_accuracy": 1.0 - float(wrong_status.mean()),
        "public_score": float(public.combined.mean()),
        "public_confidence": float(public.confidence.mean()),
        "own_or_peer_oracle": 1.0 - reference.oracle_loss / reference.idle_loss,
        "counters": float(errors.size),
    }


def combine(results: Sequence[CaseResult]) -> Combined:
    """Means over the cases of a split that have a figure. The score is the mean improvement, which all have."""
    names = dict.fromkeys(name for result in results for name in result.metrics if name != "counters")
    metrics = {name: fmean(r.metrics[name] for r in results if name in r.metrics) for name in names}
    metrics.update(quality(results, value="improvement", direction="max", size="counters"))
    metrics["score_bound"] = BOUND
    shown = ("improvement", "counter_accuracy", "error_on_corrupted", "error_on_intact", "detected", "brier")
    lines = [f"{'case':<20} " + " ".join(f"{name:>18}" for name in shown)]
    lines += [
        f"{r.case:<20} " + " ".join(f"{r.metrics[n]:>18.4f}" if n in r.metrics else f"{'-':>18}" for n in shown)
        for r in results
    ]
    return Combined(score=metrics["improvement"], metrics=metrics, artifacts={"cases": "\n".join(lines)})


def _check(answer: Answer) -> None:
    if answer.unknown:
        raise InvalidOutput(f"interfaces that do not exist: {', '.join(answer.unknown)}")
    stated = answer.given == WITH_CONFIDENCE
    for what, array, wrong, expected in (
        ("a counter", answer.values, answer.present & (answer.values < 0.0), "0 or more"),
        ("a confidence", answer.confidence, stated & ((answer.confidence < 0) | (answer.confidence > 1)), "0..1"),
    ):
        if wrong.any():
            where = tuple(int(i) for i in np.argwhere(wrong)[0])
            raise InvalidOutput(f"{place(where)}: {what} is {array[where]:.6g}, expected {expected}")
    if not np.isin(answer.given, (MISSING, PLAIN, WITH_CONFIDENCE)).all():
        raise InvalidOutput("given: expected 0, 1 or 2")
    if (~np.isin(answer.status, (0, 1, 2))).any():
        row, interface = (int(i) for i in np.argwhere(~np.isin(answer.status, (0, 1, 2)))[0])
        raise InvalidOutput(f"snapshot {row}, interface number {interface}: interface_status is neither up nor down")


def _errors(values: Floats, truth: Floats) -> Floats:
    """Relative errors, at most 1."""
    errors: Floats = np.minimum(np.abs(values - truth) / np.maximum(truth, FLOOR_MBPS), 1.0)
    return errors


def _distance(a: Floats, b: Floats) -> Floats:
    distance: Floats = np.abs(a - b) / np.maximum(np.maximum(a, b), FLOOR_MBPS)
    return distance


def _briers(answer: Answer, errors: Floats) -> Floats:
    """(confidence - whether right)^2; the confidence is 1 where none is given, and for a missing counter."""
    confidence = np.where(answer.given == WITH_CONFIDENCE, answer.confidence, 1.0)
    briers: Floats = (confidence - (errors <= CLOSE)) ** 2
    return briers


def _loss(errors: Floats, briers: Floats, wrong_status: npt.NDArray[np.bool_]) -> float:
    confidence = 0.5 * (float(briers.mean()) + float((errors > CLOSE).mean()))
    return float(COUNTER_WEIGHT * errors.mean() + STATUS_WEIGHT * wrong_status.mean() + CONFIDENCE_WEIGHT * confidence)


def _case(snapshots: Snapshots, idle_loss: float) -> Case:
    truth, readings = snapshots.truth, snapshots.readings
    opposite = readings[:, snapshots.network.peer, ::-1]
    oracle = np.minimum(_errors(readings, truth), _errors(opposite, truth))
    everything = np.ones(truth.shape[:2], np.bool_)
    reference = Reference(
        snapshots=snapshots,
        corrupted=_distance(readings, truth) > MOVED,
        idle_loss=idle_loss,
        oracle_loss=_loss(oracle, np.zeros_like(oracle), ~everything),
    )
    public = {"readings": readings.copy(), "up": snapshots.up.copy(), **snapshots.network.public}
    return Case(id=snapshots.name, seed=snapshots.seed, public=public, hidden=reference)


def _snapshots(split: Split) -> tuple[Snapshots, ...]:
    if split == "train":
        return splits.train()
    if split == "validation":
        return splits.validation()
    if split == "stress":
        return splits.stress()
    path = data_file(recorded_file())
    return splits.test_stand_in() if path is None else splits.test(*recorded.read(path))


def recorded_file() -> DataFile:
    """The file of the recorded snapshots, as task.yaml names it."""
    return read_spec(Path(__file__).with_name("task.yaml")).data[0]
