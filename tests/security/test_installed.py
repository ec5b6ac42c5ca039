"""Where this project is installed beside the libraries, candidates see the libraries and nothing of the project."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from adrs_ray.candidate import Evaluation
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from tests.evaluator.tiny_task import write_task
from tests.security.variants import readable_interpreter

SOURCE = """
import importlib
importlib.invalidate_caches()
import lonely

def solve(x):
    breaches = 0.0
    for name in ("adrs_ray.task", "adrs_ray.evaluator.slot", "tasks.simple.judge", "cluster"):
        try:
            importlib.import_module(name)
            breaches += 1
        except (ImportError, PermissionError):
            pass
    for name in ("tasks/simple/judge.py", "adrs_ray/__init__.py"):
        try:
            open("@SITE@/" + name).close()
            breaches += 1
        except PermissionError:
            pass
    return float(x.sum()) + breaches + lonely.ZERO
"""


def test_an_installed_project_is_invisible() -> None:
    root = Path(tempfile.mkdtemp(prefix="adrs-installed-")).resolve()
    root.chmod(0o755)
    try:
        python = readable_interpreter(root / "python")
        packages = next((root / "python" / "lib").glob("python3*")) / "site-packages"
        files = {
            "lonely.py": "ZERO = 0.0\n",
            "adrs_ray/__init__.py": "",
            "adrs_ray/task.py": "",
            "cluster/__init__.py": "",
            "tasks/__init__.py": "",
            "tasks/simple/__init__.py": "",
            "tasks/simple/judge.py": "HIDDEN = 1\n",
        }
        for name, text in files.items():
            path = packages / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        task = write_task(root / "task")
        verdict = evaluate_once(task, SOURCE.replace("@SITE@", str(packages)), "train", EvaluatorConfig(python=python))
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0
    finally:
        shutil.rmtree(root)
