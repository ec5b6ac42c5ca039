"""Which archives, parent rules and adaptations are worth having: equal budgets, paired seeds, a test fixed beforehand.

    python -m tests.benchmarks.search [--study FILE] [--landscapes smooth,prism] [--workers 2] [--out FILE.jsonl]

Runs what the study file says and the results file does not have yet, one line of JSON per run, then prints the tables
of everything that is there as Markdown. Islands, generator, screening, admission, migration and ledger are the real
ones; the journal is in memory. Synthetic landscapes are judged in this process (`landscapes.py`), tasks in the jail.

The final score of a run is that of its best program on train, judged without noise (synthetic) or on validation
(tasks), scaled so that 0 is the seed program and 1 the optimum or the task's proven bound.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adrs_ray.candidate import Completion, Evaluation
from adrs_ray.config import RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob, Evaluator
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.mutate import MutationModel
from adrs_ray.ledger import Ledger
from adrs_ray.local import LocalHost, make_models, turnstile
from adrs_ray.planting import Planting
from adrs_ray.prompt import TaskBrief
from adrs_ray.prompt.brief import brief_of
from adrs_ray.runner import IslandParts
from adrs_ray.storage.memory import MemoryJournal
from adrs_ray.task import describe_validation_error, load_task
from tests.benchmarks.landscapes import KINDS, Landscape, LandscapeEvaluator

STUDY = Path(__file__).with_name("search_study.yaml")
Scores: TypeAlias = NDArray[np.float64]

# -- the study file --------------------------------------------------------------------------------------------------


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Variant(_Section):
    name: str
    config: dict[str, Any] = Field(default_factory=dict, description="dotted keys that differ from the shipped default")
    search: Literal["evolve", "random"] = Field(default="evolve", description="random: every proposal from the seed")
    landscapes: list[str] | None = Field(default=None, description="where it says anything (default: everywhere)")


class Synthetic(_Section):
    landscapes: list[Literal["smooth", "deceptive", "noisy"]]
    candidates: int = Field(ge=10)
    tuning_seeds: list[int] = Field(min_length=10)
    held_out_seeds: list[int] = Field(min_length=10)


class Real(_Section):
    landscapes: list[str]
    candidates: int = Field(ge=10)
    seeds: list[int] = Field(min_length=2)
    variants: list[str]


class Test(_Section):
    statistic: Literal["mean"]
    resamples: int = Field(ge=1000)
    level: float = Field(gt=0.5, lt=1)
    rule: str


class Study(_Section):
    """What is run and what decides, fixed before it runs."""

    base: dict[str, Any]
    default: str
    synthetic: Synthetic
    real: Real
    test: Test
    variants: list[Variant]

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [variant.name for variant in self.variants]
        if len(set(names)) < len(names):
            raise ValueError("two variants have one name")
        if unknown := {self.default, *self.real.variants} - set(names):
            raise ValueError(f"{', '.join(sorted(unknown))}: not among the variants")
        if set(self.synthetic.tuning_seeds) & set(self.synthetic.held_out_seeds):
            raise ValueError("tuning and held-out seeds overlap")
        known = {*self.synthetic.landscapes, *self.real.landscapes}
        if unknown := {name for variant in self.variants for name in variant.landscapes or ()} - known:
            raise ValueError(f"{', '.join(sorted(unknown))}: not among the landscapes")
        for variant in self.variants:
            config_of(self, variant, 1000, 0)
        return self

    def variant(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)


def read_study(path: Path) -> Study:
    """Raises UsageError, one line, when it cannot be read or says something impossible."""
    try:
        return Study.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read study {path}: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        raise UsageError(f"{path}: {describe_validation_error(error)}") from None


def config_of(study: Study, variant: Variant, candidates: int, seed: int) -> RunConfig:
    """Of one run. Raises UsageError for a key or value that RunConfig does not take."""
    budget = {"budget.max_candidates": candidates, "seed": seed}
    return override(RunConfig(), {**study.base, **variant.config, **budget}, f"variant {variant.name}")


# -- one run ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    variant: str
    landscape: str
    seed: int
    config: RunConfig
    search: Literal["evolve", "random"]

    @property
    def key(self) -> str:
        """Changes with everything that decides the run, except the code."""
        text = json.dumps([self.landscape, self.seed, self.search, self.config.model_dump(mode="json")])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Result:
    key: str
    variant: str
    landscape: str
    seed: int
    score: float
    train: float
    """As the search saw it, not scaled for tasks."""
    evaluations: int
    failures: dict[str, int]
    cpu_s: float


class SeedOnly(MutationModel):
    """Random search: whoever is chosen as parent, the seed program is mutated."""

    def __init__(self, seed_source: str, redraws: int, max_mutations: int) -> None:
        super().__init__(redraws, max_mutations)
        self._seed_source = seed_source

    async def complete(self, request: GenerationRequest) -> Completion:
        return await super().complete(replace(request, operator="mutate", parents=(self._seed_source,)))


@dataclass(frozen=True, slots=True)
class Found:
    source: str
    train: float
    evaluations: int
    failures: dict[str, int]


async def search(job: Job, brief: TaskBrief, evaluator: Evaluator) -> Found:
    """The best program on train that a run finds."""
    config = job.config
    ledger = await Ledger.open(MemoryJournal(), config)
    await ledger.start_epoch()
    models = dict(make_models(config))
    if job.search == "random":
        models["mutate"] = SeedOnly(brief.seed_source, config.generator.redraws, config.generator.max_mutations)
    counting = CountingEvaluator(evaluator)
    parts = IslandParts(config, brief, models, counting, ledger, turnstile(evaluator, config))
    planting = Planting(parts, brief.name, asyncio.Event())
    await planting.settle(())
    await planting.grow()
    host = LocalHost(parts)
    await asyncio.gather(*(host.run_island(number) for number in range(config.islands.count)))
    status = await ledger.status()
    best = status.leaders[0]
    source = (await ledger.texts([best.source]))[best.source]
    return Found(source, best.score, counting.evaluations, dict(status.failures))


class CountingEvaluator:
    """Another evaluator, and how often it was asked."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator
        self.evaluations = 0
        self.slots = evaluator.slots

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Any:
        self.evaluations += 1
        return await self._evaluator.evaluate(job)

    async def close(self) -> None: ...


async def on_landscape(job: Job) -> tuple[Found, float]:
    """What was found, and its true score."""
    landscape = Landscape(next(kind for kind in KINDS if kind == job.landscape), job.seed)
    found = await search(job, landscape.brief, LandscapeEvaluator(landscape))
    return found, landscape.value(found.source)


async def on_task(job: Job) -> tuple[Found, float]:
    """What was found, and its score on validation, 0 being the seed's and 1 the bound of these tasks."""
    task = load_task(job.landscape)
    async with LocalEvaluator(task, job.config.evaluator) as evaluator:
        found = await search(job, brief_of(task, job.config), evaluator)
        verdicts = [
            await evaluator.evaluate(EvaluationJob("best", source, "validation"))
            for source in (task.seed_source, found.source)
        ]
    # A champion that fails on validation is worth nothing there.
    seed, best = (verdict.score if isinstance(verdict, Evaluation) else 0.0 for verdict in verdicts)
    return found, (best - seed) / (1.0 - seed)


def run(job: Job) -> Result:
    """One run, in this process."""
    before = _cpu_s()
    found, score = asyncio.run(on_landscape(job) if job.landscape in KINDS else on_task(job))
    spent = round(_cpu_s() - before, 3)
    return Result(
        job.key, job.variant, job.landscape, job.seed, score, found.train, found.evaluations, found.failures, spent
    )


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


# -- all runs --------------------------------------------------------------------------------------------------------


def jobs_of(study: Study, landscapes: Sequence[str], extra: Iterable[str] = ()) -> list[Job]:
    """Every run of the study on these landscapes: by seed first, so that a study that is cut off has whole seeds."""
    synthetic, real = study.synthetic, study.real
    pairs = zip(synthetic.tuning_seeds, synthetic.held_out_seeds, strict=True)
    plan = [(seed, synthetic.landscapes, synthetic.candidates) for pair in pairs for seed in pair]
    plan += [(seed, real.landscapes, real.candidates) for seed in real.seeds]
    tried_on_tasks = {*real.variants, *extra}
    return [
        Job(variant.name, name, seed, config_of(study, variant, candidates, seed), variant.search)
        for seed, names, candidates in plan
        for name in names
        if name in landscapes
        for variant in study.variants
        if (name in KINDS or variant.name in tried_on_tasks) and name in (variant.landscapes or [name])
    ]


def read_results(path: Path) -> dict[str, Result]:
    """By key; a last line that was cut off is left out."""
    results: dict[str, Result] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError):
            continue
        results[result.key] = result
    return results


def run_all(jobs: Sequence[Job], path: Path, workers: int) -> None:
    """Run what the file does not have, and append it."""
    known = read_results(path)
    missing = [job for job in jobs if job.key not in known]
    started, done = time.monotonic(), 0
    with (
        ProcessPoolExecutor(workers, get_context("spawn"), os.nice, (10,)) as pool,
        path.open("a", encoding="utf-8") as file,
    ):
        for future in as_completed([pool.submit(run, job) for job in missing]):
            file.write(json.dumps(asdict(future.result())) + "\n")
            file.flush()
            done += 1
            if done % 50 == 0 or done == len(missing):
                print(f"<!-- {done}/{len(missing)} runs, {time.monotonic() - started:.0f} s -->", flush=True)


# -- the test --------------------------------------------------------------------------------------------------------


class Table:
    """Scores by variant, landscape and seed, of one set of seeds."""

    def __init__(
        self, study: Study, results: Iterable[Result], landscapes: Sequence[str], seeds: Sequence[int]
    ) -> None:
        self.study = study
        self.landscapes = landscapes
        self._results = {
            (r.variant, r.landscape, r.seed): r for r in results if r.landscape in landscapes and r.seed in seeds
        }

    def variants(self, landscapes: Sequence[str]) -> list[str]:
        """Those that ran on each of these landscapes, in the order of the study."""
        ran = {key[:2] for key in self._results}
        return [v.name for v in self.study.variants if all((v.name, name) in ran for name in landscapes)]

    def mean(self, variant: str, landscapes: Sequence[str]) -> tuple[float, float, float]:
        """Mean final score over seeds, then over landscapes, with its interval."""
        return self._interval([self._column(variant, name) for name in landscapes])

    def difference(self, variant: str, other: str, landscapes: Sequence[str]) -> tuple[float, float, float]:
        """Mean of score less that of `other` on the same landscape seed, with its interval."""
        return self._interval(
            [
                {seed: a - others[seed] for seed, a in self._column(variant, name).items() if seed in others}
                for name in landscapes
                for others in [self._column(other, name)]
            ]
        )

    def best(self, landscapes: Sequence[str]) -> str:
        return max(self.variants(landscapes), key=lambda name: self.mean(name, landscapes)[0])

    def average(self, variant: str, landscapes: Sequence[str], what: Literal["cpu_s", "evaluations"]) -> float:
        return float(
            np.mean([getattr(r, what) for (v, n, _), r in self._results.items() if v == variant and n in landscapes])
        )

    def seeds(self, landscape: str) -> int:
        return len(self._column(self.study.default, landscape))

    def _column(self, variant: str, landscape: str) -> dict[int, float]:
        return {s: r.score for (v, n, s), r in sorted(self._results.items()) if (v, n) == (variant, landscape)}

    def _interval(self, groups: Sequence[Mapping[int, float]]) -> tuple[float, float, float]:
        test = self.study.test
        columns = [np.array(list(group.values())) for group in groups]
        return interval(columns, test.resamples, test.level)


def interval(groups: Sequence[Scores], resamples: int, level: float) -> tuple[float, float, float]:
    """Mean of the groups' means, and its percentile bootstrap interval: seeds are drawn anew within each group."""
    rng = np.random.default_rng(0)
    drawn = np.mean([group[rng.integers(len(group), size=(resamples, len(group)))].mean(1) for group in groups], axis=0)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(np.mean([group.mean() for group in groups])), float(low), float(high)


def challenger(study: Study, results: Iterable[Result]) -> str | None:
    """The variant with the highest mean on the tuning seeds; None before all landscapes have runs there."""
    table = Table(study, results, study.synthetic.landscapes, study.synthetic.tuning_seeds)
    return table.best(table.landscapes) if table.variants(table.landscapes) else None


# -- the tables ------------------------------------------------------------------------------------------------------


def markdown(study: Study, results: Sequence[Result]) -> str:
    """All tables, and what the rule says."""
    synthetic, real = study.synthetic, study.real
    held_out = Table(study, results, synthetic.landscapes, synthetic.held_out_seeds)
    tuning = Table(study, results, synthetic.landscapes, synthetic.tuning_seeds)
    tasks = Table(study, results, real.landscapes, real.seeds)
    parts: list[str] = []
    for title, table in (("Held-out seeds", held_out), ("Tuning seeds", tuning), ("Tasks", tasks)):
        names = [name for name in table.landscapes if study.default in table.variants([name])]
        if len(names) > 1:
            parts.append(rows(f"{title}, overall ({', '.join(names)})", table, names))
        if table is not tuning:
            parts += [rows(f"{title}, {name}", table, [name]) for name in names]
    chosen = challenger(study, results)
    if chosen is not None and chosen in held_out.variants(held_out.landscapes):
        parts.append(decision(study, chosen, held_out, tasks))
    return "\n".join(parts)


def rows(title: str, table: Table, landscapes: Sequence[str]) -> str:
    """One table, the best variant first."""
    default, best = table.study.default, table.best(landscapes)
    means = {name: table.mean(name, landscapes) for name in table.variants(landscapes)}
    lines = [
        f"### {title}, {table.seeds(landscapes[0])} seeds each",
        "",
        "| variant | archive | parents | adapts | final score | less the default | less the best | evaluations | CPU s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in sorted(means, key=lambda name: -means[name][0]):
        variant = table.study.variant(name)
        config = config_of(table.study, variant, 1000, 0)
        selector = config.selector
        kind = (selector.archive, selector.parents) if variant.search == "evolve" else ("-", "seed only")
        adapts = "yes" if config.adaptation.enabled else "no"
        mean = "{:.3f} [{:.3f}, {:.3f}]".format(*means[name])
        against = [_signed(table.difference(name, other, landscapes), name == other) for other in (default, best)]
        evaluations = table.average(name, landscapes, "evaluations")
        cpu_s = table.average(name, landscapes, "cpu_s")
        cells = (name, *kind, adapts, mean, *against, f"{evaluations:.0f}", f"{cpu_s:.1f}")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _signed(figures: tuple[float, float, float], same: bool) -> str:
    """A difference; bold where its interval excludes 0."""
    if same:
        return "-"
    text = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*figures)
    return f"**{text}**" if figures[1] > 0 or figures[2] < 0 else text


def decision(study: Study, chosen: str, held_out: Table, tasks: Table) -> str:
    """What the rule says of the default and of every choice."""
    lines = [
        "### What the rule says",
        "",
        " ".join(study.test.rule.split()),
        "",
        f"- Challenger (best on tuning seeds): `{chosen}`.",
    ]
    if chosen == study.default:
        lines.append("- It is the default, which stays.")
    else:
        gain = held_out.difference(chosen, study.default, held_out.landscapes)
        names = [name for name in tasks.landscapes if chosen in tasks.variants([name])]
        on_tasks = {name: tasks.difference(chosen, study.default, [name]) for name in names}
        worse = [name for name, figures in on_tasks.items() if figures[2] < 0]
        passes = gain[1] > 0 and not worse
        lines.append(f"- On held-out seeds it differs from `{study.default}` by {_signed(gain, False)}.")
        lines += [f"- On {name} it differs by {_signed(figures, False)}." for name, figures in on_tasks.items()]
        lines.append(f"- The default {'changes to it' if passes else 'stays'}.")
    lines += ["", "| choice | better than the default on | within noise of the best on | kept |", "|---|---|---|---|"]
    for variant in study.variants:
        if variant.name == study.default:
            continue
        names = [name for name in held_out.landscapes if variant.name in held_out.variants([name])]
        better = [n for n in names if held_out.difference(variant.name, study.default, [n])[1] > 0]
        near = [n for n in names if held_out.difference(variant.name, held_out.best([n]), [n])[2] >= 0]
        cells = (variant.name, ", ".join(better) or "-", ", ".join(near) or "-", "yes" if better or near else "no")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path, default=STUDY)
    parser.add_argument("--landscapes", help="comma-separated (default: all synthetic ones)")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("search_study.jsonl"), help="results, added to")
    options = parser.parse_args()
    try:
        study = read_study(options.study)
        names = options.landscapes.split(",") if options.landscapes else list(study.synthetic.landscapes)
        if unknown := set(names) - {*study.synthetic.landscapes, *study.real.landscapes}:
            raise UsageError(f"--landscapes: the study has no {', '.join(sorted(unknown))}")
    except UsageError as error:
        parser.error(str(error))
    found = challenger(study, read_results(options.out).values())
    jobs = jobs_of(study, names, [] if found is None else [found])
    run_all(jobs, options.out, options.workers)
    keys = {job.key for job in jobs_of(study, [*KINDS, *study.real.landscapes], [] if found is None else [found])}
    print(markdown(study, [r for key, r in read_results(options.out).items() if key in keys]))


if __name__ == "__main__":
    main()
