"""The baseline balancers by name: where each comes from, what it needs, and one door to run it on numpy arrays."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .error_text import typed_line
from .maps import maps
from .shapes import Shape

__all__ = ["BASELINES", "Baseline", "maps", "place"]

COMPILERS = ("cc", "gcc", "clang")


@dataclass(frozen=True, slots=True)
class Baseline:
    """One program of `gpu_eval/baselines`, whose `rebalance_experts` has DeepSeek's signature."""

    name: str
    source: str
    """Paper, repository or issue that its rule comes from."""
    needs: tuple[str, ...]
    """What it needs besides torch and numpy: names of modules, or `compiler`."""
    grouped: bool
    """Whether groups of experts stay on one node."""

    @property
    def path(self) -> Path:
        """Its file, one whole program."""
        return Path(__file__).parent / "baselines" / f"{self.name}.py"

    def missing(self) -> str | None:
        """What keeps it from running here, one line, or None."""
        for need in ("torch", *self.needs):
            if need == "compiler":
                if not any(shutil.which(compiler) for compiler in COMPILERS):
                    return f"{self.name} needs a C compiler ({', '.join(COMPILERS)})"
            elif importlib.util.find_spec(need) is None:
                return f"{self.name} needs {need}"
        return None

    def load(self) -> Any:
        """Its module, imported once; raises ValueError, one line, where something is missing or does not work."""
        if missing := self.missing():
            raise ValueError(missing)
        try:
            return importlib.import_module(f"gpu_eval.baselines.{self.name}")
        except Exception as error:  # numba, for one, raises its own kinds on a numpy or Python that it does not know
            raise ValueError(f"{self.name} cannot be loaded: {typed_line(error, 200)}") from error


BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline("deepseek", "DeepSeek EPLB, rule of its README", (), True),
        Baseline("paper_zigzag", "arXiv 2510.06189 (ADRS), prose of its EPLB case", (), True),
        Baseline("heap_lpt", "DeepSeek's rule; heap as in TensorRT-LLM's load balancer", ("numba",), True),
        Baseline("heap_lpt_c", "DeepSeek's rule; heap as in TensorRT-LLM's load balancer", ("compiler",), True),
        Baseline("heap_swaps", "heap_lpt without duplicates, then bounded swaps", ("numba",), True),
        Baseline("global_lpt", "TensorRT-LLM's rule; vllm#18343 on duplicates", ("numba",), False),
        Baseline("global_swaps", "global_lpt, then bounded swaps (vllm#37656)", ("numba",), False),
        Baseline("incremental", "bounded moves from the last placement (EPLB#13, vllm#37656)", ("numba",), False),
    )
}


def place(name: str, weight: NDArray[Any], shape: Shape) -> NDArray[np.int64]:
    """The expert of each slot [L, P] that baseline `name` chooses for loads `weight` [L, E].

    Raises ValueError, one line, for an unknown name, a missing need, or loads that do not fit `shape`.
    """
    if name not in BASELINES:
        raise ValueError(f"no baseline {name!r}, expected one of {', '.join(BASELINES)}")
    if weight.shape != (shape.layers, shape.experts):
        raise ValueError(f"weight is {list(weight.shape)}, expected [{shape.layers}, {shape.experts}]")
    module = BASELINES[name].load()
    # Torch comes with the module: names and maps alone must not wait for it.
    tensor = module.torch.from_numpy(np.array(weight))
    physical_to_logical = module.rebalance_experts(tensor, shape.slots, shape.groups, shape.nodes, shape.gpus)[0]
    result: NDArray[np.int64] = physical_to_logical.numpy()
    return result
