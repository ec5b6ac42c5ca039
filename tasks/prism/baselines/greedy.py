"""The public initial program's method: by req_rate / slo, descending, to the GPU whose pressure is lowest so far.

The pressure is that before the model is placed. A model that fits nowhere is an error, as publicly.
"""

GPU_MEM_SIZE = 80


def compute_model_placement(gpu_num, models):
    placement = {gpu: [] for gpu in range(gpu_num)}
    free = [GPU_MEM_SIZE] * gpu_num
    demand = [0.0] * gpu_num
    for model in sorted(models, key=lambda m: m.req_rate / m.slo, reverse=True):
        fitting = [g for g in range(gpu_num) if model.model_size <= free[g] and free[g] > 0]
        if not fitting:
            raise ValueError(f"no GPU has {model.model_size} GB left")
        gpu = min(fitting, key=lambda g: demand[g] / free[g])
        placement[gpu].append(model)
        free[gpu] -= model.model_size
        demand[gpu] += model.req_rate / model.slo
    return placement
