"""Orders a batch of transactions: several sampled greedy sequences, the best one kept."""

import random

# EVOLVE-BLOCK-START
SAMPLE_SIZE = 16  # pending transactions compared at each step
NUM_STARTS = 3  # sequences built, each from another first transaction
LENGTH_BONUS = 0.02  # long transactions are taken a little earlier
WRITE_PENALTY = 0.01  # per write: those that hold up others a little later


def step_score(workload, txn, cost):
    """Smaller is better: the makespan of the prefix with `txn` appended decides, the rest breaks ties."""
    operations = workload.txns[txn]
    writes = sum(1 for kind, _key, _position, _length in operations if kind == "w")
    length = operations[0][3] if operations else 1
    return cost - LENGTH_BONUS * length + WRITE_PENALTY * writes


def build(workload):
    """One sequence: append, step by step, the sampled pending transaction of least score."""
    pending = list(range(workload.num_txns))
    schedule = [pending.pop(random.randrange(len(pending)))]
    while pending:
        sample = random.sample(pending, min(SAMPLE_SIZE, len(pending)))
        best_txn = None
        best_score = float("inf")
        for txn in sample:
            score = step_score(workload, txn, workload.get_opt_seq_cost([*schedule, txn]))
            if score < best_score:
                best_txn = txn
                best_score = score
        schedule.append(best_txn)
        pending.remove(best_txn)
    return schedule


def get_best_schedule(workload, num_seqs):
    """The best of NUM_STARTS sequences; `num_seqs` is the caller's hint how many to try."""
    best_schedule = None
    best_makespan = float("inf")
    for _start in range(NUM_STARTS):
        schedule = build(workload)
        makespan = workload.get_opt_seq_cost(schedule)
        if makespan < best_makespan:
            best_schedule = schedule
            best_makespan = makespan
    return best_makespan, best_schedule


# EVOLVE-BLOCK-END
