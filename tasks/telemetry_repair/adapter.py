"""The untrusted side: runs a candidate's `run_repair(telemetry, topology)` on every snapshot of a case.

Each snapshot gets dicts of its own and a program executed anew, so that what one call changes or remembers in its
globals is gone at the next. What is returned goes out as arrays, so that a verdict does not pay for thousands of small
values; values are handed on as they are, for the judge to refuse. Used by both scorings.
"""

from __future__ import annotations

import numbers
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from .candidate import MODULE, code_of, new_module

_RATES = ("rx_rate", "tx_rate")
_STATUSES = {"up": 1, "down": 2}
_MISSING, _PLAIN, _WITH_CONFIDENCE = 0, 1, 2


class InterfaceError(Exception):
    """The program does not define run_repair."""


class _Shapeless(Exception):
    """A part of the answer is nothing that arrays can hold; the message says which."""


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled candidate."""

    code: CodeType


def load(source: str) -> Program:
    """Compile a candidate. Raises SyntaxError."""
    return Program(code_of(source))


def run(program: Program, public: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate's answers to all snapshots of a case.

    `given` (rows x interfaces x (rx, tx)): 0 missing, 1 a number, 2 a number with a confidence; `values` and
    `confidence` of the same shape; `status` (rows x interfaces): 0 missing, 1 up, 2 down, 3 any other text. Interfaces
    that do not exist are named in `unknown`; `malformed` says what else was no answer, if anything, and ends the case.
    Raises InterfaceError, and whatever the candidate raises.
    """
    index = {name: i for i, name in enumerate(public["interfaces"])}
    shape = public["readings"].shape
    answers: dict[str, Any] = {
        "given": np.zeros(shape, np.int8),
        "values": np.zeros(shape),
        "confidence": np.zeros(shape),
        "status": np.zeros(shape[:2], np.int8),
        "unknown": [],
        "malformed": "",
    }
    for row in range(shape[0]):
        answer = _call(program, *_inputs(public, row))
        try:
            _collect(answer, index, answers, row)
        except _Shapeless as shapeless:
            answers["malformed"] = f"snapshot {row}: {shapeless}"
            break
    return answers


def _inputs(public: Mapping[str, Any], row: int) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """(telemetry, topology) of one snapshot, made anew."""
    telemetry = {
        name: {
            "interface_status": "up" if up else "down",
            "rx_rate": rx,
            "tx_rate": tx,
            "connected_to": peer,
            "local_router": local,
            "remote_router": remote,
        }
        for name, up, (rx, tx), peer, local, remote in zip(
            public["interfaces"],
            public["up"][row].tolist(),
            public["readings"][row].tolist(),
            public["connected_to"],
            public["local_router"],
            public["remote_router"],
            strict=True,
        )
    }
    return telemetry, {router: list(names) for router, names in public["topology"].items()}


def _call(program: Program, telemetry: dict[str, Any], topology: dict[str, list[str]]) -> Any:
    module = new_module()
    try:
        exec(program.code, module.__dict__)
        if not callable(getattr(module, "run_repair", None)):
            raise InterfaceError("the program does not define run_repair(telemetry, topology)")
        return module.run_repair(telemetry, topology)
    finally:
        sys.modules.pop(MODULE, None)


def _collect(answer: Any, index: Mapping[str, int], answers: dict[str, Any], row: int) -> None:
    if not isinstance(answer, Mapping):
        raise _Shapeless(f"run_repair returned {_describe(answer)}, expected a dict of interfaces")
    for name, fields in answer.items():
        i = index.get(name) if isinstance(name, str) else None
        if i is None:
            if len(answers["unknown"]) < 3:
                answers["unknown"].append(f"snapshot {row}: {repr(name)[:60]}")
            continue
        if not isinstance(fields, Mapping):
            raise _Shapeless(f"interface {name} is {_describe(fields)}, expected a dict of its fields")
        for direction, rate in enumerate(_RATES):
            if rate in fields:
                value, confidence = _parts(fields[rate])
                where = row, i, direction
                answers["values"][where] = _number(value, name, rate)
                answers["given"][where] = _PLAIN
                if confidence is not None:
                    answers["confidence"][where] = _number(confidence[0], name, f"{rate}'s confidence")
                    answers["given"][where] = _WITH_CONFIDENCE
        if "interface_status" in fields:
            status, _ = _parts(fields["interface_status"])
            if not isinstance(status, str):
                raise _Shapeless(f"interface {name}: interface_status is {_describe(status)}, expected 'up' or 'down'")
            answers["status"][row, i] = _STATUSES.get(status, 3)


def _parts(value: Any) -> tuple[Any, tuple[Any] | None]:
    """(repaired value, (confidence,) if one was given) of a plain value or (original, repaired, confidence)."""
    if isinstance(value, tuple | list) and len(value) == 3:
        return value[1], (value[2],)
    return value, None


def _number(value: Any, name: str, what: str) -> float:
    if isinstance(value, np.ndarray) and value.ndim == 0:  # what np.where makes of two numbers
        value = value[()]
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        raise _Shapeless(f"interface {name}: {what} is {_describe(value)}, expected a number")
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def _describe(value: Any) -> str:
    return f"{type(value).__name__} {repr(value)[:80]}"
