"""The untrusted side: keeps the candidate's state and asks it for a placement after each window.

The program is compiled when it is loaded and executed with the first message that bears a config. What comes before are
rounds without it: messages as they will be, answered by this module alone, from which the referee learns what the way
here and back takes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import numpy as np

from .candidate import code_of, new_module

_ENTRIES = ("init", "step")


class InterfaceError(Exception):
    """The program does not define both entries."""


@dataclass
class Program:
    """A compiled candidate; once it runs, its `step` and its state."""

    code: CodeType
    step: Callable[..., Any] | None = None
    state: Any = None


def load(source: str) -> Program:
    """Compile a candidate; nothing of it is executed. Raises SyntaxError."""
    return Program(code_of(source))


def act(program: Program, observation: dict[str, Any]) -> Any:
    """One message of the referee.

    {"config": ...}: execute the program and call `init`; None comes back. {"load_window": int64 [S, L, E], "placement":
    int64 [L, P]}: {"placement": array or None, "split": array or None} by `step`, or a text that says what it gave
    instead. The same with {"null": True}: without the program, the placement as it came. Raises InterfaceError, and
    what the program raises.
    """
    if "config" in observation:
        _begin(program, observation["config"])
        return None
    if "null" in observation:
        return _answer((None, observation["placement"], None))
    assert program.step is not None
    return _answer(program.step(program.state, observation["load_window"], observation["placement"]), program)


def _begin(program: Program, config: dict[str, Any]) -> None:
    module = new_module()
    exec(program.code, module.__dict__)
    missing = [name for name in _ENTRIES if not callable(getattr(module, name, None))]
    if missing:
        raise InterfaceError(
            f"the program defines no {' and no '.join(missing)}: it must define init(config) -> state and "
            "step(state, load_window, placement) -> (state, new placement or None)"
        )
    program.step = module.step
    program.state = module.init(config)


def _answer(given: Any, program: Program | None = None) -> dict[str, Any] | str:
    if not isinstance(given, tuple) or len(given) not in (2, 3):
        length = f" of {len(given)}" if isinstance(given, tuple) else ""
        return (
            f"step returned a {type(given).__name__}{length}, expected (state, placement) or (state, placement, split)"
        )
    if program is not None:
        program.state = given[0]
    placement, split = given[1], given[2] if len(given) == 3 else None
    for name, value in (("placement", placement), ("split", split)):
        if value is not None and type(value) is not np.ndarray:
            return f"step returned a {type(value).__name__} as {name}, expected a numpy array or None"
    return {"placement": placement, "split": split}
