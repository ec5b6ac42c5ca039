"""From a task, a config and verdicts to the public values that prompts are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from adrs_ray.candidate import CaseResult, Evaluation, FailureKind, Verdict
from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.prompt import MetricBrief, ShownCase, ShownProgram, TaskBrief
from adrs_ray.task import Limits, Metric, Task

_UNTOLD_WORDS = frozenset({"baseline", "bound", "leaderboard", "optimal", "optimum", "oracle"})
"""Parts of the names of metrics that say what others reach, or anybody could."""
_REFERENCES = frozenset(
    {
        "arrival_makespan",
        "base_hit_rate",
        "direct_cost",
        "gap",
        "gap_closed",
        "on_demand_cost",
        "public_confidence",
        "public_score",
        "saving_vs_up",
        "saving_vs_up_max",
        "saving_vs_up_shipped",
        "saving_vs_up_shipped_max",
        "savings_vs_best_single_region",
        "savings_vs_first_region",
        "up_cost",
        "up_shipped_cost",
    }
)
"""Declared metrics of built-in tasks that say the same under other names."""
_PAPER_ONLY = ("paper scoring only", "scoring paper only")
"""How task.yaml begins the description of a metric that judge.py never gives."""
_CASE_TABLE = "cases"
"""The artifact in which judges of ours print their cases, bounds included: prompts have a table of their own."""


def brief_of(task: Task, config: RunConfig) -> TaskBrief:
    """What models are told of a task under a config.

    Left out: metrics that tell a baseline, an optimum or a bound, or exist for the paper's scoring only. Raises
    UsageError when the task has no hints of the level that `prompt.hints` asks for, or they cannot be read.
    """
    spec = task.spec
    metrics = tuple(
        MetricBrief(name, metric.unit, metric.direction, metric.description)
        for name, metric in spec.metrics.items()
        if is_told(name) and name not in _REFERENCES and not _paper_only(metric)
    )
    return TaskBrief(
        name=spec.name,
        summary=spec.summary,
        statement=spec.statement,
        entry=spec.entry,
        seed_source=task.seed_source,
        metrics=metrics,
        case_metric=task.case_metric if any(metric.name == task.case_metric for metric in metrics) else None,
        banned_imports=spec.banned_imports,
        limits=limits_line(spec.limits),
        hints=_hints(task, config.prompt.hints),
        noisy=spec.noisy,
        stages=tuple(stage.name for stage in spec.all_stages),
    )


def is_told(metric: str) -> bool:
    """Whether models may see a metric, by its name: nothing that a baseline, an optimum or a bound is about."""
    return _UNTOLD_WORDS.isdisjoint(metric.split("_"))


def _paper_only(metric: Metric) -> bool:
    return metric.description.lower().startswith(_PAPER_ONLY)


def limits_line(limits: Limits) -> str:
    """What one case may use, in one line."""
    processes = "no further processes" if limits.processes == 0 else f"{limits.processes} further processes"
    return (
        f"{limits.case_timeout_s:g} s of wall time per case, loading included; {limits.memory_mb} MB of memory; "
        f"{limits.threads} threads; {processes}; an answer of at most {limits.output_mb} MB"
    )


def _hints(task: Task, level: str) -> tuple[str, ...]:
    if level == "none":
        return ()
    known = task.hints()
    if level not in known:
        has = ", ".join(known) or "none at all"
        raise UsageError(f"prompt.hints {level}: task {task.name} has no hints of that level: it has {has}")
    try:
        return (known[level].read_text(encoding="utf-8").strip(),)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"prompt.hints {level}: cannot read {known[level]}: {error}") from None


def case_values(cases: Sequence[CaseResult], brief: TaskBrief) -> tuple[float, ...]:
    """The case metric of every case, in their order, turned so that higher is better.

    () where the task has no case metric, a case lacks it, or there is no case.
    """
    name = brief.case_metric
    if name is None or any(name not in case.metrics for case in cases):
        return ()
    sign = -1.0 if any(metric.name == name and metric.direction == "min" for metric in brief.metrics) else 1.0
    return tuple(sign * case.metrics[name] for case in cases)


def shown_program(candidate: str, source: str, verdict: Verdict | None, note: str) -> ShownProgram:
    """A program and what came of it, as prompts show it: without bounds, and without what a broken judge said."""
    if verdict is None:
        return ShownProgram(candidate, source, note=note)
    if isinstance(verdict, Evaluation):
        own_table = verdict.trust != "candidate-side"
        artifacts = {k: v for k, v in verdict.artifacts.items() if not (own_table and k == _CASE_TABLE)}
        cases = tuple(ShownCase(case.case, _told(case.metrics)) for case in verdict.cases)
        return ShownProgram(
            candidate, source, verdict.score, _told(verdict.metrics), cases, artifacts=artifacts, note=note
        )
    if verdict.kind is FailureKind.INFRASTRUCTURE:
        return ShownProgram(candidate, source, failure="infrastructure: not the program's fault", note=note)
    return ShownProgram(
        candidate,
        source,
        failure=" ".join(f"{verdict.kind.value}: {verdict.detail}".split()),
        failed_case=verdict.case,
        artifacts=dict(verdict.artifacts),
        note=note,
    )


def _told(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if is_told(name)}
