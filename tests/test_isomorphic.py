"""Isomorphic tasks: the same task under other names, nothing of the native one told, nothing of it changed."""

from __future__ import annotations

import asyncio
import builtins
import collections
import heapq
import itertools
import math
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray import program
from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.isomorphic import Swap, disguised, given_away
from adrs_ray.scaffold import check_folder
from adrs_ray.stages_here import served_here
from adrs_ray.task import Task, builtin_tasks, load_task
from tests.evaluator.tiny_task import SEED, write_task

TASKS = sorted(builtin_tasks())
NAMES = {"cost": "toll", "edges": "roads", "Graph": "Map", "toll": "cost", "roads": "edges", "Map": "Graph"}
SWAP = Swap(NAMES)

ISOMORPHIC = """\
name: purse
summary: count the coins of a purse
statement: |
  Define count_coins(purse), which gives the sum of the coins.
rename: {solve: count_coins, x: purse, total: sum_of_all}
metrics: {error: how far off the count is}
secret_words: {array: purse, add up: count}
seed: |
  import numpy as np


  def count_coins(purse):
      # every coin once
      return float(np.sum(purse))
"""
METRIC = 'metrics: {error: {unit: "1", direction: min}, secret: {unit: "1", direction: min}}'


def tiny(folder: Path, isomorphic: str | None = ISOMORPHIC, extra: str = METRIC) -> Task:
    task = write_task(folder, extra=extra)
    if isomorphic is not None:
        (folder / "isomorphic.yaml").write_text(isomorphic, encoding="utf-8")
    return task


def judged(task: Task, *sources: str) -> list[Verdict]:
    async def run() -> list[Verdict]:
        async with LocalEvaluator(task, EvaluatorConfig(slots=1)) as evaluator:
            return [await evaluator.evaluate(EvaluationJob(f"p{i}", source)) for i, source in enumerate(sources)]

    return asyncio.run(run())


@pytest.mark.parametrize("name", TASKS)
def test_every_built_in_task_can_be_told_otherwise_and_gives_nothing_away(name: str) -> None:
    task = disguised(load_task(name))
    assert given_away(task) == ()
    assert task.name == name != task.spec.name
    assert task.native.spec == load_task(name).spec
    assert task.hints() == {}
    assert task.spec.limits == task.native.spec.limits
    assert task.spec.case_metric in task.spec.metrics


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_of_a_built_in_task_is_the_native_one_under_other_names(name: str) -> None:
    task = disguised(load_task(name))
    assert task.seed_source != task.native.seed_source
    back = task.translated(task.seed_source)
    assert program.fingerprint(back) == program.fingerprint(task.native.seed_source)
    assert program.fingerprint(back) != program.fingerprint(task.seed_source)
    assert task.translated(back) == task.seed_source


@pytest.mark.parametrize("name", TASKS)
def test_the_seed_of_a_built_in_task_scores_as_the_native_one(name: str) -> None:
    native, _ = served_here(load_task(name))
    if "torch" in native.spec.preload:
        pytest.importorskip("torch")
    told = disguised(native)
    near = {"abs": 0.05 if native.spec.noisy else 0.0, "rel": 0.0}
    [before], [after] = judged(native, native.seed_source), judged(told, told.seed_source)
    assert isinstance(before, Evaluation)
    assert isinstance(after, Evaluation)
    assert after.score == pytest.approx(before.score, **near)
    metric = native.spec.case_metric
    assert metric is not None
    assert [case.case for case in after.cases] == [told.disguise_text(case.case) for case in before.cases]
    found, expected = ([case.metrics[metric] for case in verdict.cases] for verdict in (after, before))
    assert found == pytest.approx(expected, **near)
    words = " ".join(after.artifacts.values()).lower()
    assert told.disguise is not None
    assert not [word for word in told.disguise.secret_words if word in words]


@pytest.mark.parametrize("name", TASKS)
def test_cases_of_a_built_in_task_are_told_apart_under_the_names_that_are_told(name: str) -> None:
    task = disguised(load_task(name))
    assert task.disguise is not None
    for split in task.spec.splits:
        native = {case.id for case in task.judge.cases(split)}
        told = {task.disguise_text(case) for case in native}
        assert len(told) == len(native)
        assert not [case for case in told if any(word in case for word in task.disguise.secret_words)]


@pytest.mark.parametrize("name", TASKS)
def test_baselines_of_a_built_in_task_come_back_from_both_translations(name: str) -> None:
    task = disguised(load_task(name))
    for path in task.programs().values():
        source = path.read_text(encoding="utf-8")
        told = task.translated(source)
        assert told != source
        assert program.syntax_problem(told) is None, path
        assert task.translated(told) == source


@pytest.mark.parametrize("name", TASKS)
def test_no_new_name_is_one_that_programs_use_for_something_else(name: str) -> None:
    """`items.sort(key=...)` under a rename of `sort` or `key` would break when it is swapped."""
    disguise = disguised(load_task(name)).disguise
    assert disguise is not None
    common = (str, bytes, list, dict, set, tuple, int, float, object, builtins, collections, heapq, itertools, math)
    taken = {attribute for owner in (*common, random, random.Random) for attribute in dir(owner)}
    parameters = {"key", "reverse", "default", "start", "step", "stop", "sep", "end", "initial", "axis", "weight"}
    new = set(disguise.swap.names) - disguise.native_names
    assert not new & (taken | set(dir(np)) | set(dir(np.ndarray)))
    assert not set(disguise.swap.names) & (taken | parameters)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("cost = edges", "toll = roads"),
        ("f(cost=1).edges.x", "f(toll=1).roads.x"),
        ("costs, cost_, _cost = 1, 2, 3", "costs, cost_, _cost = 1, 2, 3"),
        ("G[a]['cost'] + G[a][\"edges\"]", "G[a]['toll'] + G[a][\"roads\"]"),
        ('"the cost of edges"  # cost', '"the cost of edges"  # cost'),
        ("'''cost'''; r'cost'; b'cost'", "'''toll'''; r'toll'; b'cost'"),
        ("f'cost {cost:.2f} {{cost}} {d(edges)!r:>{cost}}'", "f'cost {toll:.2f} {{cost}} {d(roads)!r:>{toll}}'"),
        ("""f"{d['cost']} {d['the cost']}" """, """f"{d['toll']} {d['the cost']}" """),
        ('rF"""{{{cost}}} {x}{{cost}}}}{cost}"""', 'rF"""{{{toll}}} {x}{{cost}}}}{toll}"""'),
        ("from Graph import cost as edges", "from Map import toll as roads"),
        ("1cost; 0xcost", "1cost; 0xcost"),
        ("'cost", "'toll"),
        ('"""cost', '"""toll'),
    ],
)
def test_names_are_exchanged_where_they_are_names(source: str, told: str) -> None:
    assert SWAP.program(source) == told
    assert SWAP.program(told) == source


_PIECE = st.sampled_from(
    [*NAMES, "x", "f", "rb", "F", "'", '"', '"""', "'''", "{", "}", "{{", "}}", "\\", "\n", "\r", "#", " ", ".", "1"]
)


@given(st.one_of(st.text(max_size=60), st.lists(_PIECE, max_size=40).map("".join)))
@settings(max_examples=1000, deadline=None)
def test_the_swap_is_its_own_inverse_on_any_text(text: str) -> None:
    assert SWAP.program(SWAP.program(text)) == text
    assert SWAP.text(SWAP.text(text)) == text


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@given(st.lists(_PIECE, max_size=40).map("".join))
@settings(max_examples=500, deadline=None)
def test_what_parses_parses_as_well_after_the_swap(text: str) -> None:
    try:
        program.parse(text)
    except SyntaxError:
        return
    program.parse(SWAP.program(text))


@pytest.mark.parametrize("piece", ['\\"', "\\'''a'", '\\"""a"', "{'", "f'{", "'{", "f\"{'", "{{{", "rb", '"""', "a'"])
def test_hostile_texts_take_linear_time(piece: str) -> None:
    """Quadratic work would take minutes here and run into the time limit of tests."""
    for text in (piece * (400_000 // len(piece)), f'f"{piece.replace(chr(34), "") * (400_000 // len(piece))}"'):
        assert SWAP.program(SWAP.program(text)) == text


def test_candidates_are_judged_under_native_names_and_told_about_in_theirs(tmp_path: Path) -> None:
    task = disguised(tiny(tmp_path / "tiny"))
    fine, wrong, native = (
        task.seed_source,
        "def count_coins(purse):\n    sum_of_all = purse.sum()\n    raise ValueError('the array')\n",
        SEED,
    )
    good, crashed, refused = judged(task, fine, wrong, native)
    assert isinstance(good, Evaluation)
    assert good.score == 0.0
    assert "error" in good.metrics
    assert isinstance(crashed, Failure)
    assert crashed.case == "c0"
    assert crashed.kind is FailureKind.CRASH
    assert "the purse" in crashed.detail
    assert "sum_of_all" not in crashed.detail
    trace = crashed.artifacts["traceback"]
    assert "count_coins" in trace
    assert "solve" not in trace
    assert isinstance(refused, Failure)
    assert refused.kind is FailureKind.INTERFACE
    assert "count_coins" in refused.detail
    [translated_first] = judged(task, task.translated(SEED))
    assert isinstance(translated_first, Evaluation)


def test_a_native_task_is_left_as_it_is(tmp_path: Path) -> None:
    task = tiny(tmp_path / "tiny")
    assert task.native is task
    assert task.translated("solve = 'x'") == "solve = 'x'"
    assert task.disguise_text("solve the array") == "solve the array"
    assert disguised(disguised(task)).native == task


def test_only_listed_metrics_and_renamed_entries_and_bans_are_told(tmp_path: Path) -> None:
    task = disguised(tiny(tmp_path / "tiny", extra=f"{METRIC}\nbanned_imports: [total, os]"))
    assert list(task.spec.metrics) == ["error"]
    assert task.spec.metrics["error"].description == "how far off the count is"
    assert task.spec.entry == ("count_coins",)
    assert task.spec.banned_imports == ("sum_of_all", "os")


def test_words_of_the_native_story_are_replaced_in_what_is_told(tmp_path: Path) -> None:
    task = disguised(tiny(tmp_path / "tiny"))
    assert task.disguise_text("Array x: solve must add up arrays") == "Purse purse: count_coins must count purses"


def test_words_inside_of_other_words_are_left_alone(tmp_path: Path) -> None:
    task = disguised(tiny(tmp_path / "tiny"))
    assert task.disguise_text("bytearray, my_array, MyArray") == "bytearray, my_purse, MyPurse"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("rename: {solve", "rename: {class: klass, solve"), "'class' is no identifier"),
        (("rename: {solve", "rename: {sum: add, solve"), "'sum' is no identifier"),
        (("rename: {solve", "rename: {rb: add, solve"), "'rb' may be read as the prefix of a string"),
        (("rename: {solve", "rename: {y: purse, solve"), "'purse' stands in it twice"),
        (("float(np.sum(purse))", "1.0"), "another program than seed.py"),
        (("float(np.sum(purse))", "1.0 +"), "seed: "),
        (("metrics: {error:", "metrics: {wrong:"), "metrics.wrong is not declared"),
        (("metrics: {error:", "metrics: {secret:"), "metrics lacks error"),
        (("name: purse", "name: purse\nstory: none"), "unknown key 'story': accepted are metrics, name, rename"),
        (("statement: |", "statement: : |"), "is not YAML"),
        ((ISOMORPHIC, "- a"), "expected a mapping"),
    ],
)
def test_a_disguise_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, change: tuple[str, str], message: str
) -> None:
    text = ISOMORPHIC.replace(*change)
    assert text != ISOMORPHIC
    task = tiny(tmp_path / "tiny", text, extra=f"{METRIC}\ncase_metric: error")
    with pytest.raises(UsageError, match=r"isomorphic\.yaml") as refused:
        disguised(task)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tasks_that_cannot_be_disguised_are_refused(tmp_path: Path) -> None:
    plain = tiny(tmp_path / "plain", None)
    with pytest.raises(UsageError, match=r"task tiny has no isomorphic\.yaml"):
        disguised(plain)
    task = tiny(tmp_path / "tiny")
    with pytest.raises(UsageError, match="starts from the medium seed"):
        disguised(replace(task, seed_source="def solve(x):\n    return 0.0\n"))
    with pytest.raises(UsageError, match="starts from medium, not from weak"):
        disguised(task).starting_from("weak")
    assert disguised(task).starting_from("medium") == disguised(task)
    several = replace(task, spec=task.spec.model_copy(update={"files": ("main.py", "rules.py")}))
    with pytest.raises(UsageError, match="a program of several files"):
        disguised(several)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "initial_program.py").write_text("x = 1\n")
    (foreign / "evaluator.py").write_text("def evaluate(path):\n    return {'a': 1.0}\n")
    with pytest.raises(UsageError, match="OpenEvolve-style folder"):
        disguised(load_task(foreign))


def test_task_check_looks_at_the_disguise_and_the_case_metric(tmp_path: Path) -> None:
    def found(isomorphic: str, extra: str = METRIC) -> dict[str, str]:
        tiny(tmp_path / "tiny", isomorphic, extra)
        return {finding.what: finding.level for finding in check_folder(tmp_path / "tiny", run_seed=False)}

    fine = found(ISOMORPHIC)
    assert fine["isomorphic.yaml: the seed is the same program, and no native name is told"] == "ok"
    assert not [what for what in fine if "case_metric" in what]
    leaky = ISOMORPHIC.replace("the coins of a purse", "the coins, that is add up an array, or solve")
    assert found(leaky)["isomorphic.yaml gives add up, array, solve away"] == "warn"
    assert "wrong" in {level for what, level in found("- a").items() if "isomorphic" in what}
    assert found(ISOMORPHIC, f"{METRIC}\ncase_metric: error") == fine
    unknown = found(ISOMORPHIC.replace("{error:", "{speed: fast, error:"), f"{METRIC}\ncase_metric: speed")
    assert unknown["task.yaml: case_metric speed is not declared"] == "warn"


def test_task_check_sees_a_case_metric_that_no_case_has(tmp_path: Path) -> None:
    extra = f"{METRIC}\ncase_metric: secret\nnoisy: true\nsplits: [train, validation, test]"
    write_task(tmp_path / "tiny", extra=extra)
    (tmp_path / "tiny" / "seed.py").write_text(f"# EVOLVE-BLOCK-START\n{SEED}# EVOLVE-BLOCK-END\n")
    found = {finding.what: finding.level for finding in check_folder(tmp_path / "tiny")}
    assert found["task.yaml: case_metric secret is not measured in every case"] == "warn"


@pytest.mark.parametrize("name", TASKS)
def test_the_case_metric_of_a_built_in_task_is_declared(name: str) -> None:
    task = load_task(name)
    assert task.spec.case_metric in task.spec.metrics
    assert task.case_metric == task.spec.case_metric
