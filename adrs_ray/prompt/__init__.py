"""Prompt Generator: from what is known (task, parent, results, lineage, hints) to the messages for a language model.

Pure: values in, messages out. `render.render` is the door; one Jinja2 file per operator lies in `templates/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from adrs_ray.task_spec import FULL_STAGE

PromptOperator: TypeAlias = Literal[
    "diff", "rewrite", "crossover", "fix", "seed_different", "paradigm_shift", "summarize"
]


@dataclass(frozen=True, slots=True)
class MetricBrief:
    """A metric as task.yaml declares it."""

    name: str
    unit: str
    direction: Literal["min", "max"]
    description: str = ""


@dataclass(frozen=True, slots=True)
class TaskBrief:
    """What models are told of a task. Everything here is public: nothing of held-out splits, baselines or bounds."""

    name: str
    summary: str
    statement: str
    entry: tuple[str, ...]
    """Functions or classes of which a program defines one."""
    seed_source: str
    metrics: tuple[MetricBrief, ...] = ()
    case_metric: str | None = None
    """The metric that tells how good the answer to one case is; None where cases have none in common."""
    banned_imports: tuple[str, ...] = ()
    limits: str = ""
    """One line: time, memory, threads of one case."""
    hints: tuple[str, ...] = ()
    """Of the task, as far as the config lets them be told."""
    noisy: bool = False
    stages: tuple[str, ...] = (FULL_STAGE,)
    """Names of the task's stages, cheapest first; the last one gives the score. Prompts do not tell them."""


@dataclass(frozen=True, slots=True)
class ShownCase:
    """One case of a verdict."""

    case: str
    metrics: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class ShownProgram:
    """A program and what came of it."""

    candidate: str
    source: str
    score: float | None = None
    """None when it failed."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    cases: tuple[ShownCase, ...] = ()
    failure: str | None = None
    """`kind: detail`, one line."""
    failed_case: str | None = None
    artifacts: Mapping[str, str] = field(default_factory=dict)
    """What it printed or raised, by name (`traceback`, `stdout`, `stderr`, ...): text nobody has read."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """An earlier try on the same lineage."""

    candidate: str
    operator: str
    note: str
    gain: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class PromptContext:
    """Everything a prompt may tell."""

    task: TaskBrief
    parent: ShownProgram | None = None
    """None where there is none: the first seeds."""
    partner: ShownProgram | None = None
    """Of a crossover."""
    inspirations: tuple[ShownProgram, ...] = ()
    """For `seed_different` the seeds so far, for `paradigm_shift` programs of different regions of the archive."""
    attempts: tuple[Attempt, ...] = ()
    """Latest last."""
    hints: tuple[str, ...] = ()
    """Stated by a person while the run goes on."""
    scratchpad: str = ""
