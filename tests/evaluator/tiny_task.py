"""A small numpy task for tests: add up an array. The perfect score is 0."""

from __future__ import annotations

from pathlib import Path

from adrs_ray.task import Task, load_task

CANARY = "4f1d-hidden-canary"

TASK_YAML = """\
name: {name}
summary: add up an array
entry: [solve]
limits:
  {{case_timeout_s: {timeout_s}, memory_mb: 256, threads: 4, processes: {processes}, scratch_mb: 1,
    output_mb: 1{limits}}}
{extra}
"""

SEED = """\
import numpy as np


def solve(x):
    return float(np.sum(x))
"""

ADAPTER = """\
def run(program, public):
    return program.solve(public["x"])
"""

JUDGE = f"""\
import math

import numpy as np

from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput, RewardHacking


def cases(split):
    count = {{"train": 2, "validation": 1, "test": 1, "stress": 0}}[split]
    return [Case(f"c{{i}}", i, {{"x": np.arange(10.0) + i}}, {{"canary": "{CANARY}"}}) for i in range(count)]


def score(case, raw):
    if not isinstance(raw, float) or not math.isfinite(raw):
        raise MalformedOutput(f"expected a finite number, got {{type(raw).__name__}}")
    if raw == -1.0:
        raise InvalidOutput("minus one is late")
    if raw == -2.0:
        raise RewardHacking("minus two cannot be")
    if raw == -3.0:
        raise KeyError("the judge broke")
    return {{"error": abs(raw - float(case.public["x"].sum()))}}


def combine(results):
    error = sum(r.metrics["error"] for r in results)
    return Combined(-error, {{"error": error}})
"""

REFEREE = """

def referee(case):
    total = 0.0
    for value in case.public["x"]:
        action = yield {"value": float(value), "total": total}
        if action is None:
            raise InvalidOutput("no action")
        total = action
    return total
"""

INTERACTIVE_ADAPTER = """\
def load(source):
    space = {}
    exec(compile(source, "<candidate>", "exec"), space)
    return space["Player"]()


def act(player, observation):
    return player.act(observation)
"""


def write_task(
    folder: Path,
    *,
    name: str = "tiny",
    timeout_s: float = 4.0,
    processes: int = 0,
    extra: str = "",
    limits: str = "",
    adapter: str = ADAPTER,
    judge: str = JUDGE,
) -> Task:
    """Make the folder and load it; `limits`: further ones, `extra`: further keys."""
    folder.mkdir(parents=True, exist_ok=True)
    more = f", {limits}" if limits else ""
    yaml = TASK_YAML.format(name=name, timeout_s=timeout_s, processes=processes, limits=more, extra=extra)
    for file, text in (("task.yaml", yaml), ("seed.py", SEED), ("adapter.py", adapter), ("judge.py", judge)):
        (folder / file).write_text(text, encoding="utf-8")
    return load_task(folder)
