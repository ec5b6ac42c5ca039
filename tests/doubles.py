"""Stand-ins at the edges of the loop: a model that edits a literal, an evaluator that reads it."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from adrs_ray.candidate import CaseResult, Completion, Evaluation, Failure, FailureKind, Usage, Verdict
from adrs_ray.config import RunConfig, override
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.generator import GenerationRequest
from adrs_ray.local import turnstile
from adrs_ray.prompt import TaskBrief
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandLedger, IslandParts
from adrs_ray.task import SPLITS, Split, Task, TaskSpec

SEED = "# EVOLVE-BLOCK-START\nVALUE = 1\n# EVOLVE-BLOCK-END\n"


def stub_task(splits: tuple[Split, ...] = SPLITS, seed: str = SEED) -> Task:
    class NoJudge:
        pass

    spec = TaskSpec(name="stub", summary="the larger VALUE the better", splits=splits)
    return Task(spec, Path("/nowhere"), "native", seed, Path("/nowhere"), NoJudge)  # type: ignore[arg-type]


def stub_brief(seed: str = SEED) -> TaskBrief:
    return brief_of(stub_task(seed=seed), RunConfig())


class LiteralModel:
    """Adds a number to the parent's VALUE: 0 to 3, so that duplicates happen. Answers in the form it is asked in."""

    name = "literal"
    durable = False

    def __init__(self, redraws: int = 2, paid: bool = False, delay_s: float = 0.0) -> None:
        self.redraws = redraws
        self.paid = paid
        self.delay_s = delay_s
        self.calls = 0
        self.requests: list[GenerationRequest] = []

    def worst(self, request: GenerationRequest) -> Usage:
        return Usage(tokens_in=100, tokens_out=100, usd=0.02) if self.paid else Usage()

    async def complete(self, request: GenerationRequest) -> Completion:
        self.calls += 1
        self.requests.append(request)
        await asyncio.sleep(self.delay_s)
        usage = Usage(tokens_in=60, tokens_out=40, usd=0.01) if self.paid else Usage()
        if request.form == "text":
            return Completion("larger is better", self.name, request.operator, usage=usage)
        step = sum(request.rng_key) * 7919 % 4
        if step == 3 and len(request.rng_key) == 3:
            return Completion(None, self.name, "literal", "nothing came to mind", usage=usage)
        found = re.search(r"VALUE =(?: =)* (\d+)", request.parents[0])
        assert found is not None
        value = f"VALUE = {int(found[1]) + step}"
        text = re.sub(r"VALUE =(?: =)* \d+", value, request.parents[0])
        if request.form == "diff":
            text = f"Idea: add {step}\n<<<<<<< SEARCH\n{found[0]}\n=======\n{value}\n>>>>>>> REPLACE\n"
        elif request.form == "rewrite":
            text = f"Idea: add {step}\n```python\n{text}```\n"
        return Completion(text, self.name, "literal", usage=usage)

    async def close(self) -> None: ...


def asking(config: RunConfig) -> RunConfig:
    """The config with two models behind servers that nobody asks: doubles stand in for them."""
    server = {"base_url": "http://127.0.0.1:9/v1", "usd_per_mtok_in": 1.0, "usd_per_mtok_out": 1.0}
    models = {"small": {"model": "s", **server}, "strong": {"model": "l", **server}}
    return override(config, {"generator.kind": "openai", "models": models, "generator.summarize_every": 5})


def parts_for(
    config: RunConfig,
    ledger: IslandLedger,
    model: LiteralModel | None = None,
    evaluator: Evaluator | None = None,
    brief: TaskBrief | None = None,
) -> IslandParts:
    """Islands over doubles; every model of the config is the same one."""
    model = model or LiteralModel()
    models = dict.fromkeys(["mutate", *config.models], model)
    evaluator = evaluator or LiteralEvaluator()
    return IslandParts(config, brief or stub_brief(), models, evaluator, ledger, turnstile(evaluator, config))


class LiteralEvaluator:
    """Scores VALUE; every tenth value is a crash, every eleventh costs an attempt."""

    def __init__(self, slots: int = 2, delay_s: float = 0.0, cap: float = float("inf")) -> None:
        self._slots = slots
        self._cap = cap
        self.delay_s = delay_s
        self.jobs: list[EvaluationJob] = []
        self.busy = 0
        self.most_busy = 0

    @property
    def slots(self) -> int:
        return self._slots

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        self.jobs.append(job)
        self.busy += job.split == "train"
        self.most_busy = max(self.most_busy, self.busy)
        await asyncio.sleep(self.delay_s)
        self.busy -= job.split == "train"
        found = re.search(r"VALUE = (\d+)", job.source)
        assert found is not None
        value = int(found[1])
        attempts = job.attempts + 1 + (value % 11 == 10)
        if value % 10 == 9:
            return Failure(FailureKind.CRASH, "nine", "case", attempts=attempts)
        score = min(float(value), self._cap) if job.split == "train" else -float(value % 7)
        return Evaluation(
            score, {"value": score}, (CaseResult("case", {}, 0.0, 0.0),), "unsafe", 0.0, attempts=attempts
        )

    async def close(self) -> None: ...
