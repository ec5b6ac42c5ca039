"""Shapes of the problem: how many experts, copies, GPUs and nodes, and how large an expert is.

Slots are numbered GPU by GPU and GPUs node by node: slot s lies on GPU `s // slots_per_gpu`, GPU g on node
`g // gpus_per_node`. Experts are numbered group by group: expert e belongs to group `e // experts_per_group`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shape:
    """One placement problem: `layers` x `experts` logical experts in `slots` physical ones.

    Raises ValueError, one line, for what no placement can satisfy.
    """

    layers: int
    experts: int
    slots: int
    gpus: int
    nodes: int = 1
    groups: int = 1
    """Groups of experts that a router may pick from; 1: no groups."""

    def __post_init__(self) -> None:
        for name in ("layers", "experts", "slots", "gpus", "nodes", "groups"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, expected at least 1")
        if self.slots < self.experts:
            raise ValueError(f"{self.slots} slots cannot hold {self.experts} experts")
        for whole, part in (("slots", "gpus"), ("gpus", "nodes"), ("experts", "groups")):
            if getattr(self, whole) % getattr(self, part):
                raise ValueError(f"{whole} ({getattr(self, whole)}) is no multiple of {part} ({getattr(self, part)})")

    @property
    def slots_per_gpu(self) -> int:
        return self.slots // self.gpus

    @property
    def gpus_per_node(self) -> int:
        return self.gpus // self.nodes

    @property
    def experts_per_group(self) -> int:
        return self.experts // self.groups

    @property
    def local_groups(self) -> bool:
        """Whether groups can stay on nodes: as many on each, and room for one copy of each of their experts."""
        return (
            self.groups % self.nodes == 0
            and self.groups // self.nodes * self.experts_per_group <= self.slots // self.nodes
        )

    @property
    def ungrouped(self) -> Shape:
        """The same problem with experts free to lie on any GPU: one group, one node."""
        return Shape(self.layers, self.experts, self.slots, self.gpus)

    @property
    def name(self) -> str:
        """Such as `58x256-288/32/4/8`: layers x experts - slots / GPUs / nodes / groups."""
        return f"{self.layers}x{self.experts}-{self.slots}/{self.gpus}/{self.nodes}/{self.groups}"


SHAPES: tuple[Shape, ...] = (
    Shape(58, 256, 288, 32, 4, 8),
    Shape(61, 256, 320, 64, 8, 8),
    Shape(94, 128, 160, 16, 2, 8),
    Shape(48, 512, 576, 64, 8, 8),
    Shape(58, 64, 288, 32, 4, 8),
)
"""DeepSeek-V3 on four and eight nodes, Qwen3-235B, Qwen3-Next on eight nodes, and the 64-expert public variant."""


@dataclass(frozen=True, slots=True)
class ExpertSize:
    """Dimensions of one routed expert: two matrices up (gate, up) and one down, `3 * hidden * intermediate` weights."""

    name: str
    hidden: int
    intermediate: int
    top_k: int
    """Experts per token."""

    @property
    def weights(self) -> int:
        return 3 * self.hidden * self.intermediate

    @property
    def flops_per_token(self) -> int:
        """Multiplications and additions of one token in one expert."""
        return 2 * self.weights


EXPERT_SIZES: dict[str, ExpertSize] = {
    size.name: size
    for size in (
        ExpertSize("deepseek_v3", 7168, 2048, 8),
        ExpertSize("qwen3_235b", 4096, 1536, 8),
        ExpertSize("small", 2048, 768, 8),
        ExpertSize("tiny", 64, 32, 4),
    )
}
"""`small` is for cheap screening on a GPU, `tiny` for the same code on CPUs."""
