"""Schedules a stream of transactions by a score of the pending ones."""

# EVOLVE-BLOCK-START
SAMPLE_SIZE = 5  # pending transactions that are compared, those that arrived first
GROWTH_WEIGHT = 1.0  # per tick that the makespan grows
AGE_WEIGHT = 0.6  # per place in the buffer: older ones first
WRITE_WEIGHT = 0.1  # per operation that writes


def score(txn, place, state):
    """Smaller is better."""
    growth = state.cost(txn) - state.makespan
    writes = 0
    for kind, _key, _position, _length in txn.ops:
        if kind == "w":
            writes += 1
    return GROWTH_WEIGHT * growth + AGE_WEIGHT * place + WRITE_WEIGHT * writes


def choose(buffer, state):
    """The id of the pending transaction to append; `buffer` is in order of arrival."""
    best = buffer[0]
    best_score = float("inf")
    for place, txn in enumerate(buffer[:SAMPLE_SIZE]):
        value = score(txn, place, state)
        if value < best_score:
            best = txn
            best_score = value
    return best.id


# EVOLVE-BLOCK-END
