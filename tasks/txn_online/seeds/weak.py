"""Schedules a stream of transactions by their operations alone."""

# EVOLVE-BLOCK-START
SAMPLE_SIZE = 4  # pending transactions that are compared, those that arrived first
WRITE_WEIGHT = 1.0  # per operation that writes
READ_WEIGHT = 0.3  # per operation that reads


def weight(txn):
    """Smaller comes earlier."""
    total = 0.0
    for kind, _key, _position, _length in txn.ops:
        total += WRITE_WEIGHT if kind == "w" else READ_WEIGHT
    return total


def choose(buffer, state):
    """The id of the pending transaction to append; `buffer` is in order of arrival."""
    best = buffer[0]
    for txn in buffer[:SAMPLE_SIZE]:
        if weight(txn) < weight(best):
            best = txn
    return best.id


# EVOLVE-BLOCK-END
