"""Baseline: what the prose of "Barbarians at the Gate" (arXiv 2510.06189) tells of the offline search, written by us.

Transactions with few writes first; each inserted at the position where the makespan is least; then pairwise swaps as
long as they help; the same again from shuffled orders; the best of all. Everything is bounded by counts, never by the
clock, so that the answer is the same on every machine.
"""

import random

import numpy as np

PLACED = 40_000_000  # transactions placed by the simulator over a workload, all restarts together
POSITIONS = 100  # at most so many positions are tried for an insertion, evenly spread
RESTARTS = 12


class Budget:
    """Counts placed transactions, those of long transactions more."""

    def __init__(self, workload):
        self.left = PLACED
        operations = sum(len(txn) for txn in workload.txns)
        self.weight = 1 + operations / (4 * workload.num_txns)

    def cost(self, workload, schedule):
        self.left -= schedule.size * self.weight
        return workload.get_opt_seq_cost(schedule)


def get_best_schedule(workload, num_seqs):
    writes = [sum(op[0] == "w" for op in txn) for txn in workload.txns]
    order = sorted(range(workload.num_txns), key=writes.__getitem__)
    budget = Budget(workload)
    best, best_cost = None, None
    for restart in range(RESTARTS):
        if restart:
            random.shuffle(order)
        schedule = insert_all(workload, order, budget)
        schedule, cost = climb(workload, schedule, budget)
        if best_cost is None or cost < best_cost:
            best, best_cost = schedule, cost
        if budget.left <= 0:
            break
    return best_cost, best


def insert_all(workload, order, budget):
    """Each transaction of `order`, in turn, at the best of up to POSITIONS positions; ties to the last."""
    schedule = np.empty(0, dtype=np.int64)
    for txn in order:
        positions = np.unique(np.linspace(schedule.size, 0, POSITIONS).astype(int))[::-1]
        tried = np.empty(schedule.size + 1, dtype=np.int64)
        best, best_cost = schedule.size, None
        for position in positions:
            tried[:position] = schedule[:position]
            tried[position] = txn
            tried[position + 1 :] = schedule[position:]
            cost = budget.cost(workload, tried)
            if best_cost is None or cost < best_cost:
                best, best_cost = position, cost
        schedule = np.insert(schedule, best, txn)
    return schedule


def climb(workload, schedule, budget):
    """Swap pairs, in random order, as long as one of a round helps and the budget lasts."""
    cost = workload.get_opt_seq_cost(schedule)
    n = schedule.size
    improved = True
    while improved and budget.left > 0:
        improved = False
        for index in random.sample(range(n * n), n * n):
            i, j = divmod(index, n)
            if i >= j:
                continue
            schedule[i], schedule[j] = schedule[j], schedule[i]
            tried = budget.cost(workload, schedule)
            if tried < cost:
                cost, improved = tried, True
            else:
                schedule[i], schedule[j] = schedule[j], schedule[i]
            if budget.left <= 0:
                break
    return schedule, cost
