"""What a candidate sees: pending transactions, and the schedule so far with what one more would cost.

A convenience in the candidate's own process: the judge recomputes every makespan from the order that it was told. The
rules are those of `kernel.py`; here the two numbers per key are kept from step to step, so that a question costs the
operations of one transaction and not those of the whole prefix.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .compiled import compiled
from .kernel import READ, WRITE

Operation: TypeAlias = tuple[str, str, int, int]
"""(type 'r' or 'w', key, position in the transaction from 1, length of the transaction in ticks)."""

_FIRST_CAPACITY = 256


@compiled("int64(int64[:, ::1], int64[:, ::1])")
def _earliest(operations, free):  # type: ignore[no-untyped-def]
    """The tick at which a transaction starts: `operations` are (key, READ or WRITE, position), `free` see kernel.py."""
    start = 1
    for op in range(operations.shape[0]):
        start = max(start, free[operations[op, 0], operations[op, 1]] - operations[op, 2] + 1)
    return start


@compiled("void(int64[:, ::1], int64, int64[:, ::1])")
def _place(operations, start, free):  # type: ignore[no-untyped-def]
    """Note in `free` that a transaction starts at `start`."""
    for op in range(operations.shape[0]):
        key = operations[op, 0]
        after = start + operations[op, 2]
        free[key, WRITE] = max(free[key, WRITE], after)
        if operations[op, 1] == WRITE:
            free[key, READ] = after


class Transaction:
    """A pending transaction: `id` counts arrivals from 0, `length` is in ticks, `ops` as in the offline task."""

    __slots__ = ("_operations", "_top", "id", "length", "ops")

    def __init__(self, number: int, length: int, operations: npt.NDArray[np.int64]) -> None:
        """`operations`: m x 3, (key, 1 for a write, position from 1)."""
        self.id = number
        self.length = length
        self.ops: list[Operation] = [("w" if w else "r", str(k), p, length) for k, w, p in operations.tolist()]
        self._operations = operations
        self._top = int(operations[:, 0].max(initial=-1)) + 1

    def __repr__(self) -> str:
        return f"Transaction(id={self.id}, length={self.length}, ops={self.ops})"


class State:
    """The schedule so far. Nothing here changes what it is, except the referee's next step."""

    __slots__ = ("_free", "makespan", "num_scheduled", "schedule")

    def __init__(self) -> None:
        self.makespan = 0
        """Tick at which the last transaction of the schedule ends."""
        self.num_scheduled = 0
        self.schedule: tuple[int, ...] = ()
        """Ids in the order of the schedule."""
        self._free = np.zeros((_FIRST_CAPACITY, 2), np.int64)

    def start(self, txn: Transaction) -> int:
        """The tick (from 1) at which `txn` would start if it were appended now."""
        self._make_room(txn)
        return int(_earliest(txn._operations, self._free))

    def cost(self, txn: Transaction) -> int:
        """The makespan of the schedule with `txn` appended."""
        return max(self.makespan, self.start(txn) + txn.length - 1)

    def after(self, txn: Transaction) -> State:
        """The state that appending `txn` would lead to; this one stays as it is."""
        following = State()
        following.makespan = self.makespan
        following.num_scheduled = self.num_scheduled
        following.schedule = self.schedule
        following._free = self._free.copy()
        following._append(txn)
        return following

    def last_access(self, key: str) -> int:
        """The latest tick at which the schedule reads or writes `key`, 0 if it never does."""
        return self._last(key, WRITE)

    def last_write(self, key: str) -> int:
        """The latest tick at which the schedule writes `key`, 0 if it never does."""
        return self._last(key, READ)

    def _last(self, key: str, kind: int) -> int:
        number = int(key)
        return max(0, int(self._free[number, kind]) - 1) if 0 <= number < len(self._free) else 0

    def _append(self, txn: Transaction) -> None:
        start = self.start(txn)
        _place(txn._operations, start, self._free)
        self.makespan = max(self.makespan, start + txn.length - 1)
        self.num_scheduled += 1
        self.schedule = (*self.schedule, txn.id)

    def _make_room(self, txn: Transaction) -> None:
        if txn._top > len(self._free):
            grown = np.zeros((2 * txn._top, 2), np.int64)
            grown[: len(self._free)] = self._free
            self._free = grown
