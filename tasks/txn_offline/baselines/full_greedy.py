"""Baseline: SMF without sampling. From transaction 0 on, append the pending one that ends the prefix earliest.

Ties go to the lowest id, so the answer is deterministic.
"""

import numpy as np


def get_best_schedule(workload, num_seqs):
    n = workload.num_txns
    schedule = np.zeros(n, dtype=np.int64)  # an array is passed on without a copy
    pending = list(range(1, n))
    for place in range(1, n):
        best, best_cost = None, None
        for txn in pending:
            schedule[place] = txn
            cost = workload.get_opt_seq_cost(schedule[: place + 1])
            if best_cost is None or cost < best_cost:
                best, best_cost = txn, cost
        schedule[place] = best
        pending.remove(best)
    return workload.get_opt_seq_cost(schedule), schedule
