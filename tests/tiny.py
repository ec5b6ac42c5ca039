"""A task that takes milliseconds: sum a list. Written by tests into a folder of their own."""

from __future__ import annotations

from pathlib import Path

FILES = {
    "task.yaml": """\
name: tiny
summary: name the largest number you can below a limit
entry: [answer]
metrics:
  value: {unit: "1", direction: max}
limits: {case_timeout_s: 10, memory_mb: 256}
""",
    "seed.py": """\
# EVOLVE-BLOCK-START
STEP = 3
LOOPS = 5


def answer(limit):
    total = 0
    for i in range(LOOPS):
        if total + STEP + i <= limit:
            total = total + STEP + i
    return total
# EVOLVE-BLOCK-END
""",
    "adapter.py": """\
def run(program, public):
    return program.answer(public)
""",
    "judge.py": """\
from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput

LIMITS = {"train": (1000, 5000), "validation": (2000, 7000), "test": (3000,), "stress": (10,)}


def cases(split):
    return [Case(f"{split}-{limit}", limit, limit) for limit in LIMITS[split]]


def score(case, raw):
    if not isinstance(raw, int) or isinstance(raw, bool):
        raise MalformedOutput(f"expected an int, got {type(raw).__name__}")
    if raw > case.public:
        raise InvalidOutput(f"{raw} is above the limit {case.public}")
    return {"value": raw / case.public}


def combine(results):
    value = sum(result.metrics["value"] for result in results) / len(results)
    return Combined(value, {"value": value})
""",
}


def write_tiny_task(folder: Path) -> Path:
    """The task's folder, made in `folder`."""
    task = folder / "tiny"
    task.mkdir(parents=True)
    for name, text in FILES.items():
        (task / name).write_text(text)
    return task
