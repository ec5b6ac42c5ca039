"""Baseline: the transaction that has waited longest."""


def choose(buffer, state):
    return buffer[0].id
