"""Places models in the order in which they come, each where the least memory is used."""

GPU_MEM_SIZE = 80  # GB


# EVOLVE-BLOCK-START
def place(gpu_num, ordered):
    """Each model to the GPU with the most free memory; None when that has no room."""
    placement = {gpu: [] for gpu in range(gpu_num)}
    free = [GPU_MEM_SIZE] * gpu_num
    for model in ordered:
        best_gpu = 0
        for gpu in range(gpu_num):
            if free[gpu] > free[best_gpu]:
                best_gpu = gpu
        if model.model_size >= free[best_gpu]:
            return None
        placement[best_gpu].append(model)
        free[best_gpu] -= model.model_size
    return placement


def first_fit(gpu_num, ordered):
    """Each model to the first GPU with room for it."""
    placement = {gpu: [] for gpu in range(gpu_num)}
    free = [GPU_MEM_SIZE] * gpu_num
    for model in ordered:
        gpu = next(g for g in range(gpu_num) if model.model_size < free[g])
        placement[gpu].append(model)
        free[gpu] -= model.model_size
    return placement


def compute_model_placement(gpu_num, models):
    """Return {gpu_id: [models]}, every model once, less than 80 GB per GPU."""
    placement = place(gpu_num, models)
    if placement is None:
        placement = first_fit(gpu_num, sorted(models, key=lambda m: m.model_size, reverse=True))
    return placement


# EVOLVE-BLOCK-END
