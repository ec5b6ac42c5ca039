"""Baseline: SMF without sampling. From transaction 0 on, append the pending one that ends the prefix earliest.

Ties go to the lowest id, so the answer is deterministic.
"""


def get_best_schedule(workload, num_seqs):
    schedule = [0]
    pending = list(range(1, workload.num_txns))
    while pending:
        best = min(pending, key=lambda txn: workload.get_opt_seq_cost([*schedule, txn]))
        schedule.append(best)
        pending.remove(best)
    return workload.get_opt_seq_cost(schedule), schedule
