"""The task prism through the evaluator: hacks fail or change nothing, public programs run, both scorings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import Split, Task

from .test_prism import LONE_MODEL, PAPER, TASK, answering, judged, source_of

TAMPERS = """
import sys

for module in list(sys.modules.values()):
    if hasattr(module, "GPU_MEM_SIZE"):
        module.GPU_MEM_SIZE = 10**9
    if getattr(module, "ENTRY", None) == "compute_model_placement":
        REAL = module._plain
        module._plain = lambda *given: {**REAL(*given), "efficiency": 9.0, "figures": [[[0.0, 0.0, 1.0]]]}
        module._figures = lambda model: [0.0, 0.0, 1.0]
"""
"""Changes the adapter in its own process, then answers as any other program."""

LOOKS_FOR_THE_JUDGE = f"""
import sys

def found():
    names = [name for name in sys.modules if name.endswith((".judge", ".optimum", ".splits", ".families", ".packing"))]
    for name in ("judge.py", "optimum.py", "splits.py", "standings.json", "baselines/multifit.py"):
        try:
            names.append(open({str(TASK.folder)!r} + "/" + name).read())
        except OSError:
            pass
    for name in [name for name in sys.modules if name.endswith(".adapter")]:
        try:
            names.append(__import__(name.replace(".adapter", ".optimum"), fromlist=["optimum"]))
        except (ImportError, OSError):
            pass
    return names
"""
"""Answers best when it finds nothing."""

HACKS: Mapping[str, tuple[str, FailureKind]] = {
    "one model only": (LONE_MODEL, FailureKind.INVALID),
    "nothing": (answering("{}"), FailureKind.INVALID),
    "one GPU more": (answering("{**good, gpu_num: [good[0].pop()]}"), FailureKind.INVALID),
    "negative GPU": (answering("{g - 1: ms for g, ms in good.items()}"), FailureKind.INVALID),
    "truth values as GPUs": (answering("{g == 1 if g < 2 else g: ms for g, ms in good.items()}"), FailureKind.INVALID),
    "a model twice": (answering("{g: [*ms, *ms] for g, ms in good.items()}"), FailureKind.INVALID),
    "over memory": (answering("{0: models}"), FailureKind.INVALID),
    "filled to the last GB": (source_of("first_fit_naive"), FailureKind.INVALID),
    "sizes forged": (answering("{0: models}", "[setattr(m, 'model_size', 0) for m in models]"), FailureKind.INVALID),
    "objects forged": (
        answering("{0: [Model('small', 1, 1, 9, 0)]}", "from evaluator import Model"),
        FailureKind.INVALID,
    ),
    "fails on hard problems": (
        source_of("strong").replace("    by_size", "    assert gpu_num < 9\n    by_size", 1),
        FailureKind.CRASH,
    ),
    "no dict": (answering("models"), FailureKind.OUTPUT),
    "not a function": ("compute_model_placement = 3\n", FailureKind.INTERFACE),
    "adapter forged": (
        TAMPERS.replace("{**REAL(*given), ", "{'gpus': [], 'models': [], ") + answering("good"),
        FailureKind.INVALID,
    ),
}

TYPED_WITH_CLASSES = '''
"""As a user would bring it: type hints, a helper class, a check at the end."""
from __future__ import annotations
from dataclasses import dataclass, field
from typing import Dict, List

GPU_MEM_SIZE = 80  # GB

# EVOLVE-BLOCK-START
@dataclass
class Gpu:
    gpu_id: int
    members: List = field(default_factory=list)

    @property
    def kvpr(self) -> float:
        free = GPU_MEM_SIZE - sum(m.model_size for m in self.members)
        return sum(m.req_rate / m.slo for m in self.members) / free if free > 0 else float("inf")

def compute_model_placement(gpu_num: int, models: List) -> Dict[int, List]:
    gpus = [Gpu(i) for i in range(gpu_num)]
    for model in sorted(models, key=lambda m: (m.model_size, m.req_rate / m.slo, m.model_name), reverse=True):
        def after(gpu):
            return Gpu(-1, gpu.members + [model]).kvpr
        min(gpus, key=after).members.append(model)
    return {gpu.gpu_id: gpu.members for gpu in gpus}
# EVOLVE-BLOCK-END

if __name__ == "__main__":
    print(compute_model_placement(1, []))
'''

FROM_EVALUATOR = """
import copy
import numpy as np
from evaluator import GPU_MEM_SIZE, Model

def compute_model_placement(gpu_num, models):
    assert all(isinstance(m, Model) for m in models)
    assert all(m.cur_gpu_id in range(gpu_num) for m in models)
    used = np.zeros(gpu_num)
    placement = {}
    for m in sorted(copy.deepcopy(models), key=lambda m: -m.model_size):
        gpu = np.argmin(used)
        if used[gpu] + m.model_size >= GPU_MEM_SIZE:
            gpu = next(g for g in range(gpu_num) if used[g] + m.model_size < GPU_MEM_SIZE)
        used[gpu] += m.model_size
        placement.setdefault(gpu, []).append(m)
    return placement
"""

SHUFFLES = """
import random
from collections import defaultdict

GPU_MEM_SIZE = 80

def compute_model_placement(gpu_num, models):
    best, least = None, float("inf")
    order = sorted(models, key=lambda m: m.model_size, reverse=True)
    for trial in range(5):
        placement, free, demand = defaultdict(list), [GPU_MEM_SIZE] * gpu_num, [0] * gpu_num
        for model in order:
            fitting = [g for g in range(gpu_num) if free[g] > model.model_size]
            if not fitting:
                break
            gpu = min(fitting, key=lambda g: (demand[g] + model.req_rate / model.slo) / (free[g] - model.model_size))
            placement[gpu].append(model)
            free[gpu] -= model.model_size
            demand[gpu] += model.req_rate / model.slo
        else:
            largest = max(d / f for d, f in zip(demand, free))
            if largest < least:
                best, least = placement, largest
        i, j = random.randrange(len(order)), random.randrange(len(order))
        order[i], order[j] = order[j], order[i]
    return best
"""

PUBLIC_STYLE = (TYPED_WITH_CLASSES, FROM_EVALUATOR, SHUFFLES)


def verdicts(*sources: str, task: Task = TASK, split: Split = "train") -> list[Verdict]:
    """Verdicts from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(task, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            jobs = [EvaluationJob(f"c{i}", source, split) for i, source in enumerate(sources)]
            return [await evaluator.evaluate(job) for job in jobs]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


def test_hacks_end_in_the_right_failure() -> None:
    found = verdicts(*(source for source, _ in HACKS.values()))
    kinds = {name: v.kind if isinstance(v, Failure) else v for name, v in zip(HACKS, found, strict=True)}
    assert kinds == {name: kind for name, (_, kind) in HACKS.items()}


def test_a_hack_in_an_evaluator_of_its_own_says_what_was_wrong() -> None:
    try:
        verdict = evaluate_once(TASK, LONE_MODEL, "train", EvaluatorConfig())
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.INVALID
    assert "1 of" in verdict.detail
    assert "models placed, model_0 is missing" in verdict.detail


def test_tampering_on_the_candidates_side_changes_no_score() -> None:
    medium = source_of("medium")
    rewrites = medium.replace(
        "    return placement\n\n\n# EVOLVE",
        "    for model in models:\n        model.model_size = model.req_rate = 0\n    return placement\n\n\n# EVOLVE",
    )
    looks = LOOKS_FOR_THE_JUDGE + medium.replace("    by_size", "    assert not found(), found()\n    by_size", 1)
    assert rewrites != medium
    for verdict in verdicts(medium, rewrites, TAMPERS + medium, looks):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(medium, "train").score
        assert verdict.trust == "verified"


def test_public_style_programs_run_unchanged_and_score_as_in_this_process() -> None:
    sources = [*PUBLIC_STYLE, *(path.read_text() for path in TASK.seeds().values()), source_of("multifit")]
    for source, verdict in zip(sources, verdicts(*sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(source, "train").score
        assert verdict.score <= verdict.metrics["score_bound"]


def test_paper_scoring_through_the_evaluator() -> None:
    greedy, lone = verdicts(source_of("greedy"), LONE_MODEL, task=PAPER, split="test")
    assert isinstance(greedy, Evaluation), greedy
    assert greedy.score == pytest.approx(21.891622105209393, rel=1e-9)
    assert isinstance(lone, Evaluation), lone
    assert lone.score == pytest.approx(368.47797724979847, rel=1e-9)
