"""The adapter of OpenEvolve-style folders: runs the folder's evaluator.py beside the program, in the jail.

Untrusted, like every adapter, and more so: the evaluator imports the program, so the program can say what it likes of
itself. Only the standard library is imported here, as the interpreter in the jail need not have ours.

The order of stages, the gates and the merging of results follow OpenEvolve's documented cascade: `evaluate_stage1`,
then `evaluate_stage2` and `evaluate_stage3` while the metrics so far reach the threshold of the stage before;
without `evaluate_stage1`, or with `cascade_evaluation: false`, `evaluate` alone.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import numbers
import os
import sys
import traceback
from types import ModuleType
from typing import Any

from .openevolve_semaphores import use_pipes_and_scratch

ARTIFACT_CHARS = 16_384
"""A longer artifact loses its middle."""
STAGES = ("evaluate_stage1", "evaluate_stage2", "evaluate_stage3")

_foreign: dict[str, Any] = {}
_folder = ""


def configure(foreign: dict[str, Any], folder: str) -> None:
    """Take the folder's settings (`adrs_ray.openevolve.foreign_settings`); called once, in the fork server.

    The shims are imported here once, so that every child has them; the folder's own code never is.
    """
    global _folder
    _foreign.clear()
    _foreign.update(foreign)
    _folder = str(folder)
    if foreign["shims"] not in sys.path:
        sys.path.append(foreign["shims"])
    for name in _shim_modules(foreign["shims"]):
        importlib.import_module(name)
    use_pipes_and_scratch()


def _shim_modules(shims: str) -> list[str]:
    """`openevolve.evaluation_result`, unless OpenEvolve itself is installed: then the child imports that if it asks."""
    spec = importlib.util.find_spec("openevolve")
    if spec is None or spec.origin is not None:
        return []
    package = os.path.join(shims, "openevolve")
    return [f"openevolve.{name[:-3]}" for name in sorted(os.listdir(package)) if name.endswith(".py")]


def load(source: str) -> str:
    """Write the program to `program.py` in the current folder and return its path. SyntaxError when it is no Python."""
    path = os.path.abspath("program.py")
    compile(source, path, "exec", dont_inherit=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(source)
    return path


def run(program: str, public: Any) -> dict[str, Any]:
    """What the evaluator says of the program file: `metrics`, `artifacts` and `stage`, plain values all.

    `stage` is the number of stages whose threshold was reached, None when there was no cascade. `malformed`, a
    sentence, stands in their place when the evaluator gave no metrics.
    """
    evaluator = _import_evaluator()
    if _foreign["cascade"] and callable(getattr(evaluator, STAGES[0], None)):
        return _run_cascade(evaluator, program)
    if not callable(getattr(evaluator, "evaluate", None)):
        return {"malformed": f"{_foreign['evaluator']} defines no function evaluate(program_path)"}
    result = _plain("evaluate", evaluator.evaluate(program))
    return result if "malformed" in result else {**result, "stage": None}


def _import_evaluator() -> ModuleType:
    """Import evaluator.py, its siblings importable as they are where OpenEvolve runs it."""
    if _folder not in sys.path:
        sys.path.insert(0, _folder)
    path = os.path.join(_folder, _foreign["evaluator"])
    spec = importlib.util.spec_from_file_location("evaluation_module", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _run_cascade(evaluator: ModuleType, program: str) -> dict[str, Any]:
    metrics: dict[str, Any] = {}
    artifacts: dict[str, str] = {}
    passed = 0
    for number, name in enumerate(STAGES, start=1):
        stage = getattr(evaluator, name, None)
        if not callable(stage):
            break
        try:
            result = _plain(name, stage(program))
        except Exception:
            if number == 1:
                raise
            # as in OpenEvolve, a later stage that fails leaves the result of the earlier ones
            artifacts[f"stage{number}_traceback"] = _shorten(traceback.format_exc())
            break
        if "malformed" in result:
            if number == 1:
                return result
            artifacts[f"stage{number}_malformed"] = result["malformed"]
            break
        metrics.update(result["metrics"])
        artifacts.update(result["artifacts"])
        if len(_foreign["thresholds"]) < number or not _reaches(metrics, _foreign["thresholds"][number - 1]):
            break
        passed = number
    return {"metrics": metrics, "artifacts": artifacts, "stage": passed}


def _reaches(metrics: dict[str, Any], threshold: float) -> bool:
    """Whether `combined_score`, or else the mean of all metrics but `error`, is at least `threshold`."""
    if "combined_score" in metrics:
        return bool(metrics["combined_score"] >= threshold)
    values = [float(value) for name, value in metrics.items() if name != "error"]
    return bool(values) and sum(values) / len(values) >= threshold


def _plain(function: str, result: Any) -> dict[str, Any]:
    """A result as plain values: numbers are metrics; what is no number is told in the artifacts."""
    metrics = result if isinstance(result, dict) else getattr(result, "metrics", None)
    if not isinstance(metrics, dict):
        given = type(result).__name__
        return {"malformed": f"{function} returned {given}, expected a dict of metrics or an EvaluationResult"}
    found = None if isinstance(result, dict) else getattr(result, "artifacts", None)
    artifacts = {str(name): _text(value) for name, value in found.items()} if isinstance(found, dict) else {}
    plain: dict[str, Any] = {}
    for name, value in metrics.items():
        number = _number(value)
        if number is None:
            artifacts.setdefault(str(name), _text(value))
        else:
            plain[str(name)] = number
    return {"metrics": plain, "artifacts": artifacts}


def _number(value: Any) -> bool | int | float | None:
    """A Python number for any scalar (numpy's, torch's, Fraction, Decimal), None for what is no real number."""
    if isinstance(value, bool):
        return value
    if isinstance(value, numbers.Real) and not isinstance(value, numbers.Integral):
        return float(value)
    if isinstance(value, numbers.Integral):
        return int(value) if abs(int(value)) < 2**53 else _as_float(value)
    if callable(getattr(value, "item", None)):
        try:
            scalar = value.item()
        except (ValueError, TypeError, RuntimeError):
            return None  # an array or tensor of many elements
        return _number(scalar) if isinstance(scalar, int | float) else None
    return _as_float(value) if isinstance(value, numbers.Number) and not isinstance(value, complex) else None


def _as_float(value: Any) -> float | None:
    try:
        return float(value)
    except OverflowError:
        return float("inf")
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str:
    if isinstance(value, bytes | bytearray):
        return _shorten(bytes(value).decode("utf-8", "replace"))
    if isinstance(value, dict | list | tuple):
        return _shorten(json.dumps(value, default=repr, skipkeys=True))
    return _shorten(str(value))


def _shorten(text: str) -> str:
    if len(text) <= ARTIFACT_CHARS:
        return text
    half = ARTIFACT_CHARS // 2
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"
