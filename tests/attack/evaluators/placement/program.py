"""Models onto GPUs: in the order given, onto the first GPU with room."""

MEMORY = 80


# EVOLVE-BLOCK-START
def place(gpus, models):
    """Return {gpu: [models]}; a model is {"size": GB, "load": requests/s}."""
    placement = {gpu: [] for gpu in range(gpus)}
    free = dict.fromkeys(range(gpus), MEMORY)
    for model in models:
        for gpu in range(gpus):
            if model["size"] <= free[gpu]:
                placement[gpu].append(model)
                free[gpu] -= model["size"]
                break
    return placement


# EVOLVE-BLOCK-END
