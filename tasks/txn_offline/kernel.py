"""The simulator's kernel: the makespan of an order of transactions under serial-conflict placement.

Every transaction starts at one tick s >= 1, its operation at position p touches its key at tick s + p - 1, and it
ends at s + length - 1. Transactions are placed in the given order, each as early as earlier ones allow: an operation
on a key comes after that key's latest access if either of the two writes, and after its last write if both read.
A gap before an earlier access is never filled.

Two numbers per key are all the state this needs. A write always lands after every access of its key, so the latest
access either is the last write or a read after it: `free[key, WRITE]` (one past the latest access) bounds the next
write and `free[key, READ]` (one past the last write) the next read; 0 means no bound. The tests compare it with a
literal version that keeps sorted lists of accesses.

Compiled for its one signature when imported and cached on disk, so that a process forked later compiles nothing.
"""

from __future__ import annotations

import numpy as np

from .compiled import compiled

READ, WRITE = 0, 1


@compiled("int64(int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64[::1], int64)")
def makespan(order, first_op, op_key, op_write, op_position, length, keys):  # type: ignore[no-untyped-def]
    """The tick at which the last of the transactions `order` ends, 0 for an empty order.

    Operations of transaction i are `first_op[i]:first_op[i + 1]`, in order of position (from 1); `op_key` is in
    0..keys-1, `op_write` is READ or WRITE. An order that names no transaction at index j gives -1 - j.
    """
    free = np.zeros((keys, 2), np.int64)
    total = 0
    for j in range(order.size):
        txn = order[j]
        if txn < 0 or txn >= length.size:
            return -1 - j
        start = 1
        for op in range(first_op[txn], first_op[txn + 1]):
            start = max(start, free[op_key[op], op_write[op]] - op_position[op] + 1)
        for op in range(first_op[txn], first_op[txn + 1]):
            after = start + op_position[op]
            free[op_key[op], WRITE] = max(free[op_key[op], WRITE], after)
            if op_write[op] == WRITE:
                free[op_key[op], READ] = after
        total = max(total, start + length[txn] - 1)
    return total
