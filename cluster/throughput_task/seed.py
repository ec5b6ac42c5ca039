# EVOLVE-BLOCK-START
def f(x: int) -> int:
    y = x + 1
    return y * 2


# EVOLVE-BLOCK-END
