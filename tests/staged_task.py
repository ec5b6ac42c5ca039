"""A task in two stages: `simulated` on a CPU, and `measured`, which wants a GPU and tells what it was shown of one.

A program answers with a number. The simulator scores it as it is; the device scores it less half of what is above
five, so that the simulator can be exploited. No GPU is touched: the adapter reads the environment that its fork server
was given, and the program answers.
"""

from __future__ import annotations

from pathlib import Path

from adrs_ray.task import Task, load_task

CHEAP, DEAR = "simulated", "measured"

TASK_YAML = """\
name: staged
summary: name a large number
entry: [answer]
metrics:
  value: {{unit: "1", direction: max}}
limits: {{case_timeout_s: 20, memory_mb: 256, device_memory_mb: 1024}}
stages:
  - {{name: simulated, cpus: 1}}
  - {{name: measured, cpus: 1, gpus: {gpus}}}
"""

SEED = """\
# EVOLVE-BLOCK-START
VALUE = 1


def answer(x):
    return VALUE + x
# EVOLVE-BLOCK-END
"""

ADAPTER = """\
import os

DEVICES = os.environ.get("CUDA_VISIBLE_DEVICES", "not set")
ORDER = os.environ.get("CUDA_DEVICE_ORDER", "not set")


def run(program, public):
    return {
        "answer": program.answer(public["x"]),
        "imported": DEVICES,
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES", "not set"),
        "order": ORDER,
    }
"""

JUDGE = """\
import math

from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput

COUNTS = {"train": 2, "validation": 1, "test": 1, "stress": 1}


class Stage:
    def __init__(self, name):
        self.name = name

    def cases(self, split):
        return [Case(f"{self.name}-{i}", i, {"x": 0.0}) for i in range(COUNTS[split])]

    def score(self, case, raw):
        answer = raw["answer"]
        if isinstance(answer, bool) or not isinstance(answer, int | float) or not math.isfinite(answer):
            raise MalformedOutput("expected a finite number")
        if answer < 0:
            raise InvalidOutput("below zero")
        if self.name == "measured" and answer == 13:
            raise InvalidOutput("thirteen does not run on the device")
        real = answer if self.name == "simulated" else answer - max(0.0, answer - 5) / 2
        return {"value": float(real)}

    def combine(self, results):
        value = sum(result.metrics["value"] for result in results) / len(results)
        return Combined(value, {"value": value}, {"stage": self.name})


class Telling(Stage):
    \"\"\"The stage that says what its children saw; the test reads it from the artifacts.\"\"\"

    def score(self, case, raw):
        self.saw = f"{raw['imported']}|{raw['devices']}|{raw['order']}"
        return super().score(case, raw)

    def combine(self, results):
        combined = super().combine(results)
        return Combined(combined.score, combined.metrics, {"stage": self.name, "devices": self.saw})


STAGES = {"simulated": Telling("simulated"), "measured": Telling("measured")}


def for_stage(stage):
    return STAGES[stage]


cases, score, combine = STAGES["measured"].cases, STAGES["measured"].score, STAGES["measured"].combine
"""


def program(value: float) -> str:
    """A program that answers `value`."""
    return SEED.replace("VALUE = 1", f"VALUE = {value!r}")


def write_staged_task(folder: Path, gpus: float = 1, judge: str = JUDGE) -> Task:
    """Make the folder and load it. With `gpus` 0 both stages run on CPUs."""
    folder.mkdir(parents=True, exist_ok=True)
    files = {"task.yaml": TASK_YAML.format(gpus=gpus), "seed.py": SEED, "adapter.py": ADAPTER, "judge.py": judge}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return load_task(folder)
