"""From a context to the messages of a request: one template per operator, within the model's token budget."""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any, get_args

import jinja2
from jinja2 import meta

from adrs_ray.config import ModelConfig, PromptConfig
from adrs_ray.errors import UsageError
from adrs_ray.generator import Message
from adrs_ray.prompt import PromptContext, PromptOperator
from adrs_ray.prompt.allowance import available, fits, tokens_of
from adrs_ray.prompt.environment import (
    PARTIAL_VARIABLES,
    VARIABLES,
    environment,
    fresh_environment,
    template_names,
)
from adrs_ray.prompt.example import bare_example, example
from adrs_ray.prompt.ladder import ladder
from adrs_ray.prompt.view import selected, started

OPERATORS: tuple[PromptOperator, ...] = get_args(PromptOperator)
_NEED_A_PARENT: frozenset[PromptOperator] = frozenset({"diff", "rewrite", "crossover", "fix"})


def render(
    operator: PromptOperator, context: PromptContext, model: ModelConfig, config: PromptConfig
) -> tuple[Message, ...]:
    """A system and a user message within `context_tokens - max_tokens - reasoning_tokens`, estimated.

    The same arguments always give the same messages. What does not fit is left out in the order of `ladder`. Raises
    UsageError, one line, when not even the parent's program and the task's statement fit, or a template of
    `config.folder` fails; ValueError for an operator that changes a parent when there is none.
    """
    if operator in _NEED_A_PARENT and context.parent is None:
        raise ValueError(f"{operator} needs a parent")
    made = environment(config.folder)
    context = started(operator, context)
    cases_in_all = len(context.parent.cases) if context.parent is not None else 0
    needed = 0
    for smaller in ladder(operator, selected(operator, context, model, config)):
        messages = _messages(made, config.folder, operator, smaller, cases_in_all)
        if fits(messages, model):
            return messages
        needed = tokens_of(messages, model)
    raise UsageError(
        f"model {model.model}: the shortest {operator} prompt needs about {needed} tokens, but context_tokens "
        f"{model.context_tokens} less max_tokens {model.max_tokens} and reasoning_tokens {model.reasoning_tokens} "
        f"leave {available(model)}: give the model more context or fewer tokens for its answer"
    )


def _messages(
    made: jinja2.Environment, folder: str | None, operator: PromptOperator, context: PromptContext, cases_in_all: int
) -> tuple[Message, ...]:
    variables: dict[str, Any] = {
        "operator": operator,
        "task": context.task,
        "parent": context.parent,
        "partner": context.partner,
        "inspirations": context.inspirations,
        "attempts": context.attempts,
        "hints": context.hints,
        "scratchpad": context.scratchpad,
        "cases_in_all": cases_in_all,
    }
    return (
        Message("system", _text(made, folder, "system.jinja", variables)),
        Message("user", _text(made, folder, f"{operator}.jinja", variables)),
    )


def _text(made: jinja2.Environment, folder: str | None, name: str, variables: dict[str, Any]) -> str:
    try:
        text = made.get_template(name).render(variables)
    except Exception as error:  # a template of a user's folder may raise anything; ours may not raise at all
        if folder is None:
            raise
        raise UsageError(f"prompt.folder {folder}: {_where(error, name)}: {_one_line(error)}") from None
    return _blank_lines(text)


def _blank_lines(text: str) -> str:
    """Two blank lines outside of fences, where a part of the template was empty, become one."""
    out: list[str] = []
    fence = ""
    for line in text.strip("\n").split("\n"):
        if not fence and not line.strip() and out and not out[-1].strip():
            continue
        out.append(line)
        ticks = len(line) - len(line.lstrip("`"))
        if not fence and ticks >= 3:
            fence = line[:ticks]
        elif fence and line == fence:
            fence = ""
    return "\n".join(out) + "\n"


def check_templates(folder: str) -> None:
    """Try a user's templates before a run.

    Raises UsageError, one line, for a folder that is missing or holds no template, a file of another name than ours
    (files whose names begin with a dot are passed over), a template that does not compile, one that uses a variable
    which neither we nor the template itself sets, and one that fails on an example.
    """
    where = f"prompt.folder {folder}"
    path = Path(folder).expanduser()
    known = template_names()
    if not path.is_dir():
        raise UsageError(f"{where}: no such folder: it holds templates that replace ours ({', '.join(known)})")
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    for name in names:
        if name not in known:
            raise UsageError(f"{where}: {name} is none of the templates that can be replaced: {', '.join(known)}")
    if not names:
        raise UsageError(f"{where}: no template there: such that can be replaced are {', '.join(known)}")
    made = fresh_environment(folder)
    for name in names:
        _check_variables(made, path / name, where)
    for operator in OPERATORS:
        for context in (example(operator), bare_example(operator)):
            shown = selected(operator, started(operator, context), _EXAMPLE_MODEL, PromptConfig())
            _messages(made, folder, operator, shown, len(shown.parent.cases) if shown.parent is not None else 0)


_EXAMPLE_MODEL = ModelConfig(base_url="http://127.0.0.1", model="example")


def _check_variables(made: jinja2.Environment, path: Path, where: str) -> None:
    try:
        made.get_template(path.name)
        used = meta.find_undeclared_variables(made.parse(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{where}: cannot read {path.name}: {error}") from None
    except jinja2.TemplateError as error:
        raise UsageError(f"{where}: {_where(error, path.name)}: {_one_line(error)}") from None
    known = (*VARIABLES, *PARTIAL_VARIABLES)
    if unknown := sorted(used - set(known)):
        raise UsageError(f"{where}: {path.name} uses {unknown[0]!r}: the variables are {', '.join(known)}")


def _where(error: Exception, name: str) -> str:
    """The template and line at which an error arose, as far as it can be told."""
    if isinstance(error, jinja2.TemplateSyntaxError):
        return f"{Path(error.name or name).name} line {error.lineno}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.endswith(".jinja")]
    return f"{Path(frames[-1].filename).name} line {frames[-1].lineno}" if frames else name


def _one_line(error: Exception) -> str:
    said = error.message if isinstance(error, jinja2.TemplateSyntaxError) else str(error)
    return " ".join((said or type(error).__name__).split())
