"""MULTIFIT on the pressure, then moves and swaps.

A GPU is under a pressure of at most p exactly if its models' req_rate / slo + p * size add up to at most 80 * p. For a
given p that is bin packing; first and best fit decreasing answer it fast and nearly always rightly, and bisection
finds the least p for which they do. Source of the method: Coffman, Garey, Johnson, "An application of bin-packing to
multiprocessor scheduling", SIAM J. Comput. 7 (1978), for makespans.
"""

GPU_MEM_SIZE = 80
STEPS = 24
ROUNDS = 200


def compute_model_placement(gpu_num, models):
    demands = [m.req_rate / m.slo for m in models]
    sizes = [m.model_size for m in models]
    best = fit(gpu_num, [float(size) for size in sizes], GPU_MEM_SIZE - 0.5)
    low = max(sum(demands) / (GPU_MEM_SIZE * gpu_num - sum(sizes)), 1e-9)
    high = worst_pressure(best, demands, sizes) if best else 1e3 * low
    for _ in range(STEPS):
        middle = (low * high) ** 0.5
        weights = [d + middle * s for d, s in zip(demands, sizes, strict=True)]
        groups = fit(gpu_num, weights, GPU_MEM_SIZE * middle)
        if groups is None:
            low = middle
            continue
        found = worst_pressure(groups, demands, sizes)
        high = min(middle, found)
        if best is None or found < worst_pressure(best, demands, sizes):
            best = groups
    for _ in range(ROUNDS):
        if not improve(best, demands, sizes):
            break
    return {gpu: [models[m] for m in group] for gpu, group in enumerate(best)}


def fit(bins, weights, capacity):
    """Groups of indices, none above `capacity`; None when neither rule finds room."""
    order = sorted(range(len(weights)), key=lambda m: -weights[m])
    for fullest in (True, False):
        groups = [[] for _ in range(bins)]
        room = [capacity] * bins
        for m in order:
            fitting = [b for b in range(bins) if weights[m] <= room[b]]
            if not fitting:
                break
            b = min(fitting, key=lambda b: room[b]) if fullest else fitting[0]
            groups[b].append(m)
            room[b] -= weights[m]
        else:
            return groups
    return None


def pressure(group, demands, sizes):
    free = GPU_MEM_SIZE - sum(sizes[m] for m in group)
    return sum(demands[m] for m in group) / free if free > 0 else float("inf")


def worst_pressure(groups, demands, sizes):
    return max(pressure(group, demands, sizes) for group in groups)


def improve(groups, demands, sizes):
    """Carry out the best move or exchange of up to two models for up to two with the GPU under most pressure."""
    worst = max(range(len(groups)), key=lambda g: pressure(groups[g], demands, sizes))
    limit = pressure(groups[worst], demands, sizes)
    best = None
    for other in range(len(groups)):
        if other == worst:
            continue
        for given in subsets(groups[worst])[1:]:
            for taken in subsets(groups[other]):
                here = [m for m in groups[worst] if m not in given] + taken
                if pressure(here, demands, sizes) >= limit:
                    continue
                there = [m for m in groups[other] if m not in taken] + given
                after = max(pressure(here, demands, sizes), pressure(there, demands, sizes))
                if after < limit:
                    limit, best = after, (other, here, there)
    if best is None:
        return False
    other, groups[worst], groups[other] = best
    return True


def subsets(group):
    """None, one or two of a group."""
    return [[], *([m] for m in group), *([a, b] for i, a in enumerate(group) for b in group[:i])]
