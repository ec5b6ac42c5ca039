"""Baseline: any pending transaction."""

import random


def choose(buffer, state):
    return random.choice(buffer).id
