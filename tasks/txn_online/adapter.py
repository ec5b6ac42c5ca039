"""The untrusted side: keeps the candidate's buffer and schedule, and asks it for one transaction per step.

A program defines `choose(buffer, state) -> id`, or a class `Scheduler` with a method of that name and shape, which is
made anew for each stream. What it answers is handed out as it is; the referee keeps its own buffer and decides.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from .candidate import code_of, new_module
from .prefix import State, Transaction
from .stream import read


class InterfaceError(Exception):
    """The program defines neither entry."""


class Program:
    """A loaded candidate and the stream it is in."""

    def __init__(self, module: ModuleType) -> None:
        self.module = module
        self.begin()

    def begin(self) -> None:
        """A new stream: nothing arrived, nothing scheduled. Raises InterfaceError, and what `Scheduler()` raises."""
        self.arrived = 0
        self.buffer: dict[int, Transaction] = {}
        self.state = State()
        self.choose: Callable[[list[Transaction], State], Any] | None = None

    def entry(self) -> Callable[[list[Transaction], State], Any]:
        """The function that chooses in this stream."""
        if self.choose is None:
            scheduler = getattr(self.module, "Scheduler", None)
            chooser = scheduler() if isinstance(scheduler, type) else self.module
            self.choose = getattr(chooser, "choose", None)
            if not callable(self.choose):
                raise InterfaceError(_EXPECTED)
        return self.choose


_EXPECTED = "the program defines neither choose(buffer, state) nor a class Scheduler with choose(self, buffer, state)"


def load(source: str) -> Program:
    """Execute a candidate. Raises SyntaxError, InterfaceError, and whatever its top level raises."""
    code = code_of(source)
    module = new_module()
    exec(code, module.__dict__)
    if not callable(getattr(module, "choose", None)) and not isinstance(getattr(module, "Scheduler", None), type):
        raise InterfaceError(_EXPECTED)
    return Program(module)


def act(program: Program, observation: npt.NDArray[np.int64]) -> int | float | str | None:
    """The candidate's choice after the transactions of `observation` (see stream.py) have entered its buffer.

    An id as an int; bools, floats, texts and None as they are, anything else as a text that says what it is.
    """
    begins, arriving = read(observation)
    if begins:
        program.begin()
    for length, operations in arriving:
        program.buffer[program.arrived] = Transaction(program.arrived, length, operations)
        program.arrived += 1
    answer = program.entry()(list(program.buffer.values()), program.state)
    plain = answer.item() if isinstance(answer, np.generic) else answer
    if type(plain) is int and plain in program.buffer:
        program.state._append(program.buffer.pop(plain))
        return plain
    if plain is None or type(plain) in (bool, int) or (isinstance(plain, float) and np.isfinite(plain)):
        return plain  # type: ignore[no-any-return]
    return f"{type(answer).__name__} {repr(answer)[:80]}"
