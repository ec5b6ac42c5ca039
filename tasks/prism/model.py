"""What a program is given: models to place. The only part of the public evaluator that programs see."""

from __future__ import annotations

from dataclasses import dataclass

GPU_MEM_SIZE = 80
"""GB per GPU."""


@dataclass
class Model:
    """A model to be served. Equal by its fields, as publicly; hashable by its name besides."""

    model_name: str
    """Unique within a problem: `model_0`, `model_1`, ... in input order."""
    model_size: int
    """GB of GPU memory that the weights take."""
    req_rate: int
    """Requests per second."""
    slo: int
    """Latency objective; the smaller, the more a request weighs."""
    cur_gpu_id: int
    """A GPU it may be said to sit on now: its number modulo the GPUs. Moving costs nothing."""

    def __hash__(self) -> int:
        return hash(self.model_name)
