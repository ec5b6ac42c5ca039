"""Which part of what is known an operator's prompt shows before any budget: order, caps of the config, what to compare.

Pure: a PromptContext in, a PromptContext out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from adrs_ray.candidate import FailureKind
from adrs_ray.config import ModelConfig, PromptConfig
from adrs_ray.openevolve import STAGES_PASSED
from adrs_ray.prompt import PromptContext, PromptOperator, ShownCase, ShownProgram, TaskBrief
from adrs_ray.prompt.artifacts import shortened, trimmed_artifacts

MOST_SEEDS = 16
"""Programs that `seed_different` and `paradigm_shift` show: they are what these operators are about."""
MOST_METRICS = 40
"""Lines of metrics: an evaluator that runs beside the candidate may tell hundreds."""
MOST_CASE_METRICS = 6
MOST_SCRATCHPAD_CHARS = 4_000
"""Of a model's notes, more than twice what it is asked for: they stand in every prompt."""
_ABOUT_OTHERS: frozenset[PromptOperator] = frozenset({"seed_different", "paradigm_shift"})
OF_THE_PARENT = " of the parent"
"""Suffix of the metric that says, in a partner's case, what the parent reached there."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A metric's value as a template shows it; unit and direction are empty where task.yaml declares none."""

    name: str
    value: float
    unit: str = ""
    direction: Literal["min", "max", ""] = ""


def selected(
    operator: PromptOperator, context: PromptContext, model: ModelConfig, config: PromptConfig
) -> PromptContext:
    """The context, one that `started` gave, as the operator's prompt shows it when there is room for everything.

    Cases of the parent come worst first, those of a partner first where it beats the parent by most and only where it
    does; other programs are shown without cases and artifacts. Of reward hacking its kind alone is told.
    """
    most = MOST_SEEDS if operator in _ABOUT_OTHERS else config.inspirations
    task, parent, partner = context.task, context.parent, context.partner
    if partner is not None:
        cases = advantages(partner, parent, task)[: config.case_rows]
        partner = replace(partner, cases=cases, artifacts={})
    if parent is not None:
        artifacts = trimmed_artifacts(parent.artifacts, config.artifact_tokens, model.chars_per_token)
        cases = worst_first(parent.cases, task)[: config.case_rows]
        parent = replace(parent, cases=cases, artifacts=artifacts, failure=_told(parent.failure))
    return replace(
        context,
        parent=parent,
        partner=partner if operator == "crossover" else None,
        inspirations=tuple(
            replace(program, cases=(), artifacts={}, failure=_told(program.failure))
            for program in context.inspirations[:most]
        ),
        scratchpad=shortened(context.scratchpad, MOST_SCRATCHPAD_CHARS),
        attempts=tuple(
            replace(attempt, failure=_told(attempt.failure))
            for attempt in context.attempts[max(0, len(context.attempts) - config.attempts) :]
        ),
    )


def _told(failure: str | None) -> str | None:
    """Why something failed, without what would tell a bound or help the next one to cheat."""
    hacking = FailureKind.REWARD_HACKING.value
    return hacking if failure is not None and failure.partition(":")[0] == hacking else failure


def started(operator: PromptOperator, context: PromptContext) -> PromptContext:
    """The context with a program to start from.

    Operators that are about other programs show the seed where they have no parent, so that the code around the evolve
    blocks is known.
    """
    if context.parent is not None or operator not in _ABOUT_OTHERS:
        return context
    seed = context.task.seed_source
    found = next((p for p in context.inspirations if p.source == seed), ShownProgram("seed", seed))
    return replace(context, parent=found, inspirations=tuple(p for p in context.inspirations if p is not found))


def worst_first(cases: Sequence[ShownCase], task: TaskBrief) -> tuple[ShownCase, ...]:
    """The cases by the case metric; those that lack it follow as they were, as all do where the task has none."""
    name = task.case_metric
    if name is None:
        return tuple(cases)
    sign = _sign(name, task)
    told = sorted((case for case in cases if name in case.metrics), key=lambda case: sign * case.metrics[name])
    return (*told, *(case for case in cases if name not in case.metrics))


def advantages(partner: ShownProgram, parent: ShownProgram | None, task: TaskBrief) -> tuple[ShownCase, ...]:
    """The partner's cases in which it beats the parent, by how much, with the parent's figure added."""
    name = task.case_metric
    if name is None or parent is None:
        return ()
    sign = _sign(name, task)
    theirs = {case.case: case.metrics[name] for case in parent.cases if name in case.metrics}
    better = []
    for case in partner.cases:
        if name in case.metrics and case.case in theirs:
            gain = sign * (case.metrics[name] - theirs[case.case])
            if gain > 0:
                told = {name: case.metrics[name], name + OF_THE_PARENT: theirs[case.case]}
                better.append((gain, replace(case, metrics=told)))
    return tuple(case for _, case in sorted(better, key=lambda pair: -pair[0]))


def _sign(metric: str, task: TaskBrief) -> float:
    return -1.0 if any(m.name == metric and m.direction == "min" for m in task.metrics) else 1.0


def figures(metrics: Mapping[str, float], task: TaskBrief) -> list[Figure]:
    """Metrics to show: the declared ones, in the order of task.yaml, and what a partner's case says of the parent.

    Where a task declares none, as with evaluators of OpenEvolve-style folders, all by name, MOST_METRICS in all. A task
    that declares some has left the others out on purpose: they may be bounds, or names that a disguise hides.
    """
    told = [Figure(m.name, metrics[m.name], m.unit, m.direction) for m in task.metrics if m.name in metrics]
    if all(metric.name == STAGES_PASSED for metric in task.metrics):
        told += [Figure(name, metrics[name]) for name in sorted(metrics) if name != STAGES_PASSED]
    else:
        told += [Figure(name, metrics[name]) for name in metrics if name.endswith(OF_THE_PARENT)]
    return told[:MOST_METRICS]


def case_figures(metrics: Mapping[str, float], task: TaskBrief) -> list[Figure]:
    """Metrics of one case: the case metric first, MOST_CASE_METRICS in all."""
    return sorted(figures(metrics, task), key=lambda figure: figure.name != task.case_metric)[:MOST_CASE_METRICS]
