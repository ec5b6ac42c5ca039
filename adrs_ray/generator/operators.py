"""Typed mutation operators on syntax trees.

Two traditions meet here. From mutation testing (Mothra's operator set: constant, relational, logical, arithmetic and
variable replacement, statement deletion) come operators that assume programs to be nearly right and change one token
of meaning. From genetic improvement (GenProg and its kin) comes the view that the material for a better program is
mostly in the program already: statements are deleted, copied and moved, not invented.

This module holds what an operator is, and those on logic and arithmetic; `literals`, `calls` and `statements` hold the
others, `adrs_ray.generator.mutate.OPERATORS` the table of all with their weights. Every operator lists the places where
it applies and changes one of them. None of them knows a task.
"""

from __future__ import annotations

import ast
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Generic, TypeAlias, TypeVar

import numpy as np

from adrs_ray.generator.draft import Draft
from adrs_ray.generator.survey import Place, Suite

_T = TypeVar("_T")
_Site = TypeVar("_Site")
StatementSite: TypeAlias = tuple[Suite, int]


def choose(rng: np.random.Generator, items: Sequence[_T]) -> _T:
    """One of the items, uniformly; the item itself, not numpy's copy of it."""
    return items[int(rng.integers(len(items)))]


class Operator(ABC, Generic[_Site]):
    """One kind of change."""

    name: ClassVar[str]
    rebinds: ClassVar[bool] = False
    """Whether it may leave a name unbound, so that the outcome has to be checked for that."""

    @abstractmethod
    def sites(self, draft: Draft) -> Sequence[_Site]:
        """Where it applies."""

    @abstractmethod
    def apply(self, draft: Draft, site: _Site, rng: np.random.Generator) -> Draft | None:
        """Change one site; None when nothing sensible came of it. The draft is spent either way."""


SYMBOLS: dict[type[ast.operator | ast.cmpop | ast.boolop], str] = {
    ast.Add: "+",
    ast.Sub: "-",
    ast.Mult: "*",
    ast.Div: "/",
    ast.FloorDiv: "//",
    ast.Mod: "%",
    ast.Pow: "**",
    ast.BitAnd: "&",
    ast.BitOr: "|",
    ast.BitXor: "^",
    ast.LShift: "<<",
    ast.RShift: ">>",
    ast.Lt: "<",
    ast.LtE: "<=",
    ast.Gt: ">",
    ast.GtE: ">=",
    ast.Eq: "==",
    ast.NotEq: "!=",
    ast.Is: "is",
    ast.IsNot: "is not",
    ast.In: "in",
    ast.NotIn: "not in",
    ast.And: "and",
    ast.Or: "or",
}
"""How the operators that are swapped are written."""


def respelled(draft: Draft, node: ast.expr, left: ast.expr, right: ast.expr, before: str, after: str) -> str:
    """The source of `node` with the operator between two of its operands written differently: keeps the layout."""
    (start, stop), gap = draft.span(node), (draft.span(left)[1], draft.span(right)[0])
    between = draft.source[gap[0] : gap[1]].replace(before, after, 1)
    return draft.source[start : gap[0]] + between + draft.source[gap[1] : stop]


class SwapCompare(Operator[Place]):
    """Relational operator replacement, mostly to the neighbour that differs in the boundary case."""

    name = "swap_compare"
    _NEAR: ClassVar[dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]]] = {
        ast.Lt: (ast.LtE, ast.LtE, ast.Gt, ast.GtE),
        ast.LtE: (ast.Lt, ast.Lt, ast.GtE, ast.Eq),
        ast.Gt: (ast.GtE, ast.GtE, ast.Lt, ast.LtE),
        ast.GtE: (ast.Gt, ast.Gt, ast.LtE, ast.Eq),
        ast.Eq: (ast.NotEq, ast.LtE, ast.GtE),
        ast.NotEq: (ast.Eq, ast.Lt, ast.Gt),
        ast.Is: (ast.IsNot,),
        ast.IsNot: (ast.Is,),
        ast.In: (ast.NotIn,),
        ast.NotIn: (ast.In,),
    }
    _ORDERLESS = (str, bytes, type(None), bool)

    def sites(self, draft: Draft) -> Sequence[Place]:
        return draft.survey.expressions.get(ast.Compare, ())

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        assert isinstance(node, ast.Compare)
        operands = [node.left, *node.comparators]
        at = int(rng.integers(len(node.ops)))
        new: type[ast.cmpop] = choose(rng, self._NEAR[type(node.ops[at])])
        sides = operands[at : at + 2]
        if any(isinstance(n, ast.Constant) and isinstance(n.value, self._ORDERLESS) for n in sides):
            opposite = {ast.Eq: ast.NotEq, ast.NotEq: ast.Eq}
            new = opposite.get(type(node.ops[at]), new)  # 'a' < x is no better idea than x != 'a'
        ops = [*node.ops[:at], new(), *node.ops[at + 1 :]]
        spelled = respelled(draft, node, sides[0], sides[1], SYMBOLS[type(node.ops[at])], SYMBOLS[new])
        return draft.replace(site, ast.Compare(node.left, ops, node.comparators), [spelled])


class SwapBoolean(Operator[Place]):
    """Logical connector replacement: `and` becomes `or` and the other way round."""

    name = "swap_boolean"

    def sites(self, draft: Draft) -> Sequence[Place]:
        return draft.survey.expressions.get(ast.BoolOp, ())

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        assert isinstance(node, ast.BoolOp)
        other = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        if len(node.values) > 2:
            return draft.replace(site, ast.BoolOp(other, node.values))
        left, right = node.values
        spelled = respelled(draft, node, left, right, SYMBOLS[type(node.op)], SYMBOLS[type(other)])
        return draft.replace(site, ast.BoolOp(other, node.values), [spelled])


class SwapArithmetic(Operator["Place | StatementSite"]):
    """Arithmetic operator replacement, in expressions and in augmented assignments.

    `**` and shifts to the left are never brought in: on large operands they do not end.
    """

    name = "swap_arithmetic"
    _OTHERS: ClassVar[dict[type[ast.operator], tuple[type[ast.operator], ...]]] = {
        ast.Add: (ast.Sub, ast.Sub, ast.Mult),
        ast.Sub: (ast.Add, ast.Add, ast.Div),
        ast.Mult: (ast.Div, ast.Div, ast.Add),
        ast.Div: (ast.Mult, ast.Mult, ast.FloorDiv, ast.Sub),
        ast.FloorDiv: (ast.Div, ast.Mod, ast.Mult),
        ast.Mod: (ast.FloorDiv, ast.Mult),
        ast.Pow: (ast.Mult, ast.Div),
        ast.BitAnd: (ast.BitOr, ast.BitXor),
        ast.BitOr: (ast.BitAnd, ast.BitXor),
        ast.BitXor: (ast.BitAnd, ast.BitOr),
        ast.LShift: (ast.RShift,),
    }
    _TEXT = (ast.JoinedStr, ast.List, ast.Dict, ast.Set, ast.ListComp)

    def sites(self, draft: Draft) -> Sequence[Place | StatementSite]:
        found: list[Place | StatementSite] = []
        for place in draft.survey.expressions.get(ast.BinOp, ()):
            node = place.node
            if isinstance(node, ast.BinOp) and self._numeric(node.op, node.left, node.right):
                found.append(place)
        for suite in draft.survey.suites:
            for index in suite.free:
                statement = suite.body[index]
                if isinstance(statement, ast.AugAssign) and self._numeric(statement.op, statement.value):
                    found.append((suite, index))
        return found

    def _numeric(self, op: ast.operator, *operands: ast.expr) -> bool:
        return type(op) in self._OTHERS and not any(
            isinstance(n, self._TEXT) or (isinstance(n, ast.Constant) and isinstance(n.value, str | bytes))
            for n in operands
        )

    def apply(self, draft: Draft, site: Place | StatementSite, rng: np.random.Generator) -> Draft | None:
        if isinstance(site, Place):
            node = site.node
            assert isinstance(node, ast.BinOp)
            new = choose(rng, self._OTHERS[type(node.op)])
            spelled = respelled(draft, node, node.left, node.right, SYMBOLS[type(node.op)], SYMBOLS[new])
            return draft.replace(site, ast.BinOp(node.left, new(), node.right), [spelled])
        suite, index = site
        statement = suite.body[index]
        assert isinstance(statement, ast.AugAssign)
        gap = (draft.span(statement.target)[1], draft.span(statement.value)[0])  # keeps a comment at the line's end
        between = draft.source[gap[0] : gap[1]]
        before, new = SYMBOLS[type(statement.op)], choose(rng, self._OTHERS[type(statement.op)])
        statement.op = new()
        return draft.commit([(*gap, between.replace(f"{before}=", f"{SYMBOLS[new]}=", 1))])


class NegateCondition(Operator[Place]):
    """Negate the condition of an `if`, a conditional expression or a filter.

    Loops are left alone: a negated `while` ends at once or never, and the latter costs a whole time limit.
    """

    name = "negate_condition"

    def sites(self, draft: Draft) -> Sequence[Place]:
        return draft.survey.conditions

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return draft.replace(site, node.operand, [draft.text(node.operand)])
        return draft.replace(site, ast.UnaryOp(ast.Not(), node), [f"not {draft.text(node)}"])
