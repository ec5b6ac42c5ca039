"""First fit in input order, filling a GPU to the last GB: the public naive program's method.

A GPU filled to exactly 80 GB has no cache: invalid here, the pressure 1,000,000 publicly.
"""

GPU_MEM_SIZE = 80


def compute_model_placement(gpu_num, models):
    placement = {gpu: [] for gpu in range(gpu_num)}
    free = [GPU_MEM_SIZE] * gpu_num
    for model in models:
        for gpu in range(gpu_num):
            if model.model_size <= free[gpu]:
                placement[gpu].append(model)
                free[gpu] -= model.model_size
                break
        else:
            raise ValueError(f"no GPU has {model.model_size} GB left")
    return placement
