"""Orders a batch of transactions by SMF, "shortest makespan first".

Source: Cheng et al., "Towards Optimal Transaction Scheduling", VLDB 2024.
"""

import random

# EVOLVE-BLOCK-START
SAMPLE_SIZE = 10  # pending transactions compared at each step


def get_best_schedule(workload, num_seqs):
    """Append, step by step, the best of a few sampled pending transactions; start from a random one.

    `num_seqs` is the caller's hint how many sequences to try; this makes one.
    """
    pending = list(range(workload.num_txns))
    first = random.randrange(workload.num_txns)
    pending.remove(first)
    schedule = [first]
    makespan = workload.get_opt_seq_cost(schedule)

    while pending:
        sample = random.sample(pending, min(SAMPLE_SIZE, len(pending)))
        best_txn = None
        best_cost = float("inf")
        for txn in sample:
            cost = workload.get_opt_seq_cost([*schedule, txn])
            if cost < best_cost:
                best_txn = txn
                best_cost = cost
        schedule.append(best_txn)
        pending.remove(best_txn)
        makespan = best_cost

    return makespan, schedule


# EVOLVE-BLOCK-END
