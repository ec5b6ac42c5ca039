"""Mutation of calls and names: what is called, with what, and which variable is read."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from typing import ClassVar

import numpy as np

from adrs_ray.generator.draft import Draft, unparse
from adrs_ray.generator.operators import Operator, choose
from adrs_ray.generator.scope import BUILTINS, parameters
from adrs_ray.generator.survey import Place

_MOST_FUNCTIONS = 100
"""Functions that are looked through for one that a call could call instead: a program may have thousands of both."""


class SwapArguments(Operator[Place]):
    """Exchange two positional arguments of a call, unless their order is known not to matter."""

    name = "swap_arguments"
    _SYMMETRIC = frozenset({"min", "max", "gcd", "lcm", "hypot", "maximum", "minimum"})

    def sites(self, draft: Draft) -> Sequence[Place]:
        return [
            p for p in draft.survey.expressions.get(ast.Call, ()) if isinstance(p.node, ast.Call) and self._fits(p.node)
        ]

    def _fits(self, node: ast.Call) -> bool:
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
        starred = any(isinstance(a, ast.Starred) for a in node.args)
        return len(node.args) > 1 and not starred and name not in self._SYMMETRIC

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        assert isinstance(node, ast.Call)
        i, j = sorted(int(k) for k in rng.choice(len(node.args), size=2, replace=False))
        start = draft.span(node)[0]
        (a, b), (c, d) = draft.span(node.args[i]), draft.span(node.args[j])
        text = draft.source
        swapped = text[start:a] + text[c:d] + text[b:c] + text[a:b] + text[d : draft.span(node)[1]]
        args = list(node.args)
        args[i], args[j] = args[j], args[i]
        return draft.replace(site, ast.Call(node.func, args, node.keywords), [swapped])


class ReplaceCall(Operator[Place]):
    """Call something else that takes the same arguments: a function in scope, a sibling method, a related builtin."""

    name = "replace_call"
    rebinds = True
    RELATED: ClassVar[tuple[tuple[str, ...], ...]] = (
        ("min", "max"),
        ("min", "max", "sum", "len"),
        ("any", "all"),
        ("sorted", "list"),
        ("list", "tuple"),
        ("int", "round", "float", "abs"),
        ("floor", "ceil"),
        ("sqrt", "log1p", "log", "log2"),
        ("argmin", "argmax"),
        ("mean", "median", "max", "min", "sum"),
        ("maximum", "minimum"),
        ("cumsum", "cumprod"),
        ("heappushpop", "heapreplace"),
        ("nlargest", "nsmallest"),
        ("pop", "popleft"),
        ("append", "appendleft"),
    )

    def sites(self, draft: Draft) -> Sequence[Place]:
        return [p for p in draft.survey.expressions.get(ast.Call, ()) if any(self._found(draft, p))]

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        assert isinstance(node, ast.Call)
        name = choose(rng, self._choices(draft, site))
        func: ast.expr
        if isinstance(node.func, ast.Attribute):
            func = ast.Attribute(node.func.value, name, ast.Load())
        else:
            func = ast.Name(name, ast.Load())
        (start, stop), (begin, end) = draft.span(node), draft.span(node.func)
        renamed = draft.source[start:begin] + (unparse([func]) or name) + draft.source[end:stop]
        return draft.replace(site, ast.Call(func, node.args, node.keywords), [renamed])

    def _choices(self, draft: Draft, place: Place) -> list[str]:
        """Names that could stand in the place of the one called, in a fixed order."""
        return sorted(set(self._found(draft, place)))

    def _found(self, draft: Draft, place: Place) -> Iterator[str]:
        node = place.node
        if not isinstance(node, ast.Call):
            return
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            own = isinstance(node.func.value, ast.Name) and node.func.value.id == "self"
            yield from self._methods(node, name, place) if own else self._related(name)
        elif isinstance(node.func, ast.Name):
            name = node.func.id
            visible = (BUILTINS, *(draft.bound(scope) for scope in place.scopes))
            yield from (n for n in self._related(name) if any(n in names for names in visible))
            if name in draft.survey.function_names:
                yield from self._functions(draft, node, name, place)

    def _functions(self, draft: Draft, node: ast.Call, name: str, place: Place) -> Iterator[str]:
        inside = {id(scope) for scope in place.scopes}
        for _, function, scopes in draft.survey.functions[:_MOST_FUNCTIONS]:
            if (
                id(function) not in inside  # calling oneself seldom ends
                and function.name != name
                and scopes == place.scopes[: len(scopes)]
                and function.name in draft.bound(scopes[-1])
                and _accepts(function.args, node)
            ):
                yield function.name

    def _related(self, name: str) -> list[str]:
        return sorted({other for group in self.RELATED if name in group for other in group} - {name})

    def _methods(self, node: ast.Call, name: str, place: Place) -> list[str]:
        body = place.owner.body if place.owner is not None else []
        inside = {id(scope) for scope in place.scopes}
        return sorted(
            f.name
            for f in body
            if isinstance(f, ast.FunctionDef)
            and f.name != name
            and id(f) not in inside
            and not f.name.startswith("__")
            and not f.decorator_list
            and _accepts(f.args, node, bound=1)
        )


def _accepts(args: ast.arguments, call: ast.Call, bound: int = 0) -> bool:
    """Whether a function with these parameters can be called so (`bound` of them are given already)."""
    if any(isinstance(a, ast.Starred) for a in call.args) or any(k.arg is None for k in call.keywords):
        return False
    positional = [a.arg for a in (*args.posonlyargs, *args.args)]
    given = bound + len(call.args)
    keywords = {k.arg for k in call.keywords}
    if given > len(positional) and args.vararg is None:
        return False
    required = positional[given : len(positional) - len(args.defaults)]
    required += [a.arg for a, default in zip(args.kwonlyargs, args.kw_defaults, strict=True) if default is None]
    allowed = {*positional[given:], *(a.arg for a in args.kwonlyargs)}
    return keywords.issuperset(required) and (keywords <= allowed or args.kwarg is not None)


class ReplaceName(Operator[Place]):
    """Scalar variable replacement: read another local variable of the same function."""

    name = "replace_name"
    rebinds = True

    def sites(self, draft: Draft) -> Sequence[Place]:
        return [p for p in draft.survey.expressions.get(ast.Name, ()) if self._spare(draft, p)]

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        return draft.replace(site, ast.Name(choose(rng, self._choices(draft, site)), ast.Load()))

    def _choices(self, draft: Draft, place: Place) -> list[str]:
        spare = self._spare(draft, place)
        return [] if spare is None else sorted(spare[0] - spare[1])

    def _spare(self, draft: Draft, place: Place) -> tuple[frozenset[str], set[str]] | None:
        """Local names, and those among them that may not be chosen; None when that leaves nothing."""
        node, scope = place.node, place.scopes[-1]
        called = isinstance(place.parent, ast.Call) and place.field == "func"
        if not isinstance(node, ast.Name) or not isinstance(node.ctx, ast.Load) or called:
            return None
        if isinstance(scope, ast.Module):
            return None
        local = draft.bound(scope)
        own = parameters(scope.args)[:1] if place.owner is not None else []  # `self` is no value
        if node.id not in local or node.id in own:
            return None
        barred = {node.id, *(name for name in own if name in local)}
        return None if len(local) == len(barred) else (local, barred)
