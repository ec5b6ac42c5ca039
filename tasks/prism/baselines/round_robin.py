"""Model k goes to GPU k mod gpu_num, whether it fits or not: what the leaderboard's formula calls the baseline."""


def compute_model_placement(gpu_num, models):
    return {gpu: models[gpu::gpu_num] for gpu in range(gpu_num)}
