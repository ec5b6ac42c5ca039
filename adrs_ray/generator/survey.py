"""Where a program may change: the expressions and statements inside its evolve blocks."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from adrs_ray.generator.scope import Function, ScopeNode
from adrs_ray.program import is_idle

_FROZEN = frozenset({"annotation", "returns", "decorator_list", "args", "bases", "keywords", "type_params", "pattern"})
"""Fields of statements, match cases and lambdas in which no expression may change."""


@dataclass(frozen=True, slots=True)
class Place:
    """An expression inside an evolve block, and where the tree holds it."""

    node: ast.expr
    parent: ast.AST
    field: str
    index: int | None
    scopes: tuple[ScopeNode, ...]
    """The module and the functions round it, outermost first."""
    owner: ast.ClassDef | None
    """The class whose method holds it."""

    def put(self, new: ast.expr) -> None:
        """Replace it in the tree."""
        if self.index is None:
            setattr(self.parent, self.field, new)
        else:
            getattr(self.parent, self.field)[self.index] = new


@dataclass(frozen=True, slots=True)
class Suite:
    """A statement list; `free` are the indices of statements that lie inside an evolve block and do something."""

    body: list[ast.stmt]
    owner: ast.AST
    field: str
    qualname: str
    """Of the definition it belongs to, `''` for the module."""
    scopes: tuple[ScopeNode, ...]
    free: list[int]

    def runs(self, longest: int) -> Iterator[tuple[int, int]]:
        """Half-open index ranges of neighbours that may change together, up to `longest` statements."""
        free = set(self.free)
        for i in self.free:
            for j in range(i + 1, i + longest + 1):
                if j - 1 not in free:
                    break
                yield i, j


class Survey:
    """All places of a syntax tree, `blocks` being the first and last lines of its evolve blocks.

    Raises RecursionError on a tree that is nested too deeply.
    """

    def __init__(self, tree: ast.Module, blocks: Sequence[tuple[int, int]]) -> None:
        self.expressions: dict[type[ast.expr], list[Place]] = {}
        """By node class, in the order of the text."""
        self.conditions: list[Place] = []
        """What an `if`, a conditional expression or a comprehension's filter tests."""
        self.suites: list[Suite] = []
        self.by_body: dict[int, Suite] = {}
        """Suites by the identity of their statement list."""
        self.functions: list[tuple[str, Function, tuple[ScopeNode, ...]]] = []
        """(qualified name, function, scopes round it), also those outside evolve blocks."""
        self._blocks = blocks
        self._suite(tree.body, _Context(tree, "body", "", (tree,), None, inside=False))

    @cached_property
    def function_names(self) -> frozenset[str]:
        """Names of all functions and methods."""
        return frozenset(function.name for _, function, _ in self.functions)

    def _inside(self, node: ast.stmt | ast.expr) -> bool:
        first, last = first_line(node), node.end_lineno or node.lineno
        return any(a <= first and last <= b for a, b in self._blocks)

    def _suite(self, body: list[ast.stmt], at: _Context) -> None:
        suite = Suite(body, at.owner, at.field, at.qualname, at.scopes, [])
        self.suites.append(suite)
        self.by_body[id(body)] = suite
        for index, statement in enumerate(body):
            if is_idle(statement) or _is_main_guard(statement):
                continue
            inside = at.inside or self._inside(statement)
            if inside:
                suite.free.append(index)
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{at.qualname}.{statement.name}".lstrip(".")
                self.functions.append((name, statement, at.scopes))
                scopes = (*at.scopes, statement)
                self._suite(statement.body, _Context(statement, "body", name, scopes, at.klass, inside))
            elif isinstance(statement, ast.ClassDef):
                name = f"{at.qualname}.{statement.name}".lstrip(".")
                self._suite(statement.body, _Context(statement, "body", name, at.scopes, statement, inside))
            else:
                self._below(statement, _Context(statement, "", at.qualname, at.scopes, at.klass, inside))

    def _below(self, node: ast.AST, at: _Context) -> None:
        """Note the expressions and statement lists below a node that is no definition."""
        for name in node._fields:
            if name in _FROZEN and not isinstance(node, ast.Call):
                continue
            value = getattr(node, name)
            if isinstance(value, ast.expr):
                self._expression(Place(value, node, name, None, at.scopes, at.klass), at)
            elif isinstance(value, list) and value:
                if isinstance(value[0], ast.stmt):
                    self._suite(value, _Context(node, name, at.qualname, at.scopes, at.klass, at.inside))
                    continue
                for index, item in enumerate(value):
                    if isinstance(item, ast.expr):
                        self._expression(Place(item, node, name, index, at.scopes, at.klass), at)
                    elif isinstance(item, ast.AST):
                        self._below(item, at)

    def _expression(self, place: Place, at: _Context) -> None:
        node = place.node
        if isinstance(node, ast.JoinedStr):
            return  # before Python 3.12 the positions inside f-strings are wrong
        if at.inside or self._inside(node):
            self.expressions.setdefault(type(node), []).append(place)
            if place.field in ("test", "ifs") and isinstance(place.parent, ast.If | ast.IfExp | ast.comprehension):
                self.conditions.append(place)
        self._below(node, at)


@dataclass(frozen=True, slots=True)
class _Context:
    owner: ast.AST
    field: str
    qualname: str
    scopes: tuple[ScopeNode, ...]
    klass: ast.ClassDef | None
    inside: bool
    """Whether all of the owner lies inside one evolve block."""


def first_line(node: ast.stmt | ast.expr) -> int:
    """Where a node starts, a definition with its first decorator."""
    decorators = getattr(node, "decorator_list", None)
    return decorators[0].lineno if decorators else node.lineno


def _is_main_guard(node: ast.stmt) -> bool:
    """`if __name__ == "__main__":` never runs under judgement, so changing it changes nothing."""
    return isinstance(node, ast.If) and any(isinstance(n, ast.Name) and n.id == "__name__" for n in ast.walk(node.test))
