"""Baseline: SMF, "shortest makespan first": append the pending transaction that ends the schedule earliest.

Ties go to the one that arrived first. Source: Cheng et al., "Towards Optimal Transaction Scheduling", VLDB 2024.
"""


def choose(buffer, state):
    return min(buffer, key=state.cost).id
