"""What the columns of each table of results are, in which unit, and which way is better."""

from __future__ import annotations

_SHAPE = "shape: layers x experts - slots / GPUs / nodes / groups"
EPLB = (
    f"{_SHAPE}. Balance is mean over largest load of a GPU, sums over layers: 1 is even, more is better. same: in the "
    "window that the placement was made from; next: in the one after it; bound: what no placement exceeds. slots "
    "(paper): likewise over slots, which cannot see how they are packed. ms of one call, median [95 % interval], less "
    "is better. duplicates: slots that repeat an expert on their GPU; off group: slots off their group's node."
)
MOE_PLACEMENT = (
    f"{_SHAPE}. Less is better in all columns. total = steps + moves, of the whole trace; moves: by how much copies of "
    "weights lengthened steps; decisions run beside the steps and only delay a change. GiB per GPU: weights that a GPU "
    "fetched, mean over GPUs. Total over that of never moving (/ never), of DeepSeek's rule after every window with "
    "the decision time of vLLM's code (/ deepseek every), and of LPT made in advance for each window, its moves free "
    "(/ oracle: no bound, others may undercut it)."
)
MULTI_GPU = (
    "step: the slowest process's, median [95 % interval]; model: what one GPU and a bandwidth model foretold; moved "
    "GiB: received by the process that received most; slow-down: steps beside moves over steps alone. Less is better."
)
FIDELITY = (
    "Spearman: rank correlation of the programs' seconds, 1 where both put them in one order; median error: of "
    "|cheap / dear - 1|, less is better."
)
