"""Schedules a stream of transactions by what each pending one costs now and holds up later."""

# EVOLVE-BLOCK-START
SAMPLE_SIZE = 8  # pending transactions that are compared, those that arrived first
GROWTH_WEIGHT = 1.0  # per tick that the makespan grows
WAIT_WEIGHT = 0.05  # per tick that the transaction starts late
AGE_WEIGHT = 0.1  # per place in the buffer: older ones first


def score(txn, place, state):
    """Smaller is better."""
    start = state.start(txn)
    growth = state.cost(txn) - state.makespan
    waits = max(0, start - (state.makespan - txn.length + 1))
    return GROWTH_WEIGHT * growth + WAIT_WEIGHT * waits + AGE_WEIGHT * place


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
