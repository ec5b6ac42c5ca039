"""Which numbers of tokens to measure when a cost model is fitted to a device."""

from __future__ import annotations

import numpy as np

LEVELS = (1, 8, 32, 64, 96, 112, 128, 129, 160, 192, 256, 257, 320, 384, 512, 768, 1024, 2048, 4096, 8192)
"""Equal tokens in every slot: dense where memory hands over to compute, and on both sides of a tile's edge."""
DRAWS = 4


def designed_tokens(slots: int, most: int, seed: int) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Token vectors to fit a model to, and others to try it on; a slot has `most` tokens on average at the largest.

    Equal slots over LEVELS, a growing number of active slots, and lognormal skews (sigma 1) at five sizes, of which one
    draw in four is held out.
    """
    rng = np.random.default_rng(seed)
    fitted = [(level,) * slots for level in LEVELS if level <= most]
    fitted += [(16,) * active + (0,) * (slots - active) for active in range(1, slots + 1)]
    tried: list[tuple[int, ...]] = []
    for part in (64, 16, 4, 2, 1):
        for draw in range(DRAWS):
            weight = rng.lognormal(0.0, 1.0, slots)
            drawn = rng.multinomial(max(1, most // part) * slots, weight / weight.sum())
            (tried if draw == 0 else fitted).append(tuple(drawn.tolist()))
    return fitted, tried
