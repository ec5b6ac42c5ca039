"""Mutation of numbers: constants, and the bounds of loops and slices.

Steps are log-normal, as in evolution strategies, so that 0.01 and 1,000 are searched on the same footing.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence

import numpy as np

from adrs_ray.generator.draft import Draft
from adrs_ray.generator.operators import Operator, choose
from adrs_ray.generator.survey import Place

_SIGMA = 0.5
"""Standard deviation of the logarithm of a step: two thirds of the steps stay within a factor of 1.65."""
_JUMP = 0.1
"""Share of float steps that change the order of magnitude instead."""
_FLIP = 0.05
"""Share of number steps that change the sign instead."""


class LiteralStep(Operator[Place]):
    """Perturb a number: integers stay integers, floats move by a factor, booleans flip."""

    name = "literal"

    def sites(self, draft: Draft) -> Sequence[Place]:
        signed = [p for p in draft.survey.expressions.get(ast.UnaryOp, ()) if number(p.node) is not None]
        inner = {id(p.node.operand) for p in signed if isinstance(p.node, ast.UnaryOp)}
        plain = [p for p in draft.survey.expressions.get(ast.Constant, ()) if number(p.node) is not None]
        return signed + [p for p in plain if id(p.node) not in inner]

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        value = number(site.node)
        assert value is not None
        return draft.replace(site, literal(perturb(value, rng)))


def number(node: ast.expr) -> bool | int | float | None:
    """The value of a number that can be perturbed (`3`, `-0.5`, `True`); None for anything else."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        operand = number(node.operand)
        return None if operand is None or isinstance(operand, bool) else -operand
    if not isinstance(node, ast.Constant):
        return None
    value = node.value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, int) and value.bit_length() <= 256 else None


def literal(value: bool | int | float) -> ast.expr:
    """The syntax of a number; negative ones are a minus sign and a constant, as the parser has it."""
    if isinstance(value, bool) or math.copysign(1, value) > 0:
        return ast.Constant(value)
    return ast.UnaryOp(ast.USub(), ast.Constant(-value))


def perturb(value: bool | int | float, rng: np.random.Generator) -> bool | int | float:
    """Another value of the same type near this one on a logarithmic scale."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return _perturb_int(value, rng)
    if value == 0:
        return float(f"{10.0 ** rng.uniform(-3, 0):.3g}") * (1 if rng.random() < 0.8 else -1)
    if rng.random() < _FLIP:
        return -value
    factor = float(choose(rng, (0.1, 10.0)) if rng.random() < _JUMP else np.exp(rng.normal(0.0, _SIGMA)))
    stepped = float(f"{value * factor:.4g}")
    return stepped if math.isfinite(stepped) and stepped not in (0.0, value) else value / 2


def _perturb_int(value: int, rng: np.random.Generator) -> int:
    if value == 0:
        return int(rng.choice([1, 2, -1], p=[0.6, 0.2, 0.2]))
    if abs(value) == 1:
        return value * int(rng.choice([0, 2, 3, -1], p=[0.35, 0.4, 0.15, 0.1]))
    if rng.random() < _FLIP:
        return -value
    stepped = (value * int(1024 * np.exp(rng.normal(0.0, _SIGMA))) + 512) >> 10
    return stepped if stepped != value else value + choose(rng, (-1, 1))


class LoopBound(Operator[Place]):
    """Move a bound of `range(...)` or of a slice by one, or halve or double it."""

    name = "loop_bound"

    def sites(self, draft: Draft) -> Sequence[Place]:
        calls = draft.survey.expressions.get(ast.Call, ())
        return [
            *draft.survey.expressions.get(ast.Slice, ()),
            *(p for p in calls if _called(p.node) == "range" and _only_positional(p.node)),
        ]

    def apply(self, draft: Draft, site: Place, rng: np.random.Generator) -> Draft | None:
        node = site.node
        if isinstance(node, ast.Call):
            at = int(rng.integers(len(node.args)))
            args = [self._moved(a, rng) if i == at else a for i, a in enumerate(node.args)]
            return draft.replace(site, ast.Call(node.func, args, []))
        assert isinstance(node, ast.Slice)
        lower, upper = node.lower, node.upper
        if rng.random() < 0.5:
            lower = self._moved(lower, rng) if lower is not None else ast.Constant(1)
        else:
            upper = self._moved(upper, rng) if upper is not None else literal(-1)
        return draft.replace(site, ast.Slice(lower, upper, node.step))

    def _moved(self, bound: ast.expr, rng: np.random.Generator) -> ast.expr:
        value = number(bound)
        step = choose(rng, (-1, 1))
        if isinstance(value, int) and not isinstance(value, bool):
            return literal(value + step)
        if rng.random() < 0.25:
            return ast.BinOp(bound, choose(rng, (ast.FloorDiv, ast.Mult))(), ast.Constant(2))
        if isinstance(bound, ast.BinOp) and isinstance(bound.op, ast.Add | ast.Sub):  # n + 1 - 1 is n again
            offset = number(bound.right)
            if isinstance(offset, int):
                step += offset if isinstance(bound.op, ast.Add) else -offset
                bound = bound.left
        if step == 0:
            return bound
        return ast.BinOp(bound, ast.Add() if step > 0 else ast.Sub(), ast.Constant(abs(step)))


def _called(node: ast.expr) -> str | None:
    """The plain name that a call calls."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else None


def _only_positional(node: ast.expr) -> bool:
    return (
        isinstance(node, ast.Call)
        and bool(node.args)
        and not node.keywords
        and not any(isinstance(a, ast.Starred) for a in node.args)
    )
