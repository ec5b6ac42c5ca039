"""Baseline: nothing is ever changed."""


def init(config):
    return None


def step(state, load_window, placement):
    return state, None
