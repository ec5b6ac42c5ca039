"""Contamination: how near a program is to programs that are known, so that recall can be told from discovery.

Two measures, both 0 to 1 and inside evolve blocks only: common token 3-grams, and common subtrees of the syntax trees
with the program's own names blanked, which sees a copy through renaming, layout and moved statements.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adrs_ray.errors import UsageError
from adrs_ray.program import MAX_CHARS, block_tokens, describe, evolve_blocks, is_idle, parse
from adrs_ray.task import Task, read_program

SUBTREE_NODES = 5
"""Smaller subtrees (`a[i]`, `x = y`, `f(x)`) are the same in all programs and do not count."""


@dataclass(frozen=True, slots=True)
class Nearness:
    """How near a program is to one known program; 1 is a copy."""

    name: str
    shingles: float
    """Dice similarity of the multisets of token 3-grams."""
    tree: float
    """Dice similarity of the multisets of subtrees; 0 where one of the two does not parse."""

    @property
    def largest(self) -> float:
        return max(self.shingles, self.tree)


def known_programs(task: Task, folder: str | None) -> dict[str, str]:
    """Texts by name: the task's baselines, and `known/<file>` for each *.py of a folder of the user's.

    Raises UsageError, one line, when the folder is none or has no *.py, or a file cannot be read or is too long.
    """
    known = {name: read_program(path) for name, path in task.baselines().items()}
    if folder is None:
        return known
    where = Path(folder).expanduser()
    if not where.is_dir():
        raise UsageError(f"finish.known {folder!r} is no folder: give one that holds known programs as *.py")
    paths = sorted(where.glob("*.py"))
    if not paths:
        raise UsageError(f"finish.known {folder!r} holds no *.py: give a folder of known programs")
    for path in paths:
        source = read_program(path)
        if len(source) > MAX_CHARS:
            raise UsageError(f"known program {path} has {len(source)} characters: at most {MAX_CHARS} are compared")
        known[f"known/{path.name}"] = source
    return known


def nearest(source: str, known: Mapping[str, str], count: int = 3) -> tuple[Nearness, ...]:
    """The `count` known programs that `source` is nearest to, by the larger of both measures; among equals by name.

    Never raises for what a program contains. Costs O(length) for each known program.
    """
    forest = _Forest()
    tree = forest.subtrees(source)
    found = [
        Nearness(name, _shingles(source, text), _dice(tree, forest.subtrees(text))) for name, text in known.items()
    ]
    return tuple(sorted(found, key=lambda n: (-n.largest, n.name))[:count])


def _shingles(source: str, other: str) -> float:
    source, other = _one_block(source), _one_block(other)
    return 1.0 - describe(source, block_tokens(other)).distance


def _one_block(source: str) -> str:
    """The program itself, or with broken markers blanked, so that all of it is one block."""
    try:
        evolve_blocks(source)
    except ValueError:
        return source.replace("EVOLVE-BLOCK-", "")
    return source


def _dice(one: Counter[int], other: Counter[int]) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 0.0


class _Forest:
    """Numbers subtrees of any number of programs: equal ones get equal numbers, in one table, without collisions."""

    def __init__(self) -> None:
        self._numbers: dict[tuple[object, ...], int] = {}

    def subtrees(self, source: str) -> Counter[int]:
        """How often each subtree of a certain size occurs in the evolve blocks; empty when the program does not parse.

        No recursion: a tree may be deeper than Python's stack.
        """
        try:
            tree = parse(source)
        except SyntaxError:
            return Counter()
        own = _own_names(tree)
        blocks = evolve_blocks(_one_block(source))
        block_of = {line: b for b, block in enumerate(blocks) for line in range(block.first_line, block.last_line + 1)}
        counts: Counter[int] = Counter()
        done: dict[int, tuple[int, int]] = {}  # id of a node -> its number and size
        for node in _children_first(tree):
            children = [done.pop(id(child)) for child in _children(node)]
            size = 1 + sum(child[1] for child in children)
            key = (*_label(node, own), *(child[0] for child in children))
            number = self._numbers.setdefault(key, len(self._numbers))
            done[id(node)] = number, size
            if size >= SUBTREE_NODES and isinstance(node, ast.stmt | ast.expr):
                block = block_of.get(node.lineno)
                counts[number] += block is not None and block == block_of.get(node.end_lineno or node.lineno)
        return +counts


_UNSAID = frozenset({"ctx", "kind", "type_comment", "type_ignores", "annotation", "returns"})
"""Fields that do not change what a program does."""

_OPERATORS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop)


def _children_first(tree: ast.AST) -> list[ast.AST]:
    order, stack = [], [tree]
    while stack:
        order.append(node := stack.pop())
        stack.extend(_children(node))
    return order[::-1]


def _fields(node: ast.AST) -> Iterator[Any]:
    """The values of a node's fields that say something; statements that do nothing are left out of lists."""
    for name in node._fields:
        if name not in _UNSAID:
            value = getattr(node, name, None)
            yield [item for item in value if not is_idle(item)] if isinstance(value, list) else value


def _children(node: ast.AST) -> list[ast.AST]:
    """Subtrees below a node; operators are part of its label."""
    values = (item for value in _fields(node) for item in (value if isinstance(value, list) else [value]))
    return [value for value in values if isinstance(value, ast.AST) and not isinstance(value, _OPERATORS)]


def _label(node: ast.AST, own: frozenset[str]) -> Iterator[object]:
    """All of a node but its subtrees, whose places are marked: label and subtrees together make the node."""
    yield type(node)
    if isinstance(node, ast.Constant):
        yield from (type(node.value), node.value)
        return
    for value in _fields(node):
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.AST):
                yield type(item) if isinstance(item, _OPERATORS) else ast.AST
            else:
                yield "" if item in own else item
        if isinstance(value, list):
            yield list


def _own_names(tree: ast.AST) -> frozenset[str]:
    """Names that the program gives itself and could give otherwise: what it binds, defines, takes as parameters or
    sets on objects. Names from elsewhere (builtins, modules' functions, methods of other objects) are no such ones."""
    own: set[str | None] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.Attribute(attr=name, ctx=ast.Store()):
                own.add(name)
            case ast.arg(arg=name) | ast.alias(asname=name) | ast.MatchMapping(rest=name):
                own.add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                own.add(name)
            case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
                own.add(name)
    return frozenset(name for name in own if name is not None)
