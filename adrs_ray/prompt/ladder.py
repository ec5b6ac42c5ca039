"""What a prompt gives up when a model's context is too small: a fixed order, the least useful part first.

A reduction is a pure function PromptContext -> PromptContext | None that takes a little and gives None once nothing
of its kind is left; a ladder applies each until then, one after another. The parent's program and the task's statement
are never touched.

| step | most operators              | seed_different, paradigm_shift | summarize                |
|------|-----------------------------|--------------------------------|--------------------------|
| 1    | printed artifacts           | all artifacts                  | all artifacts            |
| 2    | inspirations, last first,   | cases of the parent            | inspirations, last first |
|      | down to one                 |                                |                          |
| 3    | attempts, oldest first,     | attempts, oldest first         | cases of the parent      |
|      | down to four                |                                |                          |
| 4    | cases, best first, to six   | scratchpad                     | hints of the task        |
| 5    | scratchpad                  | texts of other programs        | scratchpad               |
| 6    | last inspiration            | other programs, last first     | attempts, oldest first   |
| 7    | last attempts               | hints of the task              | hints of a person        |
| 8    | last cases                  | hints of a person              |                          |
| 9    | tracebacks, standard error  |                                |                          |
| 10   | hints of the task           |                                |                          |
| 11   | hints of a person           |                                |                          |
| 12   | partner of a crossover      |                                |                          |

Texts are halved a few times before they go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TypeAlias

from adrs_ray.prompt import PromptContext, PromptOperator, ShownProgram
from adrs_ray.prompt.artifacts import is_error, shortened

Reduction: TypeAlias = Callable[[PromptContext], PromptContext | None]

_SHORTEST_PRINTED = 240
_SHORTEST_ERROR = 480
_SHORTEST_SCRATCHPAD = 320
_SHORTEST_SOURCE = 1500
"""Characters below which a text is dropped rather than halved: what is left would say nothing."""


def ladder(operator: PromptOperator, context: PromptContext) -> Iterator[PromptContext]:
    """The context, then ever smaller ones, down to what is never dropped."""
    yield context
    for reduce in REDUCTIONS.get(operator, DEFAULT):
        while (smaller := reduce(context)) is not None:
            context = smaller
            yield context


def fewer_printed(context: PromptContext) -> PromptContext | None:
    """What the parent printed, its errors apart: halved, then dropped."""
    return _fewer_artifacts(context, _SHORTEST_PRINTED, lambda name: not is_error(name))


def fewer_errors(context: PromptContext) -> PromptContext | None:
    """Tracebacks and standard error of the parent: halved, then dropped."""
    return _fewer_artifacts(context, _SHORTEST_ERROR, is_error)


def _fewer_artifacts(context: PromptContext, shortest: int, meant: Callable[[str], bool]) -> PromptContext | None:
    parent = context.parent
    if parent is None or not any(meant(name) for name in parent.artifacts):
        return None
    texts = {name: _half(text, shortest) if meant(name) else text for name, text in parent.artifacts.items()}
    kept = {name: text for name, text in texts.items() if text or not meant(name)}
    return replace(context, parent=replace(parent, artifacts=kept))


def _half(text: str, shortest: int) -> str:
    return shortened(text, len(text) // 2) if len(text) // 2 >= shortest else ""


def fewer_inspirations(keep: int) -> Reduction:
    """One inspiration less, the last first."""

    def reduce(context: PromptContext) -> PromptContext | None:
        if len(context.inspirations) <= keep:
            return None
        return replace(context, inspirations=context.inspirations[:-1])

    return reduce


def shorter_inspirations(context: PromptContext) -> PromptContext | None:
    """The texts of the inspirations halved, as long as that leaves something worth reading."""
    if all(len(program.source) // 2 < _SHORTEST_SOURCE for program in context.inspirations):
        return None
    return replace(context, inspirations=tuple(_half_source(program) for program in context.inspirations))


def _half_source(program: ShownProgram) -> ShownProgram:
    return replace(program, source=_half(program.source, _SHORTEST_SOURCE) or program.source)


def fewer_attempts(keep: int) -> Reduction:
    """Half of the attempts beyond `keep` less, the oldest first."""

    def reduce(context: PromptContext) -> PromptContext | None:
        excess = len(context.attempts) - keep
        return replace(context, attempts=context.attempts[(excess + 1) // 2 :]) if excess > 0 else None

    return reduce


def fewer_cases(keep: int) -> Reduction:
    """Half of the cases of parent and partner, down to `keep`: those that stand first stay."""

    def fewer(program: ShownProgram | None) -> ShownProgram | None:
        return program and replace(program, cases=program.cases[: max(keep, len(program.cases) // 2)])

    def reduce(context: PromptContext) -> PromptContext | None:
        if all(program is None or len(program.cases) <= keep for program in (context.parent, context.partner)):
            return None
        return replace(context, parent=fewer(context.parent), partner=fewer(context.partner))

    return reduce


def shorter_scratchpad(context: PromptContext) -> PromptContext | None:
    """The scratchpad halved, then dropped."""
    if not context.scratchpad:
        return None
    return replace(context, scratchpad=_half(context.scratchpad, _SHORTEST_SCRATCHPAD))


def fewer_task_hints(context: PromptContext) -> PromptContext | None:
    """One hint of the task less, the last first."""
    hints = context.task.hints
    return replace(context, task=replace(context.task, hints=hints[:-1])) if hints else None


def fewer_hints(context: PromptContext) -> PromptContext | None:
    """One hint of a person less, the oldest first."""
    return replace(context, hints=context.hints[1:]) if context.hints else None


def no_partner(context: PromptContext) -> PromptContext | None:
    """A crossover without its partner is a rewrite."""
    return None if context.partner is None else replace(context, partner=None)


DEFAULT: tuple[Reduction, ...] = (
    fewer_printed,
    fewer_inspirations(1),
    fewer_attempts(4),
    fewer_cases(6),
    shorter_scratchpad,
    fewer_inspirations(0),
    fewer_attempts(0),
    fewer_cases(0),
    fewer_errors,
    fewer_task_hints,
    fewer_hints,
    no_partner,
)

_ABOUT_OTHERS: tuple[Reduction, ...] = (
    fewer_printed,
    fewer_errors,
    fewer_cases(0),
    fewer_attempts(0),
    shorter_scratchpad,
    shorter_inspirations,
    fewer_inspirations(0),
    fewer_task_hints,
    fewer_hints,
)

REDUCTIONS: dict[PromptOperator, tuple[Reduction, ...]] = {
    "seed_different": _ABOUT_OTHERS,
    "paradigm_shift": _ABOUT_OTHERS,
    "summarize": (
        fewer_printed,
        fewer_errors,
        fewer_inspirations(0),
        fewer_cases(0),
        fewer_task_hints,
        shorter_scratchpad,
        fewer_attempts(0),
        fewer_hints,
    ),
}
