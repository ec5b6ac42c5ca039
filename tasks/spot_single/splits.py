"""The cases of the splits: recorded traces for test, generated ones for train and validation, odd ones for stress."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from adrs_ray.task import Case, DataFile, Split, UsageError, data_file, read_spec

from .game import make_case
from .traces import GAP_S, TRACE_GAPS, Trace, generated, recorded, spells


def traces(split: Split) -> Sequence[Trace]:
    """The traces of a split, in order. Raises UsageError when the recorded file is there with another content."""
    if split == "train":
        return generated("train", 1_000, {"plentiful": 1, "common": 3, "even": 3, "scarce": 3})
    if split == "validation":
        return generated("validation", 2_000, {"plentiful": 6, "common": 6, "even": 6, "scarce": 6})
    if split == "stress":
        return _stress()
    path = data_file(data())
    if path is None:
        return generated("test", 3_000, {"plentiful": 6, "common": 6, "even": 6, "scarce": 6})
    return recorded(path)


def cases(split: Split, mended: bool) -> list[Case]:
    """The cases of a split under the sound (`mended`) or the public rules."""
    path = data_file(data()) if split == "test" else None
    return list(_made(split, mended, path))


@cache
def _made(split: Split, mended: bool, path: Path | None) -> tuple[Case, ...]:
    made = traces(split) if path is None else recorded(path)
    return tuple(make_case(trace, mended) for trace in made)


def note(split: Split) -> str | None:
    """Says so when the test split is generated because the public traces are not on this machine."""
    if split != "test" or data_file(data()) is not None:
        return None
    return f"generated: {data().file} is not here (`adrs data pull spot_single` fetches the public traces)"


def data() -> DataFile:
    """The recorded file that the test split needs."""
    return read_spec(Path(__file__).with_name("task.yaml")).data[0]


def only_test(split: Split) -> None:
    """Raises UsageError for every split but test: the public evaluator has no other."""
    if split != "test":
        raise UsageError(f"scoring `paper` is for the public traces, split `test`; {split} has none")


def _stress() -> list[Trace]:
    """No spot, only spot, flapping, traps, another gap, a long job, no slack, much slack, overheads beyond an hour."""
    rng = np.random.default_rng(4_000)
    gaps = np.arange(TRACE_GAPS)
    flapping = gaps % 2 == 0
    comb = gaps % 7 != 3
    morning = (gaps % 144) < 36  # a quarter of each day
    late = gaps > 300
    early = gaps < 200
    perturbed = spells(rng, 0.6, 2.0) ^ (rng.random(TRACE_GAPS) < 0.05)
    vanishing = spells(np.random.default_rng(5_481), 0.5, 0.4)  # public rules: shipped UP is late in 5 of 9 runs
    tight = ((291 * GAP_S, 1440.0), (290 * GAP_S, 720.0), (49 * 3600.0, 1440.0), (50 * 3600.0, 720.0))
    loose = ((192 * 3600.0, 72.0), (192 * 3600.0, 1440.0), (144 * 3600.0, 720.0))
    heavy = ((92 * 3600.0, 3600.0), (92 * 3600.0, 7200.0), (70 * 3600.0, 5000.0), (60 * 3600.0, 0.0))
    minutes = spells(rng, 0.5, 1.0, gaps=1_202)
    return [
        Trace("stress-no-spot", 4_001, np.zeros(TRACE_GAPS + 1, bool)),
        Trace("stress-only-spot", 4_002, np.ones(TRACE_GAPS + 1, bool)),
        Trace("stress-flapping", 4_003, flapping),
        Trace("stress-comb", 4_004, comb),
        Trace("stress-mornings", 4_005, morning),
        Trace("stress-late-spot", 4_006, late),
        Trace("stress-early-spot", 4_007, early),
        Trace("stress-vanishing", 4_008, vanishing),
        Trace("stress-perturbed", 4_009, perturbed),
        Trace("stress-reversed", 4_010, perturbed[::-1].copy()),
        Trace("stress-tight", 4_011, spells(rng, 0.67, 2.5), tight),
        Trace("stress-loose", 4_012, spells(rng, 0.3, 2.0, gaps=1_202), loose),
        Trace("stress-heavy-overhead", 4_013, spells(rng, 0.67, 4.0), heavy),
        Trace("stress-gap-300", 4_014, minutes, ((60 * 3600.0, 450.0), (92 * 3600.0, 60.0)), gap_s=300.0),
        Trace(
            "stress-job-120", 4_015, spells(rng, 0.5, 3.0, gaps=1_202), ((200 * 3600.0, 720.0),), task_s=120 * 3600.0
        ),
    ]
