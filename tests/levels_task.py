"""A native task folder with everything that a task may have: levels, hints, baselines, a bound, public scoring.

A program names a number for each case; the score is minus the distance to 10, mean over cases, and cannot exceed 0.
"""

from __future__ import annotations

from pathlib import Path

SPEC = """\
name: near_ten
summary: name a number near ten
entry: [answer]
headline: distance
trivial: zero
best_human: nine
bound: a distance is never negative
public_evaluator: {cpu_s: 12.5, source: measured by its authors}
limits: {case_timeout_s: 10, memory_mb: 256}
metrics:
  distance: {unit: "1", direction: min}
  score_bound: {unit: "1", direction: max}
  correctness: {unit: "1", direction: max}
  cpu_s: {unit: s, direction: min}
  cpu_s_per_case: {unit: s, direction: min}
  worst_decile: {unit: "1", direction: min}
"""

JUDGE = """\
from statistics import fmean

from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput, quality

SEEDS = {"train": 1, "validation": 2, "test": 3, "stress": 4}


def cases(split):
    return [Case(f"c{i}", SEEDS[split], {"nothing": [SEEDS[split], i]}) for i in range(2)]


def split_note(split):
    return "made up" if split == "stress" else None


def score(case, raw):
    if not isinstance(raw, int | float):
        raise MalformedOutput("expected a number")
    if raw < 0:
        raise InvalidOutput("below zero")
    return {"distance": abs(10.0 - raw)}


def combine(results):
    distance = fmean(result.metrics["distance"] for result in results)
    metrics = {"distance": distance, "score_bound": 0.0, **quality(results, "distance", "min")}
    return Combined(0.0 - distance, metrics)
"""

PAPER = """\
from adrs_ray.task import Combined, UsageError

from .judge import cases as sound_cases


def cases(split):
    if split != "test":
        raise UsageError("public scoring knows the test split only")
    return sound_cases(split)


def score(case, raw):
    return {"believed": float(raw)}


def combine(results):
    believed = sum(result.metrics["believed"] for result in results)
    return Combined(believed, {"believed": believed})
"""

ADAPTER = """\
def run(program, public):
    return program.answer()
"""

README = "# near_ten\n\nBefore.\n\n<!-- standings -->\nold\n<!-- /standings -->\n\nAfter.\n"


def program(value: object) -> str:
    return f"# EVOLVE-BLOCK-START\ndef answer():\n    return {value!r}\n# EVOLVE-BLOCK-END\n"


def write(folder: Path) -> Path:
    """Write the task into a folder that does not exist yet."""
    for name in ("seeds", "hints", "baselines"):
        (folder / name).mkdir(parents=True)
    files = {"task.yaml": SPEC, "judge.py": JUDGE, "paper.py": PAPER, "adapter.py": ADAPTER, "README.md": README}
    for name, text in files.items():
        (folder / name).write_text(text)
    for level, value in {"weak": 1, "medium": 4, "strong": 7}.items():
        (folder / "seeds" / f"{level}.py").write_text(program(value))
        (folder / "hints" / f"{level}.md").write_text(f"{level} hint\n")
    (folder / "seed.py").symlink_to("seeds/medium.py")
    for name, value in {"zero": 0, "nine": 9.0, "below": -1}.items():
        (folder / "baselines" / f"{name}.py").write_text(program(value))
    return folder
