"""Stand-in for the public module of this name: programs `from evaluator import Model, GPU_MEM_SIZE`."""

from ..model import GPU_MEM_SIZE, Model

__all__ = ["GPU_MEM_SIZE", "Model"]
