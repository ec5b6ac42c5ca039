"""The model-free Solution Generator: typed mutation and crossover of syntax trees.

It knows nothing of any task: what it changes is Python, what it keeps is the contract between a program and its
task. Whatever a parent looks like, a child compiles, differs from its parents, is equal to its first parent byte for
byte outside the evolve blocks, and defines the same functions and classes with the same parameters.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from adrs_ray.generator import Completion, GenerationRequest, Usage
from adrs_ray.generator.calls import ReplaceCall, ReplaceName, SwapArguments
from adrs_ray.generator.crossover import CROSSOVERS
from adrs_ray.generator.draft import Draft
from adrs_ray.generator.literals import LiteralStep, LoopBound
from adrs_ray.generator.operators import (
    NegateCondition,
    Operator,
    SwapArithmetic,
    SwapBoolean,
    SwapCompare,
    choose,
)
from adrs_ray.generator.scope import Function
from adrs_ray.generator.statements import DeleteStatement, DuplicateStatement, MoveStatement
from adrs_ray.program import encode, evolve_blocks, fingerprint, syntax_problem

OPERATORS: dict[str, tuple[Operator[Any], float]] = {
    operator.name: (operator, weight)
    for operator, weight in (
        (LiteralStep(), 6.0),  # most tunables of a policy are numbers, and most steps on them still run
        (SwapCompare(), 3.0),
        (SwapArithmetic(), 2.0),
        (DeleteStatement(), 2.0),
        (MoveStatement(), 2.0),
        (NegateCondition(), 1.5),
        (LoopBound(), 1.5),
        (ReplaceCall(), 1.5),
        (ReplaceName(), 1.5),
        (SwapBoolean(), 1.0),
        (SwapArguments(), 1.0),
        (DuplicateStatement(), 1.0),
    )
}
"""Name -> (operator, weight). An operator is drawn by weight among those that have a site, then a site uniformly."""

_TRIES = 40
"""Draws within one request before it is given up: a draw may break a name, or change nothing."""


class MutationModel:
    """A `Model` without a model. Requests cost nothing; equal requests get equal completions.

    Operator `mutate` makes one to `max_mutations` changes to `parents[0]`. `crossover` makes a child of `parents[0]`
    and `parents[1]`; when they have nothing to exchange it is mutated (and, when the exchange only rebuilds a known
    parent, mutated on top), and `Completion.operator` says so: `crossover:block`, `crossover:block+literal`,
    `mutate:literal+swap_compare`.

    Raises ValueError on an operator of another name or on impossible settings, never for what a parent contains.
    """

    name = "mutate"
    paid = False
    durable = False

    def __init__(self, redraws: int = 20, max_mutations: int = 3) -> None:
        if redraws < 0 or max_mutations < 1:
            raise ValueError(f"redraws >= 0 and max_mutations >= 1 expected, got {redraws} and {max_mutations}")
        self.redraws = redraws
        self.max_mutations = max_mutations

    async def complete(self, request: GenerationRequest) -> Completion:
        if request.operator not in ("mutate", "crossover"):
            raise ValueError(f"operator {request.operator!r} is not known here: mutate or crossover")
        rng = np.random.default_rng(list(request.rng_key))
        partners = request.parents[1:] if request.operator == "crossover" else ()
        try:
            return self._child(request, partners, rng)
        except (SyntaxError, ValueError) as error:
            detail = f"parent cannot be used: {error}"
        except RecursionError:
            detail = "parent cannot be used: nested too deeply"
        return Completion(None, self.name, request.operator, " ".join(detail.split()))

    def worst(self, request: GenerationRequest) -> Usage:
        return Usage()

    async def close(self) -> None:
        """Nothing is held."""

    def _child(self, request: GenerationRequest, partners: Sequence[str], rng: np.random.Generator) -> Completion:
        parent = Draft(request.parents[0])
        terms = _Terms.of(parent, request.parents)
        applied: list[str] = []
        if partners:
            parent, kind = self._crossed(parent, partners[0], terms, rng)
            if kind is not None:
                applied.append(kind)
                if terms.met_by(parent):
                    return Completion(parent.source, self.name, f"crossover:{kind}")
        for _ in range(_TRIES):
            count = 1 if applied else int(rng.integers(1, self.max_mutations + 1))
            child, names = self._mutated(parent.fresh(), count, rng)
            if names and terms.met_by(child):
                kind = "crossover" if applied else "mutate"
                return Completion(child.source, self.name, f"{kind}:{'+'.join([*applied, *names])}")
        return Completion(None, self.name, request.operator, self._why_not(parent.fresh()))

    def _crossed(
        self, parent: Draft, partner: str, terms: _Terms, rng: np.random.Generator
    ) -> tuple[Draft, str | None]:
        """A crossover that is a new program; else one that rebuilds a parent; else the parent itself."""
        rebuilt: tuple[Draft, str | None] = (parent, None)
        kinds, weights = list(CROSSOVERS), np.array([w for _, w in CROSSOVERS.values()])
        try:
            donor = Draft(partner)
            _ = donor.survey  # raises where it is nested too deeply
        except (SyntaxError, ValueError, RecursionError):
            return rebuilt  # nothing to be had from a partner that is no program
        known = parent.unbound()
        for _ in range(_TRIES // 4):
            kind = kinds[int(rng.choice(len(kinds), p=weights / weights.sum()))]
            child = CROSSOVERS[kind][0](parent.fresh(), donor, rng)
            if child is None or not child.unbound() <= known or not terms.kept_by(child):
                continue
            if fingerprint(child.source) not in terms.known:
                return child, kind
            if child.source != parent.source and rebuilt[1] is None:
                rebuilt = (child, kind)
        return rebuilt[0].fresh(), rebuilt[1]

    def _mutated(self, draft: Draft, count: int, rng: np.random.Generator) -> tuple[Draft, list[str]]:
        """Up to `count` changes in a row, and their names; those that break a name are not made."""
        names: list[str] = []
        for _ in range(count):
            operator, sites = _drawn(draft, rng)
            if operator is None:
                break
            known = draft.unbound() if operator.rebinds else None
            changed = operator.apply(draft, choose(rng, sites), rng)
            if changed is not None and (known is None or changed.unbound() <= known):
                draft = changed
                names.append(operator.name)
            else:
                draft = draft.fresh()
        return draft, names

    def _why_not(self, parent: Draft) -> str:
        if any(operator.sites(parent) for operator, _ in OPERATORS.values()):
            return f"{_TRIES} draws changed nothing, or broke a name or a signature"
        return "nothing in the evolve blocks can be mutated"


def _drawn(draft: Draft, rng: np.random.Generator) -> tuple[Operator[Any] | None, Sequence[Any]]:
    """An operator by weight among those that have a site, and its sites; sites are asked of few operators only."""
    names = list(OPERATORS)
    weights = np.array([weight for _, weight in OPERATORS.values()])
    for index in rng.choice(len(names), size=len(names), replace=False, p=weights / weights.sum()):
        operator = OPERATORS[names[index]][0]
        sites = operator.sites(draft)
        if sites:
            return operator, sites
    return None, ()


@dataclass(frozen=True, slots=True)
class _Terms:
    """What a child must keep, and which programs it must not be."""

    outside: tuple[str, ...]
    fixed: dict[str, list[str]]
    """Definitions that callers can reach, with their parameters: in the module and in its classes."""
    local: dict[str, list[str]]
    """Definitions inside functions: they stay as well, but a function body from elsewhere may bring others along."""
    known: frozenset[str]

    @classmethod
    def of(cls, parent: Draft, parents: Sequence[str]) -> _Terms:
        fixed, local = _signatures(parent.tree)
        known = {fingerprint(parent.source)}
        for other in parents[1:]:
            try:
                known.add(fingerprint(other))
            except SyntaxError:
                continue
        return cls(_outside(parent.source), fixed, local, frozenset(known))

    def kept_by(self, child: Draft) -> bool:
        """Whether it compiles and keeps everything outside the evolve blocks and every signature."""
        if syntax_problem(child.source) is not None or _outside(child.source) != self.outside:
            return False
        fixed, local = _signatures(child.tree)
        return fixed == self.fixed and self.local.items() <= local.items()

    def met_by(self, child: Draft) -> bool:
        """Whether it keeps the terms and is a new program."""
        return fingerprint(child.source) not in self.known and self.kept_by(child)


def _outside(source: str) -> tuple[str, ...]:
    """The pieces of text between and round the evolve blocks."""
    cuts = [0, *(offset for block in evolve_blocks(source) for offset in (block.start, block.stop)), len(source)]
    return tuple(source[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True))


def _signatures(tree: ast.Module) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    fixed: dict[str, list[str]] = {}
    local: dict[str, list[str]] = {}
    for name, inside, node in _definitions(tree, "", False):
        args = "class" if isinstance(node, ast.ClassDef) else f"{type(node).__name__} {encode(node.args)}"
        (local if inside else fixed).setdefault(name, []).append(args)
    return fixed, local


def _definitions(node: ast.AST, name: str, inside: bool) -> Iterator[tuple[str, bool, Function | ast.ClassDef]]:
    """(qualified name, whether inside a function, node) of each definition below a node."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            qualname = f"{name}.{child.name}"
            yield qualname, inside, child
            yield from _definitions(child, qualname, inside or not isinstance(child, ast.ClassDef))
        elif not isinstance(child, ast.expr):
            yield from _definitions(child, name, inside)
