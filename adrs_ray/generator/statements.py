"""Mutation of whole statements: delete, duplicate, move (after GenProg's delete, insert and swap).

Definitions and imports stay where they are: removing one seldom does anything but break the names behind it.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Sequence

import numpy as np

from adrs_ray.generator.draft import Draft
from adrs_ray.generator.operators import Operator, StatementSite, choose
from adrs_ray.generator.survey import Suite

_FIXED = (
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef),
    *(ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal),
)
_ENDING = (ast.Return, ast.Raise, ast.Break, ast.Continue)
_LARGEST_COPY = 150
"""Syntax nodes of the largest statement that is copied, so that programs do not double in size."""


def movable(statement: ast.stmt) -> bool:
    """Whether a statement may be removed or copied: no definition, import or scope declaration is lost with it."""
    return not any(isinstance(node, _FIXED) for node in ast.walk(statement))


def gaps(suite: Suite) -> list[int]:
    """Positions at which a statement can be inserted inside an evolve block and would be reached."""
    found = [0] if 0 in suite.free and not isinstance(suite.owner, ast.Module | ast.ClassDef) else []
    return found + [i + 1 for i in suite.free if not isinstance(suite.body[i], _ENDING)]


def _sites(draft: Draft, unsuited: tuple[type[ast.stmt], ...]) -> list[StatementSite]:
    return [
        (suite, index)
        for suite in draft.survey.suites
        for index in suite.free
        if not isinstance(suite.body[index], unsuited) and movable(suite.body[index])
    ]


def _insert_elsewhere(
    draft: Draft,
    qualname: str,
    statement: ast.stmt,
    renderings: list[list[str]],
    rng: np.random.Generator,
) -> Draft | None:
    """Put a statement into some gap of the definition it came from."""
    places = [(s, gap) for s in draft.survey.suites if s.qualname == qualname for gap in gaps(s)]
    if not places:
        return None
    suite, gap = choose(rng, places)
    return draft.replace_run(suite, gap, gap, [copy.deepcopy(statement)], renderings)


class DeleteStatement(Operator[StatementSite]):
    """Remove a statement; the last one of its suite becomes `pass`."""

    name = "delete_statement"
    rebinds = True

    def sites(self, draft: Draft) -> Sequence[StatementSite]:
        found = _sites(draft, ())
        # a function that no longer returns is no longer that function
        return [
            (suite, i)
            for suite, i in found
            if not (
                isinstance(suite.body[i], ast.Return)
                and isinstance(suite.owner, ast.FunctionDef | ast.AsyncFunctionDef)
            )
        ]

    def apply(self, draft: Draft, site: StatementSite, rng: np.random.Generator) -> Draft | None:
        suite, index = site
        return draft.replace_run(suite, index, index + 1, [], [])


class DuplicateStatement(Operator[StatementSite]):
    """Copy a statement to another place of the same function."""

    name = "duplicate_statement"
    rebinds = True

    def sites(self, draft: Draft) -> Sequence[StatementSite]:
        return [
            (suite, i)
            for suite, i in _sites(draft, _ENDING)
            if sum(1 for _ in ast.walk(suite.body[i])) <= _LARGEST_COPY
        ]

    def apply(self, draft: Draft, site: StatementSite, rng: np.random.Generator) -> Draft | None:
        suite, index = site
        statement = suite.body[index]
        return _insert_elsewhere(draft, suite.qualname, statement, draft.render([statement]), rng)


class MoveStatement(Operator[StatementSite]):
    """Take a statement away and put it elsewhere in the same function."""

    name = "move_statement"
    rebinds = True

    def sites(self, draft: Draft) -> Sequence[StatementSite]:
        return _sites(draft, _ENDING)

    def apply(self, draft: Draft, site: StatementSite, rng: np.random.Generator) -> Draft | None:
        suite, index = site
        statement = suite.body[index]
        renderings = draft.render([statement])
        without = draft.replace_run(suite, index, index + 1, [], [])
        return None if without is None else _insert_elsewhere(without, suite.qualname, statement, renderings, rng)
