"""The hole closed: the program runs apart, and its rows are those that were given."""

import itertools
import random

from apart import answers_of


def alike(one, other):
    """How many characters two rows begin with in common."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def table():
    rng = random.Random(5)
    return [[rng.choice(("north", "south", "east")) for _ in range(4)] for _ in range(40)]


def evaluate(path):
    (given,) = answers_of(path, "reorder", [[table()]])
    if sorted(given) != sorted(table()):
        raise ValueError("these are other rows")
    rows = ["/".join(row) for row in given]
    shared = sum(alike(one, other) for one, other in itertools.pairwise(rows))
    return {"combined_score": shared / sum(map(len, rows))}
