"""Programs of several files where candidates run: modules by name, in that process only."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrs_ray.bundle import join
from adrs_ray.candidate import Evaluation, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from tests.evaluator.tiny_task import write_task

POLICY = "from __future__ import annotations\nimport numpy as np\n\n\ndef total(x):\n    return float(np.sum(x))\n"


def judged(folder: Path, files: dict[str, str], **task: str) -> Evaluation | Failure:
    return evaluate_once(write_task(folder, **task), join(files), "train", EvaluatorConfig(slots=1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "main",
    [
        "import policy\n\n\ndef solve(x):\n    return policy.total(x)\n",
        "from policy import total\n\n\ndef solve(x):\n    return total(x)\n",
        "def solve(x):\n    from policy import total\n    return total(x)\n",
        "from relay import total\n\n\ndef solve(x):\n    return total(x)\n",
        "import policy\nimport inspect\n\n\ndef solve(x):\n    assert 'np.sum' in inspect.getsource(policy.total)\n"
        "    return policy.total(x)\n",
    ],
)
def test_files_are_modules_of_each_other(tmp_path, main):
    verdict = judged(tmp_path, {"main.py": main, "policy.py": POLICY, "relay.py": "from policy import total\n"})
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0


def test_the_program_is_a_module_under_its_own_name(tmp_path):
    main = "OFFSET = 0.0\nimport policy\n\n\ndef solve(x):\n    return policy.total(x)\n"
    policy = "import main\n\n\ndef total(x):\n    return float(x.sum()) + main.OFFSET\n"
    verdict = judged(tmp_path, {"main.py": main, "policy.py": policy})
    assert isinstance(verdict, Evaluation), verdict


def test_one_candidates_files_are_not_there_for_the_next(tmp_path):
    task = write_task(tmp_path)
    first = evaluate_once(task, join({"main.py": "from policy import total as solve\n", "policy.py": POLICY}), "train",
                          EvaluatorConfig(slots=1))  # fmt: skip
    second = evaluate_once(task, "from policy import total as solve\n", "train", EvaluatorConfig(slots=1))
    assert isinstance(first, Evaluation), first
    assert isinstance(second, Failure)
    assert second.kind == FailureKind.CRASH
    assert second.detail == "ModuleNotFoundError: No module named 'policy' (line 1)"


def test_an_error_names_the_file_and_shows_its_line(tmp_path):
    policy = "def total(x):\n    return 1 / 0  # never\n"
    verdict = judged(
        tmp_path, {"main.py": "import policy\ndef solve(x):\n    return policy.total(x)\n", "policy.py": policy}
    )
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.CRASH
    assert verdict.detail == "ZeroDivisionError: division by zero (policy.py line 2)"
    trace = verdict.artifacts["traceback"]
    assert '"<candidate>/policy.py", line 2' in trace
    assert '"<candidate>/main.py", line 3' in trace
    assert "return 1 / 0  # never" in trace
    assert "adapter" not in trace


@pytest.mark.parametrize(("bad", "where"), [("main.py", "main.py line 1"), ("policy.py", "policy.py line 1")])
def test_a_syntax_error_names_the_file(tmp_path, bad, where):
    files = {"main.py": "import policy\ndef solve(x):\n    return 0.0\n", "policy.py": "x = 1\n"}
    verdict = judged(tmp_path, files | {bad: "x = = 1\n"})
    assert isinstance(verdict, Failure)
    assert (verdict.kind, verdict.detail) == (FailureKind.SYNTAX, f"{where}: invalid syntax")


def test_an_adapter_that_loads_gets_the_program_and_the_files_are_importable(tmp_path):
    adapter = """
def load(source):
    space = {}
    exec(compile(source, "<candidate>", "exec"), space)
    return space


def run(program, public):
    return program["solve"](public["x"])
"""
    verdict = judged(tmp_path, {"main.py": "from policy import total as solve\n", "policy.py": POLICY}, adapter=adapter)
    assert isinstance(verdict, Evaluation), verdict


def test_names_that_cannot_be_are_the_programs_fault(tmp_path):
    source = "# ADRS-FILE: main.py\n# ADRS-FILE: ../../etc.py\n"
    verdict = evaluate_once(write_task(tmp_path), source, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Failure)
    assert verdict.kind == FailureKind.SYNTAX
    assert "no name for a file" in verdict.detail
