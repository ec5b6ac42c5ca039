"""Baseline: the best of `num_seqs` random orders."""

import random


def get_best_schedule(workload, num_seqs):
    orders = [random.sample(range(workload.num_txns), workload.num_txns) for _ in range(num_seqs)]
    schedule = min(orders, key=workload.get_opt_seq_cost)
    return workload.get_opt_seq_cost(schedule), schedule
