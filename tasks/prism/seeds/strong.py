"""Places models one by one, large and busy ones first, where there is little pressure and much free memory."""

GPU_MEM_SIZE = 80  # GB

# EVOLVE-BLOCK-START
RATE_EXPONENT = 1.0  # how much requests count when models are ordered
SIZE_EXPONENT = 1.0  # how much memory counts when models are ordered
FREE_EXPONENT = 2.0  # how much free memory counts when a GPU is chosen


def order_key(model):
    """Models with a large key are placed early."""
    demand = model.req_rate / model.slo
    return demand**RATE_EXPONENT * model.model_size**SIZE_EXPONENT


def gpu_score(demand, free, model):
    """The GPU with the lowest score gets the model; `demand` and `free` GB are those before it is there."""
    return demand / free**FREE_EXPONENT


def place(gpu_num, ordered):
    """Each model to the best GPU with room for it; None when one has no room."""
    placement = {gpu: [] for gpu in range(gpu_num)}
    demand = [0.0] * gpu_num
    free = [GPU_MEM_SIZE] * gpu_num
    for model in ordered:
        best_gpu = None
        best_score = float("inf")
        for gpu in range(gpu_num):
            if model.model_size >= free[gpu]:
                continue
            score = gpu_score(demand[gpu], free[gpu], model)
            if score < best_score:
                best_gpu = gpu
                best_score = score
        if best_gpu is None:
            return None
        placement[best_gpu].append(model)
        demand[best_gpu] += model.req_rate / model.slo
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
    by_size = sorted(models, key=lambda m: m.model_size, reverse=True)
    placement = place(gpu_num, sorted(models, key=order_key, reverse=True))
    if placement is None:
        placement = place(gpu_num, by_size)
    if placement is None:
        placement = first_fit(gpu_num, by_size)
    return placement


# EVOLVE-BLOCK-END
