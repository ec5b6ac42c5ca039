"""The largest model first, on the first GPU where it fits: always a valid placement here, and blind to traffic."""

GPU_MEM_SIZE = 80


def compute_model_placement(gpu_num, models):
    placement = {gpu: [] for gpu in range(gpu_num)}
    used = [0] * gpu_num
    for model in sorted(models, key=lambda m: -m.model_size):
        gpu = next(g for g in range(gpu_num) if used[g] + model.model_size < GPU_MEM_SIZE)
        placement[gpu].append(model)
        used[gpu] += model.model_size
    return placement
