"""Crossover of two programs: whole function bodies, aligned statements, or a transplant of statements.

Function crossover follows genetic programming with automatically defined functions (like parts change places). Block
crossover aligns the two programs' statement lists first and takes over one place in which they differ: parents with a
common ancestor share most of their text, and an unaligned exchange would mostly swap equals. A transplant carries
statements to a place they were never written for, names bound there preferred (GenProg's insertion, across programs).
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from typing import TypeAlias

import numpy as np

from adrs_ray.generator.draft import Draft
from adrs_ray.generator.operators import choose
from adrs_ray.generator.scope import BUILTINS, Function, parameters
from adrs_ray.generator.statements import gaps, movable
from adrs_ray.generator.survey import Suite
from adrs_ray.program import encode, is_idle

Crossover: TypeAlias = Callable[[Draft, Draft, np.random.Generator], Draft | None]
"""Child of a receiver (spent afterwards) and a donor (not); None when nothing could be exchanged."""

_SAMPLES = 8
"""Transplants considered before the one with the fewest unknown names is made."""
_LONGEST_TRANSPLANT = 3
_ALIGNMENT_STEPS = 50_000_000
"""What one crossover may spend on aligning; two lists of n equal statements take up to n cubed (about 4 ns each)."""


def cross_function(receiver: Draft, donor: Draft, rng: np.random.Generator) -> Draft | None:
    """Take a function's body from the donor's function of the same name and arity, parameters renamed if need be."""
    theirs = {name: function for name, function, _ in donor.survey.functions if _within(donor, function)}
    pairs = [
        (function, theirs[name])
        for name, function, _ in receiver.survey.functions
        if name in theirs
        and _within(receiver, function)
        and type(function) is type(theirs[name])
        and _shape(function.args) == _shape(theirs[name].args)
        and list(map(encode, _working(function))) != list(map(encode, _working(theirs[name])))
    ]
    if not pairs:
        return None
    ours, other = choose(rng, pairs)
    run = _working(other)
    renderings = donor.render(run)
    names = dict(zip(parameters(other.args), parameters(ours.args), strict=True))
    if any(a != b for a, b in names.items()):
        run = copy.deepcopy(run)
        for node in (n for statement in run for n in ast.walk(statement)):
            if isinstance(node, ast.Name):
                node.id = names.get(node.id, node.id)
        renderings = donor.render(run)[-1:]  # as unparsed: the text has the old names
    start = len(ours.body) - len(_working(ours))
    return receiver.replace_run(receiver.survey.by_body[id(ours.body)], start, len(ours.body), run, renderings)


def _working(function: Function) -> list[ast.stmt]:
    """The body without its docstring."""
    return function.body[1:] if is_idle(function.body[0]) and len(function.body) > 1 else function.body


def _within(draft: Draft, function: Function) -> bool:
    """Whether the working body lies inside evolve blocks."""
    suite = draft.survey.by_body[id(function.body)]
    return len(suite.free) == sum(not is_idle(statement) for statement in function.body) > 0


def _shape(args: ast.arguments) -> tuple[int, int, int, bool, bool]:
    counts = len(args.posonlyargs), len(args.args), len(args.kwonlyargs)
    return (*counts, args.vararg is not None, args.kwarg is not None)


Hunk: TypeAlias = tuple[Suite, int, int, Suite, int, int]
"""`ours.body[i:j]` and `theirs.body[k:l]` differ and stand in corresponding places; either may be empty."""


class _Effort:
    """What is left to be spent: a program of many thousand equal statements must not hold up the search."""

    def __init__(self, steps: int) -> None:
        self._left = steps

    def spend(self, steps: int) -> bool:
        """Whether there was as much; then it is spent."""
        if steps > self._left:
            return False
        self._left -= steps
        return True


def cross_block(receiver: Draft, donor: Draft, rng: np.random.Generator) -> Draft | None:
    """Take over places in which the aligned statement lists of like-named functions differ: one, then more by chance.

    Their number is geometric with mean two, so that near relatives, too, have more than a handful of children.
    """
    child = _take_one(receiver, donor, rng)
    while child is not None and rng.random() < 0.5:
        further = _take_one(child, donor, rng)
        if further is None:
            return child.fresh()
        child = further
    return child


def _take_one(receiver: Draft, donor: Draft, rng: np.random.Generator) -> Draft | None:
    theirs = {suite.qualname: suite for suite in donor.survey.suites if _top_of_definition(suite)}
    hunks: list[Hunk] = []
    effort = _Effort(_ALIGNMENT_STEPS)
    for suite in receiver.survey.suites:
        if _top_of_definition(suite) and suite.qualname in theirs:
            hunks += _hunks(receiver, donor, suite, theirs[suite.qualname], effort)
    if not hunks:
        return None
    ours, i, j, other, k, m = choose(rng, hunks)
    run = other.body[k:m]
    return receiver.replace_run(ours, i, j, run, donor.render(run) if run else [])


def _top_of_definition(suite: Suite) -> bool:
    return isinstance(suite.owner, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)


def _hunks(receiver: Draft, donor: Draft, ours: Suite, theirs: Suite, effort: _Effort) -> Iterator[Hunk]:
    """Differing places of two statement lists; where two compound statements differ inside, those inside as well."""
    for i, j, k, m in _aligned(ours.body, theirs.body, effort):
        yield from _hunk(ours, i, j, theirs, k, m)
        if j - i == m - k == 1 and type(ours.body[i]) is type(theirs.body[k]):
            for name in ("body", "orelse", "finalbody"):
                inner = receiver.survey.by_body.get(id(getattr(ours.body[i], name, None)))
                other = donor.survey.by_body.get(id(getattr(theirs.body[k], name, None)))
                if inner is not None and other is not None and inner.qualname == ours.qualname:
                    yield from _hunks(receiver, donor, inner, other, effort)


def _aligned(ours: list[ast.stmt], theirs: list[ast.stmt], effort: _Effort) -> Iterator[tuple[int, int, int, int]]:
    """Index ranges that correspond and differ: aligned by equal statements first, between those by kind.

    None of lists that would take more than is left of `effort`.
    """
    if not effort.spend(len(ours) * len(theirs) * min(len(ours), len(theirs))):
        return
    exact = SequenceMatcher(a=[encode(s) for s in ours], b=[encode(s) for s in theirs], autojunk=False)
    for tag, i, j, k, m in exact.get_opcodes():
        if tag == "equal":
            continue
        a, b = [type(s).__name__ for s in ours[i:j]], [type(s).__name__ for s in theirs[k:m]]
        for tag_of_kind, p, q, r, s in SequenceMatcher(a=a, b=b, autojunk=False).get_opcodes():
            if tag_of_kind == "equal":
                yield from ((i + p + n, i + p + n + 1, k + r + n, k + r + n + 1) for n in range(q - p))
            else:
                yield i + p, i + q, k + r, k + s


def _hunk(ours: Suite, i: int, j: int, theirs: Suite, k: int, m: int) -> Iterator[Hunk]:
    if set(range(i, j)) <= set(ours.free) and set(range(k, m)) <= set(theirs.free):
        anchored = i < j or i in gaps(ours)
        if anchored and all(map(movable, ours.body[i:j])) and all(map(movable, theirs.body[k:m])):
            yield ours, i, j, theirs, k, m


def transplant(receiver: Draft, donor: Draft, rng: np.random.Generator) -> Draft | None:
    """Insert some of the donor's statements, or replace as many; of a few draws the one with most names bound."""
    sources = [s for s in donor.survey.suites if s.free and not isinstance(s.owner, ast.Module | ast.ClassDef)]
    targets = [s for s in receiver.survey.suites if s.free and not isinstance(s.owner, ast.Module | ast.ClassDef)]
    best: tuple[int, Hunk] | None = None
    for _ in range(_SAMPLES if sources and targets else 0):
        other, ours = choose(rng, sources), choose(rng, targets)
        k, m = choose(rng, list(other.runs(_LONGEST_TRANSPLANT)))
        places = [(gap, gap) for gap in gaps(ours)] + list(ours.runs(m - k))
        run = other.body[k:m]
        if not places or not all(map(movable, run)):
            continue
        i, j = choose(rng, places)
        unknown = _unknown(receiver, ours, run)
        if all(map(movable, ours.body[i:j])) and (best is None or unknown < best[0]):
            best = (unknown, (ours, i, j, other, k, m))
    if best is None:
        return None
    ours, i, j, other, k, m = best[1]
    return receiver.replace_run(ours, i, j, other.body[k:m], donor.render(other.body[k:m]))


def _unknown(receiver: Draft, suite: Suite, run: list[ast.stmt]) -> int:
    """How many names the run reads that neither it nor the scopes round its new place bind."""
    names = [node for statement in run for node in ast.walk(statement) if isinstance(node, ast.Name)]
    bound = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    visible = frozenset[str]().union(BUILTINS, bound, *(receiver.bound(scope) for scope in suite.scopes))
    return len({n.id for n in names if n.id not in visible})


CROSSOVERS: dict[str, tuple[Crossover, float]] = {
    "block": (cross_block, 4.0),
    "function": (cross_function, 3.0),
    "transplant": (transplant, 2.0),
}
"""Name -> (crossover, weight). Aligned exchange first: its children keep to what works in both parents."""
