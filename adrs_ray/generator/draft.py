"""A program under edit: its text and its syntax tree, changed together.

An edit changes the tree first and then splices the smallest piece of text that should say the same; only if the text
parses back to the changed tree does the edit stand. So a splice may guess (are parentheses needed here, may these
lines be indented anew) and a wrong guess costs a further attempt, never a wrong program. What is not spliced keeps
every byte: comments, layout, line ends.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from functools import cached_property

from adrs_ray.generator.scope import ScopeNode, bound_names, unbound_reads
from adrs_ray.generator.survey import Place, Suite, Survey, first_line
from adrs_ray.program import encode, evolve_blocks, parse, split_lines

_REST_OF_LINE = re.compile(r"[ \t\f]*(#.*)?", re.DOTALL)
_BLANK = re.compile(r"[ \t\f]*")


class Draft:
    """A program and the places in it that may change.

    Raises SyntaxError or ValueError (markers) when the source is no program, RecursionError when nested too deeply.
    A draft is spent once `commit` was tried: the tree has changed. `fresh()` gives an unspent one.
    """

    def __init__(self, source: str, tree: ast.Module | None = None) -> None:
        self.source = source
        self.tree = parse(source) if tree is None else tree
        self._blocks = [(b.first_line, b.last_line) for b in evolve_blocks(source)]
        self._lines = split_lines(source)
        self._offsets = [0]
        for line in self._lines:
            self._offsets.append(self._offsets[-1] + len(line))
        self._bound: dict[int, frozenset[str]] = {}
        self._unbound: frozenset[tuple[str, str]] | None = None
        self._spent = False

    def fresh(self) -> Draft:
        """This draft, or the same program parsed again if this one is spent."""
        return Draft(self.source) if self._spent else self

    @cached_property
    def survey(self) -> Survey:
        """The places that may change."""
        return Survey(self.tree, self._blocks)

    def bound(self, scope: ScopeNode) -> frozenset[str]:
        """Names that a scope of this program binds."""
        if id(scope) not in self._bound:
            self._bound[id(scope)] = bound_names(scope)
        return self._bound[id(scope)]

    def unbound(self) -> frozenset[tuple[str, str]]:
        """`unbound_reads` of the program; ask before the draft is spent."""
        if self._unbound is None:
            self._unbound = unbound_reads(self.tree)
        return self._unbound

    # The text of nodes

    def _offset(self, line: int, column: int) -> int:
        """Where in the source a syntax-tree position lies; its columns count UTF-8 bytes."""
        text = self._lines[line - 1]
        if not text.isascii():
            column = len(text.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "surrogatepass"))
        return self._offsets[line - 1] + column

    def span(self, node: ast.stmt | ast.expr) -> tuple[int, int]:
        """Start and end of a node in the source (of a definition: without decorators)."""
        return (
            self._offset(node.lineno, node.col_offset),
            self._offset(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset),
        )

    def text(self, node: ast.expr) -> str:
        """The source of an expression, its own parentheses left out."""
        start, stop = self.span(node)
        return self.source[start:stop]

    def _owned_lines(self, run: Sequence[ast.stmt]) -> tuple[str, int, int] | None:
        """Indentation and span in whole lines of a run, None when it shares its first or last line."""
        first, last = run[0], run[-1]
        start, stop = self.span(first)[0], self.span(last)[1]
        line = first_line(first)
        if line != first.lineno:
            start = self._offset(line, first.col_offset)
        end_line = last.end_lineno or last.lineno
        indent = self.source[self._offsets[line - 1] : start]
        rest = self.source[stop : self._offsets[end_line]].rstrip("\r\n")
        if _BLANK.fullmatch(indent) is None or _REST_OF_LINE.fullmatch(rest) is None:
            return None
        return indent, self._offsets[line - 1], self._offsets[end_line]

    def render(self, run: Sequence[ast.stmt]) -> list[list[str]]:
        """The lines of a run of statements without indentation: as written here if that can be, and as unparsed."""
        renderings = []
        owned = self._owned_lines(run)
        if owned is not None:
            indent, start, stop = owned
            lines = [line.rstrip("\r\n") for line in split_lines(self.source[start:stop])]
            renderings.append([line.removeprefix(indent) for line in lines])
        plain = unparse(run)
        if plain is not None:
            renderings.append(plain.split("\n"))
        return renderings

    # Changes

    def commit(self, splices: Sequence[tuple[int, int, str]]) -> Draft | None:
        """Take the first splice whose text says what the (already changed) tree says; None when none does."""
        self._spent = True
        expected = encode(self.tree)
        for start, stop, text in splices:
            source = self.source[:start] + text + self.source[stop:]
            try:
                tree = parse(source)
                if encode(tree) == expected:
                    return Draft(source, tree)
            except (SyntaxError, ValueError):  # ValueError: the splice disturbed a marker
                continue
        return None

    def replace(self, place: Place, new: ast.expr, spelled: Sequence[str] = ()) -> Draft | None:
        """Put `new` in an expression's place; `spelled` are texts to try before unparsing it."""
        plain = unparse([new])
        texts = list(spelled) if plain is None else [*spelled, plain, f"({plain})"]
        start, stop = self.span(place.node)
        place.put(new)
        return self.commit([(start, stop, text) for text in texts])

    def replace_run(
        self, suite: Suite, start: int, stop: int, new: Sequence[ast.stmt], renderings: Sequence[list[str]]
    ) -> Draft | None:
        """Put other statements in the place of `suite.body[start:stop]`; none deletes, an empty range inserts."""
        old = suite.body[start:stop]
        if not new and len(suite.body) == len(old):
            new, renderings = [ast.Pass()], [["pass"]]
        splices = list(self._splices(suite, start, old, renderings if new else [[]]))
        suite.body[start:stop] = new
        return self.commit(splices)

    def _splices(
        self, suite: Suite, start: int, old: Sequence[ast.stmt], renderings: Sequence[list[str]]
    ) -> Iterator[tuple[int, int, str]]:
        anchor = list(old) or suite.body[max(start - 1, 0) : max(start, 1)]
        owned = self._owned_lines(anchor)
        if owned is None:
            if old:  # it shares a line with others: what replaces it must fit between semicolons
                begin, end = self.span(old[0])[0], self.span(old[-1])[1]
                for lines in renderings:
                    yield begin, end, "; ".join(lines) or "pass"
            return
        indent, begin, end = owned
        last = self._lines[(anchor[-1].end_lineno or 1) - 1]
        newline = last[len(last.rstrip("\r\n")) :]
        for lines in renderings:
            text = [indent + line if line.strip() else line for line in lines]
            joined = (newline or "\n").join(text)
            if old:
                yield begin, end, joined + newline if text else ""
            elif start == 0:
                yield begin, begin, joined + (newline or "\n")
            else:
                yield end, end, joined + newline if newline else "\n" + joined


def unparse(nodes: Sequence[ast.AST]) -> str | None:
    """Source of a run of nodes; None when Python cannot write it (integers too long, nesting too deep)."""
    try:
        return "\n".join(ast.unparse(ast.fix_missing_locations(node)) for node in nodes)
    except (ValueError, RecursionError):
        return None
