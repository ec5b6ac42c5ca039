"""Reading a chat completion: whatever bytes a server sent become a `Reply`, never an exception.

Pure. Thinking is told apart from the answer in the two ways that servers have: fields of their own, or `<think>` tags
in front of the answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_DETAIL_CHARS = 300
_MOST_TOKENS = 10**9
"""A larger count is no count."""
_BARE_END = re.compile(r"^[ \t]*</think>", re.MULTILINE)
"""Models whose template opens the thinking send its end alone, on a line of its own."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a chat completion says. Counts are None, or 0 for the parts of them, where the server gave none."""

    text: str = ""
    reasoning: str = ""
    cut_off: bool = False
    """The bound of tokens ended it."""
    problem: str = ""
    """One line: why there is nothing to use, as far as that is not plain from an empty text."""
    tokens_in: int | None = None
    tokens_out: int | None = None
    tokens_cached: int = 0
    tokens_reasoning: int = 0


def clean(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str, key: str | None) -> str:
    """A server's words as one short line, its key blotted out."""
    line = " ".join(_without_key(clean(text), key).split())
    return line if len(line) <= _DETAIL_CHARS else f"{line[:_DETAIL_CHARS]} ..."


def split_thinking(content: str) -> tuple[str, str]:
    """(reasoning, answer) of a text that may start with thinking; one that never ends it is thinking alone.

    Tags further down belong to the answer: programs may speak of them.
    """
    begin = content.lstrip()
    if begin.startswith("<think>"):
        reasoning, _, answer = begin.removeprefix("<think>").partition("</think>")
        return reasoning.strip(), answer.lstrip()
    if "<think>" not in content and (end := _BARE_END.search(content)):
        return content[: end.start()].strip(), content[end.end() :].lstrip()
    return "", content


def read_reply(data: bytes, key: str | None) -> Reply:
    """The body of an HTTP answer that was a success; `key` is blotted out wherever it stands."""
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return Reply(problem=f"malformed reply: no JSON in {len(data)} bytes")
    if not isinstance(parsed, dict):
        return Reply(problem=f"malformed reply: a {type(parsed).__name__} in place of an object")
    counts = _counts(_part(parsed, "usage"))
    choices = parsed.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        message = _part(parsed, "error").get("message")
        said = f": {message}" if isinstance(message, str) else ""
        return Reply(problem=one_line(f"malformed reply: no choices{said}", key), **counts)
    message = _part(choice, "message")
    content, reasoning = message.get("content"), _text(message.get("reasoning_content") or message.get("reasoning"))
    if isinstance(content, str) and not reasoning:
        reasoning, content = split_thinking(content)
    cut_off = choice.get("finish_reason") == "length"
    return Reply(
        text=_without_key(clean(_text(content)), key),
        reasoning=_without_key(clean(reasoning), key),
        cut_off=cut_off,
        problem=_problem(choice, message, content, thought=bool(reasoning) or cut_off, key=key),
        **counts,
    )


@dataclass(frozen=True, slots=True)
class ServerError:
    """The body of an HTTP answer that was no success."""

    message: str
    """In the server's words, several lines perhaps and the key among them; `""` where it says nothing."""
    code: str | None


def read_error(data: bytes) -> ServerError:
    """What a server says went wrong: in `error`, as OpenAI does, or in the object itself; else the text as it is."""
    text = clean(data.decode("utf-8", "replace"))
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        return ServerError(text, None)
    if not isinstance(parsed, dict):
        return ServerError(text, None)
    error = parsed.get("error", parsed)
    if not isinstance(error, dict):
        return ServerError(error if isinstance(error, str) else text, None)
    message, code = error.get("message"), error.get("code")
    return ServerError(message if isinstance(message, str) else text, code if isinstance(code, str) else None)


def _problem(
    choice: Mapping[str, Any], message: Mapping[str, Any], content: Any, thought: bool, key: str | None
) -> str:
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal.strip():
        return one_line(f"the model refuses: {refusal}", key)
    if choice.get("finish_reason") == "content_filter":
        return "stopped by the server's content filter"
    if not isinstance(content, str) and not (content is None and thought):
        return f"malformed reply: content is {'null' if content is None else type(content).__name__}"
    return ""


def _counts(usage: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "tokens_in": _count(usage.get("prompt_tokens")),
        "tokens_out": _count(usage.get("completion_tokens")),
        "tokens_cached": _count(_part(usage, "prompt_tokens_details").get("cached_tokens")) or 0,
        "tokens_reasoning": _count(_part(usage, "completion_tokens_details").get("reasoning_tokens")) or 0,
    }


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _without_key(text: str, key: str | None) -> str:
    return text.replace(key, "***") if key else text
