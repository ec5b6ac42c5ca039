"""Baseline: for each pending transaction, append it and go on by SMF to the end of the buffer; the least makespan wins.

Ties go to the transaction that ends earliest itself, then to the one that arrived first.
"""


def choose(buffer, state):
    if len(buffer) == 1:
        return buffer[0].id
    return min(buffer, key=lambda txn: (end_of_buffer(txn, buffer, state), state.cost(txn))).id


def end_of_buffer(first, buffer, state):
    state = state.after(first)
    pending = [txn for txn in buffer if txn is not first]
    while pending:
        following = min(pending, key=state.cost)
        state = state.after(following)
        pending.remove(following)
    return state.makespan
