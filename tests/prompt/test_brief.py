import re
from dataclasses import replace

import pytest

from adrs_ray.candidate import CaseResult, Evaluation, Failure, FailureKind
from adrs_ray.config import PromptConfig, RunConfig, override
from adrs_ray.errors import UsageError
from adrs_ray.prompt import PromptContext
from adrs_ray.prompt.brief import brief_of, case_values, is_told, shown_program
from adrs_ray.prompt.render import render
from adrs_ray.task import builtin_tasks, load_task
from tests.prompt.contexts import model
from tests.tiny import write_tiny_task


def result(case: str, **metrics: float) -> CaseResult:
    return CaseResult(case, metrics, 0.1, 0.2)


@pytest.mark.parametrize("name", sorted(builtin_tasks()))
def test_a_brief_of_a_built_in_task_tells_its_task_and_neither_bounds_nor_baselines(name):
    task = load_task(name)
    brief = brief_of(task, RunConfig())
    assert brief.statement == task.spec.statement
    assert brief.seed_source == task.seed_source
    told = {metric.name for metric in brief.metrics}
    assert told
    assert not told & {"score_bound", "leaderboard_formula", "leaderboard_coverage", "cost_bound", "lower_bound"}
    assert not any("paper only" in metric.description for metric in brief.metrics)
    assert brief.hints == ()
    assert f"{task.spec.limits.memory_mb} MB of memory" in brief.limits
    text = render("seed_different", PromptContext(brief), model(), PromptConfig())[1].content
    assert task.spec.statement.strip() in text
    for baseline in task.baselines():
        if "_" in baseline and baseline not in task.spec.statement + task.seed_source:
            assert not re.search(rf"\b{baseline}\b", text)


def test_hints_are_told_at_the_level_asked_for():
    task = load_task("prism")
    brief = brief_of(task, override(RunConfig(), {"prompt.hints": "strong"}))
    assert brief.hints == (task.hints()["strong"].read_text().strip(),)


def test_a_level_of_hints_that_a_task_lacks_is_one_line_with_those_it_has(tmp_path):
    folder = write_tiny_task(tmp_path)
    config = override(RunConfig(), {"prompt.hints": "strong"})
    with pytest.raises(UsageError, match=r"prompt.hints strong: task tiny .*: it has none at all"):
        brief_of(load_task(folder), config)
    (folder / "hints").mkdir()
    (folder / "hints" / "weak.md").write_text("count")
    with pytest.raises(UsageError, match=r"no hints of that level: it has weak$"):
        brief_of(load_task(folder), config)
    (folder / "hints" / "strong.md").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"cannot read .*strong.md"):
        brief_of(load_task(folder), config)


def test_the_case_metric_is_that_of_task_yaml_else_the_headline_if_it_is_told(tmp_path):
    task = load_task(write_tiny_task(tmp_path))
    assert brief_of(task, RunConfig()).case_metric is None

    def metric_of(**changes: str) -> str | None:
        return brief_of(replace(task, spec=task.spec.model_copy(update=changes)), RunConfig()).case_metric

    assert metric_of(headline="value") == "value"
    assert metric_of(headline="other", case_metric="value") == "value"
    assert metric_of(headline="nowhere") is None


def test_case_values_are_turned_so_that_higher_is_better_and_missing_ones_leave_none():
    brief = brief_of(load_task("prism"), RunConfig())
    lower = replace(brief, case_metric="mean_max_kvpr")
    higher = replace(brief, case_metric="efficiency")
    cases = [result("a", mean_max_kvpr=2.0, efficiency=0.5), result("b", mean_max_kvpr=1.0, efficiency=1.0)]
    assert case_values(cases, lower) == (-2.0, -1.0)
    assert case_values(cases, higher) == (0.5, 1.0)
    assert case_values([], higher) == ()
    assert case_values([*cases, result("c")], higher) == ()
    assert case_values(cases, replace(brief, case_metric=None)) == ()


def test_metrics_about_bounds_are_not_told_but_bounded_ones_are():
    assert not is_told("score_bound")
    assert not is_told("bound_hit_rate")
    assert is_told("bounded_cache_hit_rate")


def test_a_program_is_shown_with_scores_and_cases_and_without_bounds():
    verdict = Evaluation(
        0.75,
        {"value": 0.75, "score_bound": 1.0},
        (result("train-1", value=0.5, bound=0.9), result("train-2", value=1.0)),
        "verified",
        1.0,
        {"stdout": "hi", "cases": "a table with the optimum"},
    )
    shown = shown_program("0-1", "x = 1\n", verdict, "halved")
    assert (shown.candidate, shown.source, shown.score, shown.note) == ("0-1", "x = 1\n", 0.75, "halved")
    assert shown.metrics == {"value": 0.75}
    assert [(case.case, dict(case.metrics)) for case in shown.cases] == [
        ("train-1", {"value": 0.5}),
        ("train-2", {"value": 1.0}),
    ]
    assert shown.artifacts == {"stdout": "hi"}
    assert shown.failure is None
    foreign = shown_program("0-1", "x = 1\n", replace(verdict, trust="candidate-side"), "")
    assert foreign.artifacts == verdict.artifacts


def test_a_failure_is_shown_with_kind_case_and_artifacts_on_one_line():
    verdict = Failure(FailureKind.CRASH, "KeyError: 3\n(line 4)", "train-2", artifacts={"traceback": "t"})
    shown = shown_program("0-1", "", verdict, "")
    assert shown.score is None
    assert shown.failure == "crash: KeyError: 3 (line 4)"
    assert shown.failed_case == "train-2"
    assert shown.artifacts == {"traceback": "t"}


def test_a_broken_judge_tells_models_nothing():
    verdict = Failure(FailureKind.INFRASTRUCTURE, "judge.py raised SECRET", "a", artifacts={"traceback": "SECRET"})
    shown = shown_program("0-1", "", verdict, "")
    assert "SECRET" not in repr(shown)
    assert shown.failure is not None
    unmeasured = shown_program("0-1", "x", None, "n")
    assert (unmeasured.score, unmeasured.failure) == (None, None)


def test_metrics_that_tell_what_others_or_anybody_could_reach_are_not_told():
    references = {"mean_optimal_kvpr", "optimum_cost", "own_or_peer_oracle", "arrival_makespan", "direct_cost", "gap"}
    references |= {"base_hit_rate", "on_demand_cost", "up_cost", "saving_vs_up", "gap_closed", "public_score"}
    reference = re.compile(
        r"for context|reference:|proven|least possible\b.*;|Uniform Progress|original order|\bbound$"
    )
    for name in builtin_tasks():
        brief = brief_of(load_task(name), RunConfig())
        assert not references & {metric.name for metric in brief.metrics}
        told = [m.description for m in brief.metrics if m.name not in (brief.case_metric, "improvement")]
        assert not [text for text in told if reference.search(text)]
