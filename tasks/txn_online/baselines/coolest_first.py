"""Baseline: what writes the fewest keys that others in the buffer touch; ties by the makespan it leads to."""

from collections import Counter


def choose(buffer, state):
    users = Counter(key for txn in buffer for key in {op[1] for op in txn.ops})

    def heat(txn):
        return sum(users[op[1]] - 1 for op in txn.ops if op[0] == "w")

    return min(buffer, key=lambda txn: (heat(txn), state.cost(txn))).id
