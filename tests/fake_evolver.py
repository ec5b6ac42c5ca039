"""What a model of the fake server answers to our prompts: the parent with one number changed, by the prompt's hash.

As a diff where the prompt asks for SEARCH/REPLACE blocks, as a whole program where it does not, as notes where it
wants notes. Equal requests (messages and seed) get equal answers.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from dataclasses import dataclass
from typing import Any

_FENCE = re.compile(r"(`{3,}|~{3,})[ \t]*([\w+-]*)[ \t]*")
_NUMBER = re.compile(r"(?<![\w.])(\d{1,9}(?:\.\d{1,9})?)(?![\w.])")
NOTES = "Worked: other numbers.\n\nFailed: the same numbers again.\n\nUntried: numbers that nobody has tried."


@dataclass(frozen=True)
class Shown:
    """A fenced text of a prompt and the last heading before it."""

    heading: str
    language: str
    text: str


def read_prompt(prompt: str) -> tuple[list[Shown], str]:
    """The fenced texts in order, and all that stands outside fences."""
    shown: list[Shown] = []
    outside: list[str] = []
    heading = fence = language = ""
    inside: list[str] = []
    for line in prompt.split("\n"):
        if fence:
            if line.strip() == fence:
                shown.append(Shown(heading, language, "\n".join(inside)))
                fence = ""
            else:
                inside.append(line)
        elif found := _FENCE.fullmatch(line.strip()):
            fence, language, inside = found[1], found[2], []
        else:
            outside.append(line)
            heading = line if line.startswith("#") else heading
    return shown, "\n".join(outside)


def evolve(body: dict[str, Any]) -> str:
    """The answer to a chat completion's request."""
    messages = body["messages"]
    key = json.dumps([messages, body.get("seed")], sort_keys=True).encode()
    rng = random.Random(hashlib.sha256(key).digest())
    shown, outside = read_prompt("\n".join(m["content"] for m in messages if m["role"] == "user"))
    if "Untried:" in outside:
        return NOTES
    programs = [p for p in shown if "EVOLVE-BLOCK-START" in p.text] or [p for p in shown if p.language == "python"]
    if not programs:
        return "Idea: there is no program to change"
    parents = [p for p in programs if "parent" in p.heading.lower()] or programs
    lines = parents[-1].text.split("\n")
    diff = "<<<<<<< SEARCH" in outside
    change = _change(lines, rng, alone=diff)
    if change is None:
        return "Idea: there is no number to change"
    at, old, new = change
    idea = f"Idea: {old.strip()[:80]} becomes {new.strip()[:80]}"
    if diff:
        return f"{idea}\n\n<<<<<<< SEARCH\n{old}\n=======\n{new}\n>>>>>>> REPLACE\n"
    program = "\n".join([*lines[:at], new, *lines[at + 1 :]])
    fence = "`" * max([3, *(len(run) + 1 for run in re.findall("`+", program))])
    return f"{idea}\n\n{fence}python\n{program}\n{fence}\n"


def _change(lines: list[str], rng: random.Random, alone: bool) -> tuple[int, str, str] | None:
    """(index, line, line with another number) inside the evolve blocks; `alone`: a line that occurs once."""
    marked = any("EVOLVE-BLOCK-START" in line for line in lines)
    inside = not marked
    places: list[tuple[int, re.Match[str]]] = []
    for at, line in enumerate(lines):
        if "EVOLVE-BLOCK-" in line:
            inside = "EVOLVE-BLOCK-START" in line
        elif inside and not line.lstrip().startswith(("#", '"', "'")) and (not alone or lines.count(line) == 1):
            places += [(at, found) for found in _NUMBER.finditer(line.partition("#")[0])]
    if not places:
        return None
    at, found = rng.choice(places)
    line = lines[at]
    return at, line, line[: found.start()] + _other(found[1], rng) + line[found.end() :]


def _other(number: str, rng: random.Random) -> str:
    if "." in number:
        return repr(round(float(number) * rng.uniform(0.5, 2.0) + rng.uniform(0.001, 0.1), 4))
    return str(int(number) + rng.randint(1, 9))
