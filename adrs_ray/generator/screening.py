"""What can be said of a program before it runs: it compiles, keeps to its interface, and is no copy of another.

Pure, and far cheaper than an evaluation. What is let through may still fail there; what is refused would have failed,
or would have had nothing new to tell.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from itertools import zip_longest

from adrs_ray.bundle import MAIN, split
from adrs_ray.candidate import Failure, FailureKind
from adrs_ray.generator.edits import frame
from adrs_ray.program import Shingles, evolve_blocks, parse, shingles, similarity, split_lines, syntax_problem
from adrs_ray.prompt import TaskBrief

_DETAIL_CHARS = 300
_IMPORTERS = frozenset({"__import__", "import_module"})
_WHOLE = ("", "")
"""What stands round the one block of a program without markers."""


def screen(source: str, seed: TaskBrief, parent: str | None) -> Failure | None:
    """Why a program need not be evaluated; None when it may be.

    In this order: it does not compile, or its markers are broken (`syntax`); then, as `interface`: its files or what
    stands outside its evolve blocks are not the parent's (without a parent: the seed's; the outside counts only when
    the seed has markers); it defines none of the task's entry names; it imports a module that the task bans. Files
    of a bundle are read one by one; the entry is looked for in the first. Programs that only compute the name of
    what they define or import are not seen through.
    """
    problem = syntax_problem(source)
    if problem is not None:
        return _failure(FailureKind.SYNTAX, problem)
    try:
        trees = {name: parse(text) for name, text in split(source).items()}
    except SyntaxError as error:
        return _failure(FailureKind.SYNTAX, str(error))
    broken = (
        _outside_changed(source, seed.seed_source, parent)
        or _entry_missing(next(iter(trees.values())), seed.entry)
        or _banned(trees, seed.banned_imports)
    )
    return None if broken is None else _failure(FailureKind.INTERFACE, broken)


def _failure(kind: FailureKind, detail: str) -> Failure:
    return Failure(kind, " ".join(detail.split())[:_DETAIL_CHARS])


def _outside_changed(source: str, seed: str, parent: str | None) -> str | None:
    try:
        (outside, files), marked = frame(seed if parent is None else parent), frame(seed)[0] != _WHOLE
        mine, own_files = frame(source)
    except ValueError:  # nothing to compare with: broken markers of its own are a syntax problem
        return None
    if own_files != files:
        return f"its files are {_listed(own_files)}, expected {_listed(files)}"
    if not marked or mine == outside:
        return None
    if len(mine) != len(outside):
        return f"it has {len(mine) - 1} evolve blocks, expected {len(outside) - 1}: the markers must stay as they are"
    index = next(i for i, (a, b) in enumerate(zip(mine, outside, strict=True)) if a != b)
    pairs = zip_longest(split_lines(mine[index]), split_lines(outside[index]))
    same = next(n for n, (a, b) in enumerate(pairs) if a != b)
    line = same + 1 + (evolve_blocks(source)[index - 1].last_line if index else 0)
    return f"line {line} lies outside the evolve blocks and may not change"


def _listed(files: tuple[str, ...]) -> str:
    return ", ".join(files) or MAIN


def _entry_missing(tree: ast.Module, entry: tuple[str, ...]) -> str | None:
    if not entry:
        return None
    names = defined_names(tree)
    if names is None or not names.isdisjoint(entry):
        return None
    return f"the program must define {' or '.join(entry)} (a function or class)"


def defined_names(tree: ast.Module) -> set[str] | None:
    """Names that a module binds outside of functions and classes, in branches too; None if it imports `*`."""
    names: set[str] = set()
    nodes: list[ast.AST] = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
            continue
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        if not isinstance(node, ast.Lambda):
            nodes.extend(ast.iter_child_nodes(node))
    return None if "*" in names else names


def _banned(trees: Mapping[str, ast.Module], banned: tuple[str, ...]) -> str | None:
    if not banned:
        return None
    for file, tree in trees.items():
        found = [
            (line, name)
            for line, imported in _imports(tree)
            for name in banned
            if imported == name or imported.startswith(name + ".")
        ]
        if found:
            line, name = min(found)
            where = f"line {line}" if len(trees) == 1 else f"{file} line {line}"
            return f"{where} imports {name}, which this task does not allow"
    return None


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of everything that is imported under a name that stands in the text."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            yield node.lineno, node.module
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and _called(node.func) in _IMPORTERS:
            for value in (*node.args[:1], *(k.value for k in node.keywords if k.arg == "name")):
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield node.lineno, value.value


def _called(function: ast.expr) -> str | None:
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else None


class NearDuplicates:
    """Programs that a new one may repeat, compared by the token 3-grams inside their evolve blocks (Dice).

    A comparison that cannot reach the threshold ends after a look at the sizes, or at which 3-grams occur at all.
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._known: dict[str, tuple[int, Shingles]] = {}

    def __len__(self) -> int:
        return len(self._known)

    def add(self, candidate: str, source: str) -> None:
        """Remember a program. One whose markers are broken resembles nothing and is left out."""
        try:
            grams = shingles(source)
        except ValueError:
            return
        self._known[candidate] = (grams.total(), grams)

    def forget(self, candidate: str) -> None:
        """Drop a program; nothing happens if it is not here."""
        self._known.pop(candidate, None)

    def nearest(self, source: str) -> tuple[str, float] | None:
        """The most similar program and its similarity, if that reaches the threshold; among equals the earliest."""
        try:
            grams = shingles(source)
        except ValueError:
            return None
        total = grams.total()
        best: tuple[str, float] | None = None
        for candidate, (size, known) in self._known.items():
            least = self._threshold if best is None else best[1]
            if not _may_reach(least, grams, total, known, size):
                continue
            alike = similarity(grams, known)
            if alike >= self._threshold and (best is None or alike > best[1]):
                best = (candidate, alike)
        return best


def _may_reach(least: float, a: Shingles, a_size: int, b: Shingles, b_size: int) -> bool:
    """Whether similarity = 2 shared / (sizes) can be `least`: each 3-gram of one that the other lacks is not shared."""
    needed = least * (a_size + b_size) / 2 - 1e-9
    if min(a_size, b_size) < needed:
        return False
    return min(a_size - len(a.keys() - b.keys()), b_size - len(b.keys() - a.keys())) >= needed
