"""A full and a bare PromptContext: what users' templates are tried on before a run."""

from __future__ import annotations

from adrs_ray.prompt import (
    Attempt,
    MetricBrief,
    PromptContext,
    PromptOperator,
    ShownCase,
    ShownProgram,
    TaskBrief,
)

_SEED = """\
import heapq

# EVOLVE-BLOCK-START
WEIGHT = 1.0


def place(gpus, models):
    return {model: index % gpus for index, model in enumerate(models)}
# EVOLVE-BLOCK-END
"""

_TASK = TaskBrief(
    name="placement",
    summary="place models on GPUs so that the busiest one has little to do",
    statement="place(gpus, models) -> {model: gpu}. Every model is on exactly one GPU.",
    entry=("place",),
    seed_source=_SEED,
    metrics=(
        MetricBrief("makespan", "s", "min", "time until the last GPU is done, mean over cases"),
        MetricBrief("efficiency", "1", "max", "least possible makespan over makespan"),
    ),
    case_metric="makespan",
    banned_imports=("ortools",),
    limits="20 s wall time per case, 512 MB of memory, 4 threads",
    hints=("Large models are hard to place late.",),
    noisy=True,
)

_PARENT = ShownProgram(
    candidate="0-17",
    source=_SEED,
    score=0.8125,
    metrics={"makespan": 12.5, "efficiency": 0.8125},
    cases=tuple(ShownCase(f"train-{n}", {"makespan": float(n), "efficiency": 1 / n}) for n in (1, 9, 4, 2)),
    artifacts={"stdout": "placed 12 models"},
    note="round robin by size",
)

_FAILED = ShownProgram(
    candidate="0-18",
    source=_SEED.replace("% gpus", "% (gpus - 1)"),
    failure="crash: ZeroDivisionError: integer modulo by zero (line 8)",
    failed_case="train-2",
    artifacts={"traceback": '  File "<candidate>", line 8, in place\nZeroDivisionError: integer modulo by zero'},
    note="one GPU kept free",
)

_PARTNER = ShownProgram(
    candidate="0-9",
    source=_SEED.replace("WEIGHT = 1.0", "WEIGHT = 2.0"),
    score=0.75,
    metrics={"makespan": 13.0, "efficiency": 0.75},
    cases=(ShownCase("train-9", {"makespan": 5.0}), ShownCase("train-1", {"makespan": 2.0})),
)


def example(operator: PromptOperator) -> PromptContext:
    """A context in which everything that the operator may tell is there."""
    return PromptContext(
        task=_TASK,
        parent=_FAILED if operator == "fix" else _PARENT,
        partner=_PARTNER if operator == "crossover" else None,
        inspirations=(_PARTNER, _FAILED),
        attempts=(
            Attempt("0-11", "diff", "sort by size", gain=0.0125),
            Attempt("0-12", "rewrite", "local search", failure="timeout: train-9 took more than 20 s"),
            Attempt("0-13", "crossover", "", gain=-0.5),
            Attempt("0-14", "diff", "sort by name", gain=0.0),
            Attempt("0-15", "diff", "was lost"),
        ),
        hints=("look at the busiest GPU",),
        scratchpad="Worked: sorting. Failed: long searches.",
    )


def bare_example(operator: PromptOperator) -> PromptContext:
    """A context in which nothing is there that may be missing."""
    task = TaskBrief("bare", "a task that says little", "", (), "def run():\n    return 0\n")
    needs_parent = operator not in ("seed_different", "paradigm_shift", "summarize")
    return PromptContext(task, parent=ShownProgram("seed-0", task.seed_source) if needs_parent else None)
