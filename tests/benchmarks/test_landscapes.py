"""The landscapes that the search is measured on, and what the benchmark makes of results."""

import asyncio
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.generator import GenerationRequest
from adrs_ray.generator.mutate import MutationModel
from tests.benchmarks.landscapes import (
    CASES,
    DIMENSIONS,
    KINDS,
    LOCAL_OPTIMUM,
    LOWEST,
    SEED,
    Landscape,
    LandscapeEvaluator,
    ProgramError,
    point_of,
)
from tests.benchmarks.search import SeedOnly, run, search
from tests.benchmarks.search_study import (
    STUDY,
    Job,
    Result,
    config_of,
    confirming_jobs,
    read_results,
    read_study,
    screening_jobs,
)
from tests.benchmarks.search_tables import challenger, interval, markdown


def mutant(parent: str, *key: int) -> str:
    request = GenerationRequest(candidate="a", operator="mutate", parents=(parent,), rng_key=key)
    return asyncio.run(MutationModel().complete(request)).text or parent


def verdict(landscape: Landscape, source: str, repeat: int = 0) -> Evaluation | Failure:
    return asyncio.run(LandscapeEvaluator(landscape).evaluate(EvaluationJob("a", source, repeat=repeat)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_program_scores_0_and_the_optimum_1(kind):
    for seed in range(20):
        landscape = Landscape(kind, seed)
        assert landscape.value(SEED) == pytest.approx(0.0, abs=1e-12)
        assert landscape.figures(landscape.optimum) == pytest.approx(np.ones(CASES))


@given(st.sampled_from(KINDS), st.integers(0, 50), st.lists(st.floats(-20, 20), min_size=6, max_size=6))
def test_nothing_scores_above_the_optimum(kind, seed, point):
    figures = Landscape(kind, seed).figures(np.array(point))
    assert figures.shape == (CASES,)
    assert ((figures >= LOWEST) & (figures <= 1.0)).all()


def test_the_wide_basin_leads_away_from_the_optimum():
    landscape = Landscape("deceptive", 3)
    start, goal = point_of(SEED), landscape.optimum
    away = landscape.figures(start - 0.5 * (goal - start))
    towards = landscape.figures(start + 0.2 * (goal - start))
    assert (away > 0).sum() >= (towards > 0).sum()
    assert away.mean() > towards.mean()
    assert away.max() <= LOCAL_OPTIMUM


def test_noise_differs_between_repeats_and_is_the_same_when_a_repeat_is_asked_again():
    landscape = Landscape("noisy", 5)
    first, again, second = (verdict(landscape, SEED, repeat) for repeat in (0, 0, 1))
    assert first == again
    assert isinstance(first, Evaluation)
    assert isinstance(second, Evaluation)
    assert first.score != second.score
    scores = [verdict(landscape, SEED, repeat).score for repeat in range(200)]  # type: ignore[union-attr]
    assert np.mean(scores) == pytest.approx(landscape.value(SEED), abs=0.05)
    assert verdict(Landscape("smooth", 5), SEED, 0) == verdict(Landscape("smooth", 5), SEED, 1)


def test_whatever_the_mutator_makes_gets_a_verdict():
    landscape, program, points = Landscape("smooth", 1), SEED, set()
    for step in range(60):
        program = mutant(program, 7, step)
        result = verdict(landscape, program)
        if isinstance(result, Failure):
            program = SEED
            continue
        assert len(result.cases) == CASES
        points.add(tuple(point_of(program)))
    assert len(points) > 20


@pytest.mark.parametrize(
    "body",
    [
        "while True:\n        pass",
        "return policy()",
        "return 10 ** 10 ** 10",
        "return [1] * 10",
        "return [1.0, 2.0]",
        f"return [{', '.join(['1e300'] * DIMENSIONS)}]",
        f"return [{', '.join(['1 / 0'] * DIMENSIONS)}]",
        "return open('/etc/passwd')",
        "return [[1.0], 2, 3, 4, 5, 6]",
        "return x",
        "x = 1",
        "return " + "-" * 5000 + "1",
        "return (1 +",
        f"return [{', '.join(['sorted'] * DIMENSIONS)}]",
    ],
)
def test_a_program_that_gives_no_point_is_a_failure_and_never_runs(body):
    source = f"def policy():\n    {body}\n"
    with pytest.raises(ProgramError):
        point_of(source)
    assert isinstance(verdict(Landscape("smooth", 0), source), Failure)
    assert Landscape("smooth", 0).value(source) == LOWEST


def test_random_search_mutates_the_seed_whoever_the_parents_are():
    model = SeedOnly(SEED, 20, 3)
    crossed = GenerationRequest(candidate="a", operator="crossover", parents=(mutant(SEED, 1), SEED), rng_key=(4,))
    assert asyncio.run(model.complete(crossed)).text == mutant(SEED, 4)


def test_a_run_is_repeatable_and_its_score_free_of_noise():
    study = read_study(STUDY)
    config = config_of(study, study.variant("grid"), 25, 3)
    job = Job("grid", "noisy", 3, config, "evolve")
    first, second = run(job), run(job)
    assert replace(first, cpu_s=0.0) == replace(second, cpu_s=0.0)
    assert first.evaluations > 25
    assert first.score != first.train


def test_islands_share_the_budget_evenly():
    counted: Counter[str] = Counter()

    class Recording(LandscapeEvaluator):
        async def evaluate(self, job: EvaluationJob) -> Evaluation | Failure:
            counted[job.candidate.split("-")[0]] += 1
            return await super().evaluate(job)

    study = read_study(STUDY)
    config = config_of(study, study.variant("islands-4"), 41, 3)
    landscape = Landscape("smooth", 3)
    asyncio.run(search(Job("islands-4", "smooth", 3, config, "evolve"), landscape.brief, Recording(landscape)))
    assert counted == {"seed": 1, "0": 10, "1": 10, "2": 10, "3": 10}


def test_the_study_that_ships_names_each_run_once():
    study = read_study(STUDY)
    everywhere = [*study.synthetic.landscapes, *study.real.landscapes]
    screening, confirming = screening_jobs(study, everywhere), confirming_jobs(study, everywhere, "grid+ucb")
    assert len({job.key for job in screening + confirming}) == len(screening + confirming)
    assert {job.variant for job in screening} == {variant.name for variant in study.variants}
    assert {job.variant for job in confirming if job.landscape == "smooth"} == {
        "grid",
        "grid+ucb",
        *study.synthetic.held_out_variants,
    }
    assert {job.variant for job in confirming if job.landscape == "prism"} == {*study.real.variants, "grid+ucb"}
    assert {job.landscape for job in screening_jobs(study, ["noisy", "prism"])} == {"noisy"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 3}, "seed"),
        ({"default": "nobody"}, "nobody: not among the variants"),
        ({"variants": [{"name": "grid"}, {"name": "grid"}]}, "two variants have one name"),
        ({"variants": [{"name": "grid", "config": {"selector.archive": "heap"}}]}, "heap|archive"),
    ],
)
def test_a_mistake_in_a_study_file_is_one_clear_line(tmp_path, change, said):
    data = yaml.safe_load(STUDY.read_text())
    data["real"]["variants"] = data["synthetic"]["held_out_variants"] = []
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data | change))
    with pytest.raises(UsageError, match=said) as error:
        read_study(path)
    assert "\n" not in str(error.value)


def test_results_are_read_back_and_a_torn_last_line_is_left_out(tmp_path):
    path = tmp_path / "results.jsonl"
    line = '{"key": "k", "variant": "grid", "landscape": "smooth", "seed": 1, "score": 0.5, "train": 0.5, '
    path.write_text(line + '"evaluations": 9, "failures": {}, "cpu_s": 1.0}\n' + line)
    assert read_results(tmp_path / "missing") == {}
    assert read_results(path) == {"k": Result("k", "grid", "smooth", 1, 0.5, 0.5, 9, {}, 1.0)}


def test_intervals_hold_the_mean_and_narrow_with_more_seeds():
    few, many = np.linspace(0, 1, 10), np.tile(np.linspace(0, 1, 10), 10)
    mean, low, high = interval([few], 2000, 0.95)
    assert mean == pytest.approx(0.5)
    assert low < mean < high
    _, narrow_low, narrow_high = interval([many], 2000, 0.95)
    assert narrow_high - narrow_low < high - low
    assert interval([np.full(10, 0.2), np.full(10, 0.4)], 2000, 0.95) == pytest.approx((0.3, 0.3, 0.3))


def results_with(lead: float, on_tasks: float | None) -> list[Result]:
    """Of `grid`, and of `topk` that leads it on every seed by `lead` give or take a tenth."""
    study = read_study(STUDY)
    seeds = (*study.synthetic.screening_seeds, *study.synthetic.held_out_seeds)
    plan = [(name, seed, lead) for name in study.synthetic.landscapes for seed in seeds]
    if on_tasks is not None:
        plan += [(name, seed, on_tasks) for name in study.real.landscapes for seed in study.real.seeds]
    found = []
    for name, seed, ahead in plan:
        base = 0.3 + 0.02 * (seed % 10)
        for variant, score in (("grid", base), ("topk", base + ahead + 0.1 * (-1) ** seed)):
            found.append(Result(f"{variant}{name}{seed}", variant, name, seed, score, score, 9, {}, 1.0))
    return found


@pytest.mark.parametrize(
    ("lead", "on_tasks", "outcome"),
    [
        (0.2, 0.0, "changes to it."),
        (0.2, -0.2, "stays."),
        (0.2, None, "changes to it if the tasks agree"),
        (0.001, 0.2, "stays."),
    ],
)
def test_the_default_changes_only_to_a_challenger_that_is_better_beyond_chance(lead, on_tasks, outcome):
    study = read_study(STUDY)
    results = results_with(lead, on_tasks)
    assert challenger(study, results) == "topk"
    assert f"The default {outcome}" in markdown(study, results)


def test_without_results_there_is_no_challenger_and_no_table():
    study = read_study(STUDY)
    assert challenger(study, []) is None
    assert markdown(study, []) == ""


def test_a_handful_of_runs_makes_no_table():
    study = read_study(STUDY)
    few = [r for r in results_with(0.2, None) if r.seed in study.synthetic.screening_seeds[:4]]
    assert challenger(study, few) is None
    assert markdown(study, few) == ""
