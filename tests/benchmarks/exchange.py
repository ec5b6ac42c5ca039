"""What one round of an interactive task costs: `python -m tests.benchmarks.exchange [ROUNDS]`.

A referee sends an observation, a program that does nothing answers. Printed per form of the observation: microseconds
of wall time, and of CPU time in the worker and in the program's process.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from adrs_ray.candidate import Evaluation
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.task import load_task

FORMS = {
    "array of 9 x 6 floats": "np.zeros((9, 6))",
    "dict of that array and a number": '{"seen": np.zeros((9, 6)), "tick": 1}',
    "lists of 9 x 6 floats": "[[0.0] * 6 for _ in range(9)]",
}
JUDGE = """\
import numpy as np

from adrs_ray.task import Case, Combined


def cases(split):
    return [Case("game", 1, None)]


def referee(case):
    observation = {form}
    for _ in range({rounds}):
        yield observation
    return 0.0


def score(case, raw):
    return {{"end": raw}}


def combine(results):
    return Combined(0.0, {{}})
"""
ADAPTER = (
    "import numpy as np\n\nANSWER = np.zeros(9, np.uint8)\n\n\ndef act(program, observation):\n    return ANSWER\n"
)
SPEC = "name: game\nsummary: rounds\nentry: [play]\nlimits: {case_timeout_s: 600}\n"


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    print(f"{rounds} rounds each\n\n| observation | us | worker CPU us | program CPU us |\n|---|---|---|---|")
    for name, form in FORMS.items():
        with tempfile.TemporaryDirectory() as scratch:
            files = {"task.yaml": SPEC, "judge.py": JUDGE.format(form=form, rounds=rounds), "adapter.py": ADAPTER}
            for file, text in {**files, "seed.py": "def play():\n    pass\n"}.items():
                Path(scratch, file).write_text(text)
            task = load_task(scratch)
            started_s = time.process_time()
            verdict = evaluate_once(task, task.seed_source, "train", EvaluatorConfig(slots=1))
            worker_s = time.process_time() - started_s
        assert isinstance(verdict, Evaluation), verdict
        case = verdict.cases[0]
        us = [1e6 * seconds / rounds for seconds in (case.wall_s, worker_s, case.cpu_s)]
        print(f"| {name} | {us[0]:.0f} | {us[1]:.0f} | {us[2]:.0f} |")


if __name__ == "__main__":
    main()
