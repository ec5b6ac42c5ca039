"""Asking again: what was wrong with an answer, told within the same token budget as the prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from adrs_ray.config import ModelConfig
from adrs_ray.generator import Message
from adrs_ray.prompt.allowance import fits
from adrs_ray.prompt.artifacts import shortened
from adrs_ray.prompt.environment import environment
from adrs_ray.prompt.fence import printable

ANSWER_CHARS = (24_000, 6_000, 1_200)
"""How much of its own answer a model is shown: the first that fits."""
DETAIL_CHARS = 2_000
_SHORT_DETAIL_CHARS = 300


@dataclass(frozen=True, slots=True)
class FollowUpProblem:
    """Why an answer is asked for again."""

    kind: Literal["edit", "syntax", "interface", "duplicate", "thinking"]
    detail: str
    """One line: the reason, the error, what was repeated and with what similarity. Shown as data."""
    other: str = ""
    """The program that was repeated, shown as data if there is room for it."""


def follow_up(
    messages: tuple[Message, ...], answer: str, problem: FollowUpProblem, model: ModelConfig
) -> tuple[Message, ...]:
    """The messages that ask again: the conversation, the answer, what was wrong with it.

    What is within the model's budget stays within it: first the repeated program is left out, then the answer is
    shortened, then earlier rounds go, then the answer; in the end the prompt alone is asked again. After thinking
    without an answer the prompt gets one more sentence, once.
    """
    tries = _again(messages, answer, problem) if problem.kind != "thinking" else _at_once(messages)
    opening = _opening(messages)
    return next((made for made in tries if fits(made, model)), opening)


def _opening(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The prompt itself: everything up to the first user message."""
    first = next((index for index, message in enumerate(messages) if message.role == "user"), len(messages) - 1)
    return messages[: first + 1]


def _again(messages: tuple[Message, ...], answer: str, problem: FollowUpProblem) -> Iterator[tuple[Message, ...]]:
    said = printable(answer).strip() or "(no text)"
    with_other = (problem.other, "") if problem.other else ("",)
    opening = _opening(messages)
    for conversation in dict.fromkeys((messages, opening)):
        for chars in ANSWER_CHARS:
            for other in with_other if chars == ANSWER_CHARS[0] else ("",):
                request = _request(problem, shortened(problem.detail, DETAIL_CHARS), other)
                yield (*conversation, Message("assistant", shortened(said, chars)), Message("user", request))
    short = _request(problem, shortened(problem.detail, _SHORT_DETAIL_CHARS), "")
    yield _with_sentence(opening, short)


def _request(problem: FollowUpProblem, detail: str, other: str) -> str:
    template = environment(None).get_template("follow_up/again.jinja")
    return template.render(kind=problem.kind, detail=detail, other=other)


def _at_once(messages: tuple[Message, ...]) -> Iterator[tuple[Message, ...]]:
    sentence = environment(None).get_template("follow_up/thinking.jinja").render()
    for conversation in dict.fromkeys((messages, _opening(messages))):
        yield conversation if conversation[-1].content.endswith(sentence) else _with_sentence(conversation, sentence)


def _with_sentence(messages: tuple[Message, ...], text: str) -> tuple[Message, ...]:
    last = messages[-1]
    return (*messages[:-1], Message(last.role, f"{last.content.rstrip()}\n\n{text}"))
