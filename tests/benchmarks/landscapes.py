"""Synthetic tasks: programs whose six numbers are a point, and landscapes over such points.

Programs are real Python that the real mutator changes; they are interpreted, never executed. A landscape is a kind and
a seed, which draws where its optima lie. The score is the mean over three cases of two coordinates each; 0 is the seed
program, 1 the optimum:

- smooth: one basin, a rotated ellipsoid whose axes differ by a factor of 4;
- deceptive: per case a wide basin with a local optimum of 0.5, and on the far side of the seed a narrow one with 1;
- noisy: the smooth one, every figure of every case with Gaussian noise of standard deviation 0.2 at each evaluation.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from adrs_ray.candidate import CaseResult, Evaluation, Failure, FailureKind, Verdict
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.prompt import MetricBrief, TaskBrief

Kind: TypeAlias = Literal["smooth", "deceptive", "noisy"]
Point: TypeAlias = NDArray[np.float64]

KINDS: tuple[Kind, ...] = get_args(Kind)
DIMENSIONS = 6
CASES = 3
NOISE = 0.2
LOCAL_OPTIMUM = 0.5
NARROW = 0.7
"""Radius of the narrow basin, in distances between the seed and its optimum."""
LOWEST = -1.0
"""Figures below are cut off: a program far from everything is no worse than that."""

SEED = """\
# EVOLVE-BLOCK-START
def placement(load, slack):
    near = load * 1.5
    if near > 4.0:
        near = near - 0.5
    return [near, near + slack, max(load, 2.0)]


def policy():
    load = 3.0
    slack = 1.0
    share = load + 2.0 * slack
    return placement(load, slack) + [share, share * 0.8, 6.0 - slack]
# EVOLVE-BLOCK-END
"""

# -- programs --------------------------------------------------------------------------------------------------------

_STEPS = 2_000
_DEPTH = 8
_LARGEST = 1e9
_LONGEST = 64
"""Elements of a list."""
_BUILTINS: Mapping[str, Callable[..., Any]] = {
    function.__name__: function for function in (min, max, abs, sum, len, sorted, round, float, int)
}
_OPERATORS: Mapping[type[ast.AST], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
    ast.FloorDiv: lambda a, b: a // b,
    ast.Mod: lambda a, b: a % b,
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
    ast.Eq: lambda a, b: a == b,
    ast.NotEq: lambda a, b: a != b,
}


class ProgramError(Exception):
    """A program gives no point."""


class _Return(Exception):
    """How a function ends."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Interpreter:
    """Functions, assignments, branches and arithmetic on numbers and lists of numbers."""

    def __init__(self, tree: ast.Module) -> None:
        self._functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
        self._steps = 0

    def call(self, name: str, args: Sequence[Any], depth: int = 0) -> Any:
        function = self._functions.get(name)
        if function is None or len(function.args.args) != len(args) or depth > _DEPTH:
            raise ProgramError(f"{name} cannot be called with {len(args)} arguments here")
        names = {parameter.arg: value for parameter, value in zip(function.args.args, args, strict=True)}
        try:
            self._run(function.body, names, depth)
        except _Return as end:
            return end.value
        return None

    def _run(self, body: Sequence[ast.stmt], names: dict[str, Any], depth: int) -> None:
        for statement in body:
            match statement:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    names[name] = self._value(value, names, depth)
                case ast.If(test=test, body=then, orelse=otherwise):
                    self._run(then if self._value(test, names, depth) else otherwise, names, depth)
                case ast.Return(value=ast.expr() as value):
                    raise _Return(self._value(value, names, depth))
                case ast.Pass():
                    pass
                case _:
                    raise ProgramError(f"{type(statement).__name__} is not known here")

    def _value(self, node: ast.expr, names: dict[str, Any], depth: int) -> Any:
        self._steps += 1
        if self._steps > _STEPS:
            raise ProgramError("too many steps")

        def of(expression: ast.expr) -> Any:
            return self._value(expression, names, depth)

        match node:
            case ast.Constant(value=bool() | int() | float() as value):
                return _checked(value)
            case ast.Name(id=name):
                if name not in names:
                    raise ProgramError(f"{name} has no value")
                return names[name]
            case ast.BinOp(left=left, op=op, right=right):
                return self._binary(op, of(left), of(right))
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return -of(operand)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not of(operand)
            case ast.Compare(left=left, ops=ops, comparators=others):
                figures = [of(left), *map(of, others)]
                return all(self._binary(op, a, b) for op, a, b in zip(ops, figures, figures[1:], strict=False))
            case ast.List(elts=elements):
                return _checked([of(element) for element in elements])
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
                figures = [of(argument) for argument in args]
                if name in self._functions:
                    return self.call(name, figures, depth + 1)
                if name in _BUILTINS:
                    return _checked(_BUILTINS[name](*figures))
        raise ProgramError(f"{type(node).__name__} is not known here")

    def _binary(self, op: ast.AST, left: Any, right: Any) -> Any:
        if type(op) not in _OPERATORS or (isinstance(left, list) != isinstance(right, list)):
            raise ProgramError(f"{type(op).__name__} of these operands is not known here")
        return _checked(_OPERATORS[type(op)](left, right))


def _checked(value: Any) -> Any:
    """The value, if it is of a size that further steps cannot blow up."""
    numbers = value if isinstance(value, list) else [value]
    if len(numbers) > _LONGEST:
        raise ProgramError("a list is too long")
    if not all(abs(number) <= _LARGEST for number in numbers):
        raise ProgramError("a number is too large")
    return value


def point_of(source: str) -> Point:
    """What `policy()` of a program returns. Raises ProgramError, in bounded time, when that is no point."""
    try:
        returned = _Interpreter(ast.parse(source)).call("policy", ())
        if not isinstance(returned, list) or len(returned) != DIMENSIONS:
            raise ProgramError(f"a list of {DIMENSIONS} numbers was expected")
        return np.array([float(_checked(number)) for number in returned])
    except (SyntaxError, TypeError, ValueError, ArithmeticError, RecursionError, MemoryError) as error:
        raise ProgramError(f"{type(error).__name__}: {error}") from None


# -- landscapes ------------------------------------------------------------------------------------------------------


_Surface: TypeAlias = tuple[Point, Callable[[Point], Point]]
"""The optimum and the figures of a point, points being relative offsets from that of the seed program."""


@dataclass(frozen=True)
class Landscape:
    """A kind and a seed. `figures` and `value` are free of noise."""

    kind: Kind
    seed: int

    @property
    def name(self) -> str:
        return self.kind

    @property
    def noisy(self) -> bool:
        return self.kind == "noisy"

    @property
    def brief(self) -> TaskBrief:
        metrics = (MetricBrief("closeness", "1", "max"),)
        return TaskBrief(self.name, "reach a point", "", ("policy",), SEED, metrics, "closeness", noisy=self.noisy)

    @property
    def optimum(self) -> Point:
        """The point with the score 1."""
        return (1.0 + self._surface[0]) * point_of(SEED)

    @cached_property
    def _surface(self) -> _Surface:
        rng = np.random.default_rng((KINDS.index(self.kind), self.seed))
        return _deceptive(rng) if self.kind == "deceptive" else _smooth(rng)

    def figures(self, point: Point) -> Point:
        """One per case: 0 at the seed's point, 1 at the optimum, at least -1."""
        return np.maximum(self._surface[1](point / point_of(SEED) - 1.0), LOWEST)

    def value(self, source: str) -> float:
        """The score of a program; that of the worst point where it gives none."""
        try:
            return float(self.figures(point_of(source)).mean())
        except ProgramError:
            return LOWEST


def _smooth(rng: np.random.Generator) -> _Surface:
    """Per case 1 less the distance to the optimum along two axes of a rotated ellipsoid, over that of the seed (0)."""
    at_seed = np.zeros(CASES)
    while at_seed.min() <= 0.4 * at_seed.mean():  # no case is nearly solved from the start
        optimum = np.exp(rng.uniform(0.25, 0.9, DIMENSIONS) * rng.choice((-1.0, 1.0), DIMENSIONS)) - 1.0
        rotation = np.linalg.qr(rng.normal(size=(DIMENSIONS, DIMENSIONS)))[0]
        axes = rotation * np.geomspace(1.0, 4.0, DIMENSIONS)[rng.permutation(DIMENSIONS), None]
        at_seed = _lengths(axes @ optimum)
    return optimum, lambda offset: 1.0 - _lengths(axes @ (offset - optimum)) / at_seed


def _deceptive(rng: np.random.Generator) -> _Surface:
    """Per case two optima on opposite sides of the seed (the origin), the better one in a narrow basin."""
    groups = rng.permutation(DIMENSIONS)
    directions = rng.choice((-1.0, 1.0), DIMENSIONS)
    local = np.exp(directions * rng.uniform(0.3, 0.8, DIMENSIONS)) - 1.0
    best = np.exp(-directions * rng.uniform(0.3, 0.8, DIMENSIONS)) - 1.0
    # One coordinate of each pair matters more, so that a single step can reach the edge of the narrow basin.
    best[1::2] *= 0.3

    def figures(offset: Point) -> Point:
        wide = 1.0 - _lengths(offset[groups] - local) / _lengths(local)
        narrow = 1.0 - _lengths(offset[groups] - best) / (NARROW * _lengths(best))
        return np.maximum(LOCAL_OPTIMUM * wide, narrow)

    optimum = np.empty(DIMENSIONS)
    optimum[groups] = best
    return optimum, figures


def _lengths(vector: Point) -> Point:
    """Of each case's pair of coordinates."""
    return np.asarray(np.sqrt((vector.reshape(CASES, -1) ** 2).sum(axis=1)))


class LandscapeEvaluator:
    """An `Evaluator` in this process: a verdict depends on landscape, program and number of the repeat alone."""

    slots = 1

    def __init__(self, landscape: Landscape) -> None:
        self._landscape = landscape

    async def start(self) -> None: ...

    async def evaluate(self, job: EvaluationJob) -> Verdict:
        await asyncio.sleep(0)  # another island's turn: without it the first would use up the whole budget
        try:
            figures = self._landscape.figures(point_of(job.source))
        except ProgramError as error:
            return Failure(FailureKind.CRASH, str(error))
        if self._landscape.noisy:
            digest = hashlib.sha256(f"{self._landscape.seed}/{job.repeat}/{job.source}".encode()).digest()
            figures = figures + np.random.default_rng(list(digest)).normal(0.0, NOISE, CASES)
        score = math.fsum(figures) / CASES
        cases = tuple(CaseResult(f"c{n}", {"closeness": float(f)}, 0.0, 0.0) for n, f in enumerate(figures))
        return Evaluation(score, {"closeness": score}, cases, "verified", 0.0)

    async def close(self) -> None: ...
