"""Orders a batch of transactions by a priority that is worked out once for each of them."""

# EVOLVE-BLOCK-START
WRITE_WEIGHT = 1.0  # per operation that writes
READ_WEIGHT = 0.2  # per operation that reads
LENGTH_WEIGHT = -0.5  # per tick of the transaction
HEAT_WEIGHT = 0.02  # per other access of a key that it touches


def priority(operations, heat):
    """Smaller comes earlier."""
    value = 0.0
    for kind, key, _position, length in operations:
        value += WRITE_WEIGHT if kind == "w" else READ_WEIGHT
        value += HEAT_WEIGHT * heat[key]
        value += LENGTH_WEIGHT * length / len(operations)
    return value


def get_best_schedule(workload, num_seqs):
    """Order by priority; `num_seqs` is the caller's hint how many sequences to try, this tries two."""
    heat = {}
    for operations in workload.txns:
        for _kind, key, _position, _length in operations:
            heat[key] = heat.get(key, 0) + 1

    schedule = sorted(range(workload.num_txns), key=lambda txn: priority(workload.txns[txn], heat))
    makespan = workload.get_opt_seq_cost(schedule)

    arrival = list(range(workload.num_txns))
    arrival_makespan = workload.get_opt_seq_cost(arrival)
    if arrival_makespan < makespan:
        return arrival_makespan, arrival
    return makespan, schedule


# EVOLVE-BLOCK-END
