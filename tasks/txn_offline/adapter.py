"""The untrusted side: runs a candidate on a triple of workloads and hands its schedules out.

Programs of two styles run: `get_best_schedule(workload, num_seqs) -> (makespan, schedule)`, called once per workload,
and the public one, `get_random_costs() -> (total makespan, three schedules, ...)`, which builds its workloads from
`txn_simulator.Workload` and `workloads.WORKLOAD_1` to `_3`. A program with both is run through `get_random_costs`,
as the public evaluator does. What it reports as makespan is handed out beside the schedules: `judge.py` does not read
it, `paper.py` believes it as the public evaluator does.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, ModuleType
from typing import Any

import numpy as np

from .candidate import MODULE, code_of, new_module
from .shims import txn_simulator, workloads
from .workload import Workload

NUM_SEQS = 10
"""What candidates are given as `num_seqs`, as in the public evaluator."""


class InterfaceError(Exception):
    """The program defines neither entry function."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled candidate. It is executed per case, because its top level may import that case's workloads."""

    code: CodeType


def load(source: str) -> Program:
    """Compile a candidate. Raises SyntaxError."""
    return Program(code_of(source))


def run(program: Program, public: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate's schedules on the workload texts `public["workloads"]`.

    Gives {"schedules": [...], "reported": makespan}, schedules being lists of ids and the makespan the sum of those
    reported; whatever is no schedule or no number comes back as a text that says what it is, for the judge to refuse.
    Raises InterfaceError, and whatever the candidate raises.
    """
    texts: Sequence[Mapping[str, str]] = public["workloads"]
    with _public_modules(texts):
        module = new_module()
        try:
            exec(program.code, module.__dict__)
            schedules, reported = _answers(module, texts)
            return {"schedules": schedules, "reported": reported}
        finally:
            del sys.modules[MODULE]


def _answers(module: ModuleType, texts: Sequence[Mapping[str, str]]) -> tuple[list[Any], float | str]:
    if callable(getattr(module, "get_random_costs", None)):
        answer = module.get_random_costs()
        if not isinstance(answer, tuple | list) or len(answer) < 2 or not isinstance(answer[1], tuple | list):
            said = f"get_random_costs returned {_describe(answer)}, expected (makespan, schedules, ...)"
            return [said], said
        return [_plain(schedule) for schedule in answer[1]], _number(answer[0])
    if not callable(getattr(module, "get_best_schedule", None)):
        raise InterfaceError("the program defines neither get_best_schedule(workload, num_seqs) nor get_random_costs()")
    schedules: list[Any] = []
    reported: list[float | str] = []
    for text in texts:
        answer = module.get_best_schedule(Workload(text), NUM_SEQS)
        if isinstance(answer, tuple | list) and len(answer) == 2:
            schedules.append(_plain(answer[1]))
            reported.append(_number(answer[0]))
        else:
            said = f"get_best_schedule returned {_describe(answer)}, expected (makespan, schedule)"
            schedules.append(said)
            reported.append(said)
    said = next((value for value in reported if isinstance(value, str)), "")
    return schedules, said or sum(value for value in reported if not isinstance(value, str))


def _number(value: Any) -> float | str:
    """A reported makespan; a text says what it is when it is no finite number of a size that can travel."""
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, int | float) and abs(plain) < 1e300:
        return float(plain)
    return f"the reported makespan is {_describe(value)}, expected a number"


def _plain(schedule: Any) -> list[Any] | str:
    if isinstance(schedule, np.ndarray) and schedule.ndim == 1:
        return list(schedule.tolist())
    if isinstance(schedule, list | tuple | range):
        return [_entry(value) for value in schedule]
    return f"the schedule is {_describe(schedule)}, expected a list of transaction ids"


def _entry(value: Any) -> int | float | bool | str:
    plain = value.item() if isinstance(value, np.generic) else value
    if isinstance(plain, bool | int) or (isinstance(plain, float) and np.isfinite(plain)):
        return plain
    return _describe(value)


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:80]}"


@contextmanager
def _public_modules(texts: Sequence[Mapping[str, str]]) -> Iterator[None]:
    names = ("WORKLOAD_1", "WORKLOAD_2", "WORKLOAD_3")
    for name, text in zip(names, texts, strict=True):
        setattr(workloads, name, dict(text))
    stand_ins = {"txn_simulator": txn_simulator, "workloads": workloads}
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
