"""Turns the public source of the workloads, a Python file of literals, into `txn_workloads.json`.

The source is parsed and its three names are read with `ast.literal_eval`; nothing in it is executed.
"""

from __future__ import annotations

import ast
import json

_NAMES = ("WORKLOAD_1", "WORKLOAD_2", "WORKLOAD_3")


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` (`txn_workloads.json`) from those of the public `workloads.py`.

    Each of WORKLOAD_1 to _3 may be a dict literal or a string that holds one (JSON or Python). Raises ValueError naming
    what is missing or no workload.
    """
    found: dict[str, dict[str, str]] = {}
    for statement in ast.parse(raw).body:
        if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
            target = statement.targets[0]
        elif isinstance(statement, ast.AnnAssign):
            target = statement.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id in _NAMES and statement.value is not None:
            found[target.id] = _workload(target.id, statement.value)
    missing = [name for name in _NAMES if name not in found]
    if missing:
        raise ValueError(f"workloads.py does not assign {', '.join(missing)}")
    return json.dumps({name: found[name] for name in _NAMES}, indent=0).encode()


def _workload(name: str, node: ast.expr) -> dict[str, str]:
    value = ast.literal_eval(node)
    if isinstance(value, str):
        value = ast.literal_eval(value.strip())
    if not isinstance(value, dict) or not all(isinstance(text, str) for pair in value.items() for text in pair):
        raise ValueError(f"{name} is no mapping of transaction names to texts")
    return value
