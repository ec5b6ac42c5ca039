"""Solution Generator: turns a request (parents, operator) into the text of a new program.

`Model` is the seam. `adrs_ray.generator.mutate.MutationModel` needs no language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from adrs_ray.candidate import Completion

__all__ = ["Completion", "GenerationRequest", "Model"]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of a model: a child of `parents[0]`; further parents are inspirations or crossover partners.

    Randomness comes from `default_rng(rng_key)`; asking again after a duplicate appends the draw number to the key,
    so nothing about a generator's state has to be saved.
    """

    candidate: str
    operator: str
    parents: tuple[str, ...]
    """Full program texts, never empty."""
    rng_key: tuple[int, ...]


class Model(Protocol):
    """A source of programs. Implementations must not raise for what a parent program contains."""

    @property
    def name(self) -> str: ...

    @property
    def paid(self) -> bool:
        """Whether a request costs something: then PROPOSED is journaled before it is sent."""
        ...

    @property
    def redraws(self) -> int:
        """How many further draws a duplicate or an unusable completion is worth."""
        ...

    async def complete(self, request: GenerationRequest) -> Completion: ...
