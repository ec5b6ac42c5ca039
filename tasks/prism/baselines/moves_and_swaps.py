"""Greedy by the pressure that results, then local search by moves and swaps.

Models by req_rate / slo, descending, each to the GPU whose pressure is lowest once it is there. Then, while it helps, a
model of the GPU under most pressure moves to another GPU or changes places with a model there.
"""

from itertools import product

GPU_MEM_SIZE = 80
ROUNDS = 100


def pressure(members):
    free = GPU_MEM_SIZE - sum(m.model_size for m in members)
    return sum(m.req_rate / m.slo for m in members) / free if free > 0 else float("inf")


def compute_model_placement(gpu_num, models):
    for key in (lambda m: m.req_rate / m.slo, lambda m: m.model_size):
        groups = [[] for _ in range(gpu_num)]
        for model in sorted(models, key=key, reverse=True):
            min(groups, key=lambda group: pressure([*group, model])).append(model)
        if all(pressure(group) < float("inf") for group in groups):
            break
    else:
        groups = first_fit(gpu_num, sorted(models, key=lambda m: m.model_size, reverse=True))
    for _ in range(ROUNDS):
        if not improve(groups):
            break
    return dict(enumerate(groups))


def first_fit(gpu_num, ordered):
    groups = [[] for _ in range(gpu_num)]
    for model in ordered:
        next(group for group in groups if pressure([*group, model]) < float("inf")).append(model)
    return groups


def improve(groups):
    worst = max(range(len(groups)), key=lambda g: pressure(groups[g]))
    limit = pressure(groups[worst])
    best = None
    for other in range(len(groups)):
        if other == worst:
            continue
        for given, taken in product(groups[worst], [None, *groups[other]]):
            here = [m for m in groups[worst] if m is not given] + ([] if taken is None else [taken])
            there = [m for m in groups[other] if m is not taken] + [given]
            after = max(pressure(here), pressure(there))
            if after < limit:
                limit = after
                best = (other, here, there)
    if best is None:
        return False
    other, groups[worst], groups[other] = best
    return True
