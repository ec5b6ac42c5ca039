"""The holes closed: the program runs apart, each model is placed once, on a GPU that there is."""

import json
import random

from apart import answers_of


def cases():
    rng = random.Random(3)
    for gpus in (2, 4):
        yield gpus, [{"size": rng.randint(5, 20), "load": rng.randint(1, 9)} for _ in range(4 * gpus)]


def pressure(placement, gpus, models):
    placed = sorted(json.dumps(model, sort_keys=True) for held in placement.values() for model in held)
    if placed != sorted(json.dumps(model, sort_keys=True) for model in models):
        raise ValueError("not every model is placed once")
    worst = 0.0
    for gpu, held in placement.items():
        used = sum(model["size"] for model in held)
        if gpu not in map(str, range(gpus)) or used >= 80:
            raise ValueError("no such GPU, or out of memory")
        worst = max(worst, sum(model["load"] for model in held) / (80 - used))
    return worst


def evaluate(path):
    given = list(cases())
    worst = [pressure(answer, *case) for case, answer in zip(given, answers_of(path, "place", given), strict=True)]
    return {"pressure": sum(worst) / len(worst), "combined_score": 1.0 / (0.01 + sum(worst) / len(worst))}
