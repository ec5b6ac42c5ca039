"""A workload: a batch of transactions in the public text form, and what an order of them costs.

Imported on both sides: by the judge, and in the jail by the adapter (as `txn_simulator.Workload` for programs that
import the public module). It therefore imports neither the system nor the judge.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .kernel import READ, WRITE, makespan

Operation: TypeAlias = tuple[str, str, int, int]
"""(type 'r' or 'w', key, position in the transaction from 1, length of the transaction in ticks)."""


class Workload:
    """Transactions 0..num_txns-1, parsed from texts such as {"txn0": "w-17 r-5 * * w-3", "txn1": "r-5"}.

    A text is a list of ticks separated by blanks: `r-<key>` reads, `w-<key>` writes, `*` passes time. Ids follow the
    order of the mapping, which may also be JSON text. Raises ValueError naming the transaction and the token that is
    none of the three.

    `arrays` is what the kernel reads: first operation of each transaction (and their number), key, kind and position
    of each operation, length of each transaction, number of keys.
    """

    def __init__(self, workload: Mapping[str, str] | str) -> None:
        texts: Mapping[str, str] = json.loads(workload) if isinstance(workload, str) else workload
        self.txns: list[list[Operation]] = [_parse(name, text) for name, text in texts.items()]
        self.num_txns = len(self.txns)
        keys = {key: i for i, key in enumerate(dict.fromkeys(op[1] for txn in self.txns for op in txn))}
        ops = [op for txn in self.txns for op in txn]
        lengths = [len(text.split()) for text in texts.values()]
        self.arrays = (
            np.cumsum([0, *(len(txn) for txn in self.txns)], dtype=np.int64),
            np.array([keys[op[1]] for op in ops], dtype=np.int64),
            np.array([WRITE if op[0] == "w" else READ for op in ops], dtype=np.int64),
            np.array([op[2] for op in ops], dtype=np.int64),
            np.array(lengths, dtype=np.int64),
            len(keys),
        )

    def get_opt_seq_cost(self, sequence: Sequence[int] | npt.NDArray[np.int64]) -> int:
        """Makespan in ticks of the transactions `sequence`, placed in that order: all of them or any part.

        An id that occurs twice is placed twice. Raises ValueError naming an entry that is no transaction id.
        """
        order = np.asarray(sequence)
        if order.dtype != np.int64 or order.ndim != 1 or not order.flags.c_contiguous:
            order = _as_ids(order)
        total = int(makespan(order, *self.arrays))
        if total < 0:
            index = -1 - total
            raise ValueError(f"sequence[{index}] is {order[index]}, expected an id in 0..{self.num_txns - 1}")
        return total

    @property
    def longest_txn(self) -> int:
        """Length of the longest transaction in ticks: no order ends earlier."""
        return int(self.arrays[4].max(initial=0))


def _parse(name: str, text: str) -> list[Operation]:
    tokens = text.split()
    operations: list[Operation] = []
    for position, token in enumerate(tokens, start=1):
        if token == "*":
            continue
        kind, dash, key = token.partition("-")
        if kind not in ("r", "w") or not dash or not key:
            raise ValueError(f"{name}: {token!r} at position {position} is none of r-<key>, w-<key>, *")
        operations.append((kind, key, position, len(tokens)))
    return operations


def _as_ids(order: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    if order.size == 0 and order.ndim == 1:
        return np.zeros(0, dtype=np.int64)
    if order.ndim != 1 or order.dtype.kind not in "iu":
        raise ValueError(f"sequence must be a list of transaction ids (int), got {order.dtype} of shape {order.shape}")
    return np.ascontiguousarray(order, dtype=np.int64)
