"""The task prism in this process: exact optima, what the judge refuses, splits, programs, the public figures."""

from __future__ import annotations

import ast
import hashlib
import json
import random
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    Split,
    Task,
    UsageError,
    data_dirs,
    load_task,
)

from .literal_prism import largest_kvpr, least_kvpr

TASK = load_task("prism")
PAPER = load_task("prism", scoring="paper")
ADAPTER = import_private(TASK.folder, "adapter")
PROBLEM = import_private(TASK.folder, "problem")
OPTIMUM = import_private(TASK.folder, "optimum")
PACKING = import_private(TASK.folder, "packing")
SPLIT_MODULE = import_private(TASK.folder, "splits")

DIGESTS = {
    "train": "1c3ea4c3af17c47e",
    "validation": "b5f387cdc40a8c84",
    "test": "4c82e8a3acd92942",
    "stress": "9f69d30ec82e9f0f",
}
"""Of all problems of a split, in order."""

MODEL = st.tuples(st.integers(1, 60), st.integers(1, 50), st.integers(1, 10))


def run(source: str, case: Case) -> dict[str, Any]:
    random.seed(case.seed)
    np.random.seed(case.seed)
    return ADAPTER.run(program(source), case.public)  # type: ignore[no-any-return]


def program(source: str) -> ModuleType:
    """As the evaluator loads it: a module that can be looked up by its name."""
    module = ModuleType("prism_candidate")
    sys.modules[module.__name__] = module
    exec(compile(source, "<candidate>", "exec"), module.__dict__)
    return module


@cache
def cases(split: Split, scoring: str = "sound") -> tuple[Case, ...]:
    return tuple((TASK if scoring == "sound" else PAPER).judge.cases(split))


def judged(source: str, split: Split, scoring: str = "sound") -> Combined:
    judge = (TASK if scoring == "sound" else PAPER).judge
    return judge.combine([CaseResult(c.id, judge.score(c, run(source, c)), 0.25, 0.5) for c in cases(split, scoring)])


def source_of(name: str, task: Task = TASK) -> str:
    return task.programs()[name].read_text()


def answering(expression: str, before: str = "") -> str:
    """A program that answers `expression` of `gpu_num`, `models` and a valid placement `good`."""
    good = source_of("first_fit_decreasing").replace("compute_model_placement", "first_fit_decreasing")
    return (
        f"{good}\n\ndef compute_model_placement(gpu_num, models):\n"
        f"    good = first_fit_decreasing(gpu_num, models)\n    {before or 'pass'}\n    return {expression}\n"
    )


LONE_MODEL = answering("{0: [min(models, key=lambda m: m.req_rate / m.slo)]}")


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.integers(1, 3), st.lists(MODEL, min_size=1, max_size=6))
def test_the_optimum_is_that_of_trying_every_placement(gpu_num: int, models: list[tuple[int, int, int]]) -> None:
    problem = PROBLEM.Problem(gpu_num, np.array(models, np.int64))
    least = least_kvpr(gpu_num, models)
    if least == 1e6:
        with pytest.raises(ValueError, match="cannot be placed"):
            OPTIMUM.optimum(problem)
        return
    found = OPTIMUM.optimum(problem)
    assert float(found.pressure) == pytest.approx(least, rel=1e-12)
    assert sorted(m for group in found.members for m in group) == list(range(len(models)))
    assert largest_kvpr(dict(enumerate(found.members)), models) == pytest.approx(least, rel=1e-12)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(MODEL, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_exact_pressures_are_the_literal_ones(models: list[tuple[int, int, int]], rng: random.Random) -> None:
    problem = PROBLEM.Problem(5, np.array(models, np.int64))
    placement: dict[int, list[int]] = {}
    for m in range(len(models)):
        placement.setdefault(rng.randrange(5), []).append(m)
    literal = largest_kvpr(placement, models)
    if literal == 1e6:
        with pytest.raises(ValueError, match="expected less than 80"):
            problem.pressure(placement)
    else:
        assert float(problem.pressure(placement)) == pytest.approx(literal, rel=1e-12)


@settings(max_examples=30, derandomize=True, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 3), st.integers(1, 20))
def test_packing_answers_as_sums_of_all_subsets_do(sizes: list[int], bins: int, capacity: int) -> None:
    ordered = sorted(sizes, reverse=True)
    reachable = {(0,) * bins}
    for size in ordered:
        rooms = ([*room[:b], room[b] + size, *room[b + 1 :]] for room in reachable for b in range(bins))
        reachable = {tuple(sorted(room)) for room in rooms if max(room) <= capacity}
    bin_of = np.empty(len(sizes), np.int64)
    answer = PACKING.pack(np.array(ordered, np.int64), bins, capacity, 10**6, bin_of)
    assert answer == (PACKING.FITS if reachable else PACKING.DOES_NOT_FIT)
    if reachable:
        assert np.bincount(bin_of, weights=ordered, minlength=bins).max() <= capacity


def test_a_search_that_is_cut_short_says_so_and_proves_nothing() -> None:
    problem = SPLIT_MODULE.problems("train")[6].problem
    with pytest.raises(OPTIMUM.NotProven, match="within 3 placements"):
        OPTIMUM.optimum(problem, max_nodes=3)


def test_public_problems_are_the_recorded_ones() -> None:
    path = next((p for folder in data_dirs() if (p := folder / "prism_cases.json").is_file()), None)
    if path is None:
        pytest.skip("needs prism_cases.json in ADRS_DATA_DIR: the problems are generated, this only compares")
    recorded = json.loads(path.read_text())["cases"]
    found = [
        {"gpu_num": named.problem.gpu_num, "models_size_rate_slo": named.problem.models.tolist()}
        for named in SPLIT_MODULE.problems("test")
    ]
    assert found == recorded


@pytest.mark.parametrize(
    ("name", "mean", "inverse", "first"),
    [
        ("round_robin", 0.06183800512015553, 16.171284925135126, 0.08916666666666666),
        ("first_fit_naive", 320001.13123966707, 3.1249889527766795e-06, 1.0229166666666667),
        ("greedy", 0.0478660773665175, 20.891622105209393, 0.05782312925170068),
    ],
)
def test_paper_scoring_gives_the_recorded_public_figures(name: str, mean: float, inverse: float, first: float) -> None:
    combined = judged(source_of(name), "test", "paper")
    assert combined.metrics["mean_max_kvpr"] == pytest.approx(mean, rel=1e-9)
    assert combined.score == pytest.approx(inverse + 1.0, rel=1e-9)
    case = cases("test", "paper")[0]
    alone = Case(case.id, case.seed, {**case.public, "problems": case.public["problems"][:1]})
    assert PAPER.judge.score(alone, run(source_of(name), alone))["kvpr_sum"] == pytest.approx(first, rel=1e-9)


def test_paper_scoring_keeps_the_public_faults() -> None:
    assert judged(LONE_MODEL, "test", "paper").score == pytest.approx(368.47797724979847, rel=1e-9)
    drops = source_of("greedy").replace("    placement =", "    assert gpu_num != 5\n    placement =", 1)
    dropped = judged(drops, "test", "paper")
    assert dropped.metrics["success_rate"] == fmean(n.problem.gpu_num != 5 for n in SPLIT_MODULE.problems("test"))
    forged = judged(answering("good", "[setattr(m, 'req_rate', 1e-9) for m in models]"), "test", "paper")
    assert forged.score > 1e6
    overflowing = judged(answering("good", "[setattr(m, 'req_rate', 1e308) for m in models]"), "test", "paper")
    assert overflowing.score == 1.0  # fsum would raise, which is a fault of the judge
    assert judged(answering("{}"), "test", "paper").score == 1.0
    assert judged(answering("None"), "test", "paper").score == 0.0
    assert judged(answering("good", "models[0].slo = 0"), "test", "paper").score == 0.0
    assert judged(answering("good", "models[0].slo = float('nan')"), "test", "paper").score == 0.0


def test_paper_scoring_is_for_the_public_problems_only() -> None:
    with pytest.raises(UsageError, match="test only"):
        PAPER.judge.cases("train")


@pytest.mark.parametrize("raw", [None, {}, {"answers": [1]}, {"answers": [{"figures": [[[1]]]}] * 10}])
def test_raw_outputs_that_no_adapter_makes_are_malformed_by_paper_scoring_too(raw: Any) -> None:
    with pytest.raises(MalformedOutput):
        PAPER.judge.score(cases("test", "paper")[0], raw)


@pytest.mark.parametrize("split", SPLITS)
def test_programs_stand_in_their_order(split: Split) -> None:
    order = [TASK.spec.trivial, "weak", "medium", "strong", TASK.spec.best_human]
    scores = [judged(source_of(str(name)), split).score for name in order]
    assert scores == sorted(scores)
    assert len(set(scores)) == len(scores)
    assert 0 < scores[0] < scores[-1] <= 1.0
    assert scores[-1] - scores[-2] > 0.05


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_the_medium_seed_is_as_good_as_the_public_initial_program(split: Split) -> None:
    assert judged(source_of("medium"), split).score == pytest.approx(judged(source_of("greedy"), split).score)


def test_sound_figures_of_the_public_problems() -> None:
    greedy = judged(source_of("greedy"), "test").metrics
    assert greedy["mean_max_kvpr"] == pytest.approx(0.0478660773665175, rel=1e-9)
    assert greedy["inverse_mean_kvpr"] == pytest.approx(20.891622105209393, rel=1e-9)
    assert greedy["mean_optimal_kvpr"] == pytest.approx(0.039594596078782913, rel=1e-9)
    assert greedy["leaderboard_coverage"] == 100.0
    assert judged(source_of("round_robin"), "test").metrics["leaderboard_formula"] == 0.0
    formula = import_private(TASK.folder, "judge").leaderboard_formula
    best = [
        formula(named.problem, float(OPTIMUM.optimum(named.problem).pressure))
        for named in SPLIT_MODULE.problems("test")
    ]
    assert fmean(best) == pytest.approx(87.40961879545537, rel=1e-9)


def test_the_leaderboards_formula_is_clipped_and_knows_a_full_round_robin() -> None:
    formula = import_private(TASK.folder, "judge").leaderboard_formula
    alone = PROBLEM.Problem(1, np.array([[30, 5, 5]]))
    assert [formula(alone, kvpr) for kvpr in (0.02, 0.03)] == [100.0, 0.0]
    full = PROBLEM.Problem(2, np.array([[40, 1, 1], [10, 1, 1], [40, 1, 1]]))
    assert full.round_robin() is None
    assert 99.0 < formula(full, 0.5) < 100.0
    assert formula(full, 2e6) == 0.0


def test_an_optimal_program_scores_exactly_the_bound() -> None:
    for split in SPLITS:
        results = []
        for case in cases(split):
            answers = [OPTIMUM.optimum(reference.problem).members for reference in case.hidden]
            raw = {"answers": [{"gpus": list(range(len(a))), "models": [list(g) for g in a]} for a in answers]}
            results.append(CaseResult(case.id, TASK.judge.score(case, raw), 0.0, 0.0))
        metrics = TASK.judge.combine(results).metrics
        assert metrics["efficiency"] == metrics["worst_decile"] == metrics["score_bound"] == 1.0
        assert (metrics["gap"], metrics["optimal_share"]) == (0.0, 100.0)


def test_splits_are_the_same_every_time_and_share_no_problem() -> None:
    """Scores of different machines and releases are comparable only on equal problems."""
    digests = {split: [n.problem.digest for n in SPLIT_MODULE.problems(split)] for split in SPLITS}
    found = {split: hashlib.sha256("".join(digests[split]).encode()).hexdigest()[:16] for split in SPLITS}
    assert found == DIGESTS
    every = [digest for split in SPLITS for digest in digests[split]]
    assert len(set(every)) == len(every)
    names = [n.name for split in ("train", "stress") for n in SPLIT_MODULE.problems(split)]
    assert len(set(names)) == len(names)
    every_case = [case for split in SPLITS for case in cases(split)]
    assert len({case.id for case in every_case}) == len({case.seed for case in every_case}) == len(every_case)
    assert {len(case.hidden) for case in every_case} == {SPLIT_MODULE.BUNDLE}


def test_every_problem_keeps_what_the_statement_says() -> None:
    for split in SPLITS:
        for named in SPLIT_MODULE.problems(split):
            problem = named.problem
            assert 1 <= problem.gpu_num <= 45, named.name
            assert all(1 <= size < 80 for size in problem.sizes), named.name
            assert problem.models[:, 1].min() >= 1, named.name
            assert 1 <= problem.models[:, 2].min() <= problem.models[:, 2].max() <= 10, named.name
            assert PROBLEM.first_fit_decreasing(problem.gpu_num, problem.sizes) is not None, named.name


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("{}", r"0 of \d+ models placed, model_0 is missing"),
        ("{0: models[:1]}", r"1 of \d+ models placed, model_1 is missing"),
        ("{g: ms[:-1] if g == 0 else ms for g, ms in good.items()}", "is missing"),
        ("{**good, gpu_num: []}", r"GPU id \d+, expected an int in 0\.\.\d+"),
        ("{g - 1: ms for g, ms in good.items()}", r"GPU id -1, expected an int"),
        ("{bool(g) if g < 2 else g: ms for g, ms in good.items()}", "GPU id bool False"),
        ("{float(g): ms for g, ms in good.items()}", r"GPU id float 0\.0"),
        ("{str(g): ms for g, ms in good.items()}", "GPU id str '0'"),
        ("{0: models}", r"GPU 0 holds \d+ GB of models, expected less than 80"),
        ("{g: [*ms, good[0][0]] if g else ms for g, ms in good.items()}", "is placed a second time, on GPU 1"),
        ("{g: ms * 2 for g, ms in good.items()}", "is placed a second time, on GPU 0"),
        ("{g: [m.model_size for m in ms] for g, ms in good.items()}", "holds int .* none of the given models"),
        ("{g: [m.model_name for m in ms] for g, ms in good.items()}", "holds str .* none of the given models"),
        ("{g: [type('Forged', (), {'model_name': 'm'})()] for g in good}", "holds Forged .* none of the given models"),
    ],
)
def test_placements_that_break_a_rule_are_invalid(expression: str, message: str) -> None:
    case = cases("train")[0]
    with pytest.raises(InvalidOutput, match=message):
        TASK.judge.score(case, run(answering(expression), case))


def test_a_gpu_filled_to_the_last_gb_is_invalid() -> None:
    case = next(c for c in cases("stress") if any(r.name == "halves of a GPU" for r in c.hidden))
    pairs = answering("{g: models[2 * g : 2 * g + 2] for g in range(4)} if models[0].model_size == 40 else good")
    with pytest.raises(InvalidOutput, match="halves of a GPU: GPU 0 holds 80 GB of models, expected less than 80"):
        TASK.judge.score(case, run(pairs, case))


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("None", "returned NoneType None, expected a dict"),
        ("list(good.values())", "returned list .* expected a dict"),
        ("{0: 5}", "GPU 0 holds int 5, expected a list"),
        ("{0: 'model_0'}", "GPU 0 holds str 'model_0', expected a list"),
        ("{0: {0: models}}", "GPU 0 holds dict .* expected a list"),
    ],
)
def test_answers_of_another_shape_are_malformed(expression: str, message: str) -> None:
    case = cases("train")[0]
    with pytest.raises(MalformedOutput, match=message):
        TASK.judge.score(case, run(answering(expression), case))


@pytest.mark.parametrize(
    ("expression", "before"),
    [
        ("{g: tuple(ms) for g, ms in reversed(good.items())}", ""),
        ("{np.int64(g): np.array(ms, dtype=object) for g, ms in good.items()}", "import numpy as np"),
        ("{g: iter(ms) for g, ms in good.items() if ms}", ""),
        ("copy.deepcopy(good)", "import copy"),
        ("{g: [dataclasses.replace(m) for m in ms] for g, ms in good.items()}", "import dataclasses"),
        ("{g: list({*ms}) for g, ms in good.items()}", "models.clear()"),
        ("good", "[setattr(m, 'model_size', 0) or setattr(m, 'req_rate', 0) for m in models]"),
        ("good", "[setattr(m, 'model_name', 'model_0') for m in models]"),
        ("{g: [Model(m.model_name, 0, 0, 1, 0) for m in ms] for g, ms in good.items()}", "from evaluator import Model"),
    ],
)
def test_the_same_placement_has_the_same_score_however_it_is_written(expression: str, before: str) -> None:
    case = cases("train")[0]
    honest = TASK.judge.score(case, run(source_of("first_fit_decreasing"), case))
    assert TASK.judge.score(case, run(answering(expression, before), case)) == honest


@pytest.mark.parametrize(
    "raw",
    [
        None,
        [],
        {},
        {"answers": None},
        {"answers": [{}] * 9},
        {"answers": [{}] * 10},
        {"answers": [{"gpus": [0], "models": []}] * 10},
        {"answers": [{"gpus": [0], "models": [0]}] * 10},
        {"answers": [{"gpus": 3, "models": 4}] * 10},
        {"answers": ["text"] * 10, "efficiency": 2.0},
    ],
)
def test_raw_outputs_that_no_adapter_makes_are_malformed(raw: Any) -> None:
    with pytest.raises(MalformedOutput):
        TASK.judge.score(cases("train")[0], raw)


@pytest.mark.parametrize("gpus", [[0, 0], [True, 1], [-1, 0], [0.0, 1], [[0], 1]])
def test_forged_gpu_ids_are_invalid(gpus: list[Any]) -> None:
    with pytest.raises(InvalidOutput):
        TASK.judge.score(cases("train")[0], {"answers": [{"gpus": gpus, "models": [[], []]}] * 10})


def test_metrics_are_those_of_task_yaml() -> None:
    sound = judged(source_of("medium"), "train").metrics
    paper = judged(source_of("medium"), "test", "paper").metrics
    assert {*sound, *paper} == set(TASK.spec.metrics)
    assert set(sound) == set(TASK.spec.metrics) - {"success_rate"}


def test_growth_is_left_out_where_cases_are_too_short_to_time() -> None:
    results = [CaseResult(c.id, TASK.judge.score(c, run(source_of("medium"), c)), 1e-3, 0.5) for c in cases("train")]
    assert "cpu_growth" not in TASK.judge.combine(results).metrics


def test_combine_means_over_problems() -> None:
    combined = judged(source_of("medium"), "train")
    efficiencies = []
    for case in cases("train"):
        for reference, answer in zip(case.hidden, run(source_of("medium"), case)["answers"], strict=True):
            kvpr = largest_kvpr(dict(enumerate(answer["models"])), reference.problem.models.tolist())
            efficiencies.append(float(reference.best) / kvpr)
    assert combined.score == pytest.approx(fmean(efficiencies), rel=1e-12)
    thirds = [min(efficiencies[i : i + 10]) for i in (0, 10, 20)]
    assert combined.metrics["worst_decile"] == pytest.approx(fmean(thirds), rel=1e-12)
    assert combined.metrics["cpu_s"] == 0.75
    for case in cases("train"):
        assert case.id in combined.artifacts["cases"]


def test_recorded_standings_are_those_of_these_programs() -> None:
    rows = json.loads((TASK.folder / "standings.json").read_text())["rows"]
    scores = {(row["program"], row["split"], row["scoring"]): row["score"] for row in rows}
    assert {program for program, _, _ in scores} == set(TASK.programs())
    for name in TASK.seeds():
        assert scores[name, "train", "sound"] == pytest.approx(judged(source_of(name), "train").score, rel=1e-9)
        assert scores[name, "test", "paper"] == pytest.approx(judged(source_of(name), "test", "paper").score, rel=1e-9)


def test_seed_programs_offer_places_to_change() -> None:
    assert TASK.seed_source == source_of("medium")
    assert (TASK.folder / "seed.py").is_symlink()
    for name, path in TASK.seeds().items():
        source = path.read_text()
        block = source.partition("# EVOLVE-BLOCK-START\n")[2].partition("# EVOLVE-BLOCK-END")[0]
        tree = ast.parse(block)
        assert any(isinstance(node, ast.For) for node in ast.walk(tree)), name
        assert any(isinstance(node, ast.Compare) for node in ast.walk(tree)), name
    assert set(TASK.seeds()) == set(TASK.hints()) == {"weak", "medium", "strong"}


def test_the_untrusted_side_imports_nothing_of_the_judge() -> None:
    """What the adapter imports lies in every candidate's process."""
    for path in (TASK.folder / "adapter.py", TASK.folder / "model.py", *(TASK.folder / "shims").glob("*.py")):
        imported = _relative_imports(path)
        assert imported <= {"model", "shims"}, path


def _relative_imports(path: Path) -> set[str]:
    nodes = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom) and n.level]
    return {(n.module or "").partition(".")[0] for n in nodes}


def test_artifacts_name_the_worst_problem() -> None:
    table = judged(source_of("medium"), "train").artifacts["cases"]
    names = {named.name for named in SPLIT_MODULE.problems("train")}
    assert all(any(f"({name})" in line for name in names) for line in table.splitlines()[1:])


def test_models_are_equal_by_their_fields_and_hashable() -> None:
    model = import_private(TASK.folder, "model").Model
    a, b = model("a", 1, 2, 3, 0), model("a", 1, 2, 3, 0)
    assert a == b
    assert len({a, b}) == 1
    assert a != model("a", 2, 2, 3, 0)
    attributes: Mapping[str, Any] = vars(a)
    assert list(attributes) == ["model_name", "model_size", "req_rate", "slo", "cur_gpu_id"]
