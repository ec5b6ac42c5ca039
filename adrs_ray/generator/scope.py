"""Which names a scope binds, and which are read where nothing has bound them.

A deliberate approximation of Python's name resolution: bindings count in the order of the text, branches are not told
apart. It serves to discard mutants that would only raise NameError, by comparing a mutant's `unbound_reads` with its
parent's, so that whatever the approximation gets wrong about the parent is forgiven in the child.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterable, Iterator
from typing import TypeAlias

Function: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef
Definition: TypeAlias = Function | ast.ClassDef
ScopeNode: TypeAlias = ast.Module | Function

BUILTINS = frozenset(dir(builtins)) | {"__file__", "__class__"}
_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)


def parameters(args: ast.arguments) -> list[str]:
    """All parameter names, in order of declaration."""
    named = [*args.posonlyargs, *args.args, *args.kwonlyargs]
    return [a.arg for a in (*named, args.vararg, args.kwarg) if a is not None]


def bound_names(scope: ScopeNode | ast.ClassDef) -> frozenset[str]:
    """Names that the scope itself binds: parameters, assignments, imports, definitions; not those declared global."""
    names: set[str] = set()
    outer: set[str] = set()
    if not isinstance(scope, ast.Module | ast.ClassDef):
        names.update(parameters(scope.args))
    for node in _own_nodes(scope.body):
        names.update(_bindings(node))
        if isinstance(node, ast.Global | ast.Nonlocal):
            outer.update(node.names)
    return frozenset(names - outer)


def _own_nodes(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Nodes of a scope, nested scopes' insides left out (but the nested definitions themselves yielded)."""
    stack = list(body)
    while stack:
        node = stack.pop()
        yield node
        if isinstance(node, _DEFINITIONS):
            stack.extend(node.decorator_list)
        elif isinstance(node, ast.comprehension):
            stack.extend([node.iter, *node.ifs])
        elif not isinstance(node, ast.Lambda):
            stack.extend(ast.iter_child_nodes(node))


def _bindings(node: ast.AST) -> Iterator[str]:
    """Names that this very node binds."""
    if isinstance(node, ast.Name):
        if isinstance(node.ctx, ast.Store):
            yield node.id
    elif isinstance(node, _DEFINITIONS):
        yield node.name
    elif isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            yield alias.asname or alias.name.split(".")[0]
    elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar):
        if node.name is not None:
            yield node.name
    elif isinstance(node, ast.MatchMapping) and node.rest is not None:
        yield node.rest


def unbound_reads(tree: ast.Module) -> frozenset[tuple[str, str]]:
    """(qualified scope name, name) for each name read before, or without, being bound. Raises RecursionError.

    A module with `from x import *` binds everything, as far as can be known.
    """
    stars = any(isinstance(n, ast.ImportFrom) and n.names[0].name == "*" for n in tree.body)
    return frozenset(_Reader("", tree, (), stars).read())


class _Reader:
    """Walks one scope in order of execution, as far as the text tells it, and nested functions after it."""

    def __init__(self, name: str, scope: ScopeNode, outer: tuple[frozenset[str], ...], stars: bool) -> None:
        self._name = name
        self._scope = scope
        self._bound = bound_names(scope)
        self._outer = outer
        self._stars = stars
        self._seen: set[str] = set() if isinstance(scope, ast.Module) else set(parameters(scope.args))
        self._inner: list[frozenset[str]] = []  # names of comprehensions, lambdas and class bodies we are in
        self._later: list[tuple[str, Function]] = []
        self._found: set[tuple[str, str]] = set()

    def read(self) -> set[tuple[str, str]]:
        for statement in self._scope.body:
            self._visit(statement)
        for name, function in self._later:
            reader = _Reader(name, function, (*self._outer, self._bound), self._stars)
            self._found |= reader.read()
        return self._found

    def _visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.Name):
            if isinstance(node.ctx, ast.Load):
                self._load(node.id, ordered=True)
            elif isinstance(node.ctx, ast.Store):
                self._seen.add(node.id)
        elif isinstance(node, ast.Lambda):
            self._visit_lambda(node)
        elif isinstance(node, _COMPREHENSIONS):
            self._visit_comprehension(node)
        elif isinstance(node, _DEFINITIONS):
            self._visit_definition(node)
        else:
            for child in _execution_order(node):
                self._visit(child)
            if isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
                self._load(node.target.id, ordered=True)
            self._seen.update(_bindings(node))

    def _load(self, name: str, ordered: bool) -> None:
        if any(name in names for names in self._inner):
            return
        if name in self._bound:
            if ordered and name not in self._seen:
                self._found.add((self._name, name))
        elif not (self._stars or name in BUILTINS or any(name in names for names in self._outer)):
            self._found.add((self._name, name))

    def _visit_lambda(self, node: ast.Lambda) -> None:
        for default in (*node.args.defaults, *node.args.kw_defaults):
            if default is not None:
                self._visit(default)
        self._inner.append(frozenset(parameters(node.args)))
        for child in ast.walk(node.body):  # runs later: order says nothing
            if isinstance(child, ast.comprehension | ast.Lambda):
                names = {n.id for n in ast.walk(child) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
                names.update(a.arg for a in ast.walk(child) if isinstance(a, ast.arg))
                self._inner[-1] |= names
        for child in ast.walk(node.body):
            if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Load):
                self._load(child.id, ordered=False)
        self._inner.pop()

    def _visit_comprehension(self, node: ast.AST) -> None:
        generators: list[ast.comprehension] = node.generators  # type: ignore[attr-defined]
        for generator in generators:
            self._visit(generator.iter)
            targets = (n.id for n in ast.walk(generator.target) if isinstance(n, ast.Name))
            self._inner.append(frozenset(targets))
            for condition in generator.ifs:
                self._visit(condition)
        for field in ("key", "value", "elt"):
            if hasattr(node, field):
                self._visit(getattr(node, field))
        del self._inner[-len(generators) :]

    def _visit_definition(self, node: Definition) -> None:
        for decorator in node.decorator_list:
            self._visit(decorator)
        name = f"{self._name}.{node.name}"
        if isinstance(node, ast.ClassDef):
            for base in (*node.bases, *(k.value for k in node.keywords)):
                self._visit(base)
            self._inner.append(bound_names(node))
            seen = set(self._seen)
            outer_name, self._name = self._name, name
            for statement in node.body:
                self._visit(statement)
            self._name = outer_name
            self._inner.pop()
            self._seen = seen
        else:
            for default in (*node.args.defaults, *node.args.kw_defaults):
                if default is not None:
                    self._visit(default)
            self._later.append((name, node))
        self._seen.add(node.name)


def _execution_order(node: ast.AST) -> Iterator[ast.AST]:
    """Children in the order in which they run: what is read before what is bound. Annotations are left out."""
    if isinstance(node, ast.Assign):
        yield from (node.value, *node.targets)
    elif isinstance(node, ast.AnnAssign):
        yield from (n for n in (node.value, node.target) if n is not None)
    elif isinstance(node, ast.NamedExpr):
        yield from (node.value, node.target)
    elif isinstance(node, ast.For | ast.AsyncFor):
        yield from (node.iter, node.target, *node.body, *node.orelse)
    elif isinstance(node, ast.AugAssign):
        yield node.value
        if not isinstance(node.target, ast.Name):
            yield node.target
    elif isinstance(node, ast.ExceptHandler):
        yield from _handler(node)
    else:
        yield from ast.iter_child_nodes(node)


def _handler(node: ast.ExceptHandler) -> Iterator[ast.AST]:
    if node.type is not None:
        yield node.type
    if node.name is not None:  # bound before its body runs
        yield ast.Name(node.name, ast.Store())
    yield from node.body
