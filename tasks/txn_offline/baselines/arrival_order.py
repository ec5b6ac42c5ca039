"""Baseline: transactions in the order in which they arrived."""


def get_best_schedule(workload, num_seqs):
    schedule = list(range(workload.num_txns))
    return workload.get_opt_seq_cost(schedule), schedule
