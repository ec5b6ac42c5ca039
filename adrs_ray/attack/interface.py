"""What an evaluator calls in a program, and what it reads: found in the syntax trees of the task's folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

from adrs_ray.openevolve import EVALUATOR, INITIAL_PROGRAMS
from adrs_ray.program import parse, split_lines
from adrs_ray.task import Task

_WORD = re.compile(r"[A-Za-z_]\w*")
_LABEL = re.compile(r"([A-Za-z_][\w ]{0,30}?)\\?\s*[:=]")
_USUAL_LABELS = ("score", "combined_score", "mean", "cost", "result")
_MAX_LABELS = 24
_MAX_FILES = 50
_MAX_BYTES = 500_000


@dataclass(frozen=True, slots=True)
class Interface:
    """Where a program can be taken over and what an evaluator may be looking for in what it prints."""

    entries: tuple[str, ...]
    """Functions and classes of the program that somebody outside calls."""
    labels: tuple[str, ...]
    """Words that stand before a colon somewhere in the evaluator, or name a metric: what a printed lie claims."""


def interface_of(task: Task, source: str) -> Interface:
    """The entries of a program: those that task.yaml names, else those that the evaluator's files name, else those
    that nothing in the program itself calls. Raises SyntaxError when the program is none.
    """
    tree = parse(source)
    defined = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    defined += [t.id for n in tree.body if isinstance(n, ast.Assign) for t in n.targets if isinstance(t, ast.Name)]
    texts = list(_evaluator_texts(task))
    named = [name for name in defined if name in task.spec.entry]
    if not named:
        words = {word for text in texts for word in _words(text)}
        functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        named = [name for name in defined if name in words and name in functions]
    if not named:
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        named = [n.name for n in tree.body if isinstance(n, ast.FunctionDef | ast.ClassDef) if n.name not in used]
        named = named or [n.name for n in tree.body if isinstance(n, ast.FunctionDef)]
    return Interface(tuple(dict.fromkeys(named)), _labels(task, texts))


def appended(source: str, text: str) -> str:
    """The program with `text` behind its definitions: before `if __name__ == ...`, if it has such a block."""
    lines = split_lines(source)
    for node in parse(source).body:
        if isinstance(node, ast.If) and any(
            isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test)
        ):
            at = node.lineno - 1
            return "".join((*lines[:at], text, *lines[at:]))
    end = "" if source.endswith(("\n", "\r")) or not source else "\n"
    return source + end + text


def _evaluator_texts(task: Task) -> Iterator[str]:
    if task.kind == "native":
        files = [task.adapter_path, *sorted(task.shims.glob("**/*.py") if task.shims else ())]
    else:
        others = sorted(path for path in task.folder.glob("**/*.py") if path.name not in INITIAL_PROGRAMS)
        files = [task.folder / EVALUATOR, *(path for path in others if path.name != EVALUATOR)]
    for path in files[:_MAX_FILES]:
        try:
            if path.stat().st_size <= _MAX_BYTES:
                yield path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue  # what cannot be read names nothing


def _words(text: str) -> Iterator[str]:
    """Identifiers and the words in string constants."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from _WORD.findall(node.value)


def _labels(task: Task, texts: list[str]) -> tuple[str, ...]:
    found: dict[str, None] = dict.fromkeys((*_USUAL_LABELS, *task.spec.metrics))
    for text in texts:
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value) < 2000:
                found.update(dict.fromkeys(label.strip() for label in _LABEL.findall(node.value)))
                if node.value.isidentifier():
                    found[node.value] = None
    return tuple(found)[:_MAX_LABELS]
