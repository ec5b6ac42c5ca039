"""How arriving transactions travel to the candidate's process: one array of int64 per step.

It holds [1 if a new stream begins else 0, number of transactions], then for each of them [length in ticks, number of
operations] and, per operation, [key, 1 if it writes else 0, position from 1]. Keys are numbered as they first arrive.
Used by the judge to write and by the adapter to read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from .workload import Workload

Ints: TypeAlias = npt.NDArray[np.int64]

BUFFER_SIZE = 10
"""Transactions that are pending at a time, as long as there are more to come."""


def parts(workload: Workload) -> list[Ints]:
    """What each transaction of a workload is in a message."""
    first, key, write, position, length, _keys = workload.arrays
    operations = np.stack([key, write, position], axis=1)
    return [
        np.concatenate([[length[i], end - begin], operations[begin:end].ravel()])
        for i, (begin, end) in enumerate(pairwise(first))
    ]


def message(begins: bool, arriving: Sequence[Ints]) -> Ints:
    """The message that says that `arriving`, of `parts`, enter the buffer."""
    return np.concatenate([np.array([begins, len(arriving)], dtype=np.int64), *arriving])


def read(received: Ints) -> tuple[bool, Iterator[tuple[int, Ints]]]:
    """Whether a stream begins, and length and operations (m x 3) of each arriving transaction."""
    return bool(received[0]), _transactions(received)


def _transactions(received: Ints) -> Iterator[tuple[int, Ints]]:
    at = 2
    for _ in range(int(received[1])):
        length, count = int(received[at]), int(received[at + 1])
        end = at + 2 + 3 * count
        yield length, received[at + 2 : end].reshape(count, 3).copy()
        at = end
