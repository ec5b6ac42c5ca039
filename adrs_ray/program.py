"""What the loop knows about a program's text: evolve blocks, fingerprint, descriptor, syntax.

Pure functions of the source. Every candidate passes through here several times, so results for the last few sources
are kept.

Evolve blocks are the lines between the comments `# EVOLVE-BLOCK-START` and `# EVOLVE-BLOCK-END`: the part of a program
that may change. A program without such comments is one block.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from adrs_ray.bundle import is_bundle, split

FILENAME = "<candidate>"
"""The file name under which candidates are compiled."""

# A candidate's doubtful escapes and comparisons are its own affair; they are not worth a line on our standard error.
warnings.filterwarnings("ignore", module=re.escape(FILENAME))

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_MARKER = re.compile(r"[ \t\f]*#[ \t]*EVOLVE-BLOCK-(START|END)\b")
_TOKEN = re.compile(
    r"""(?:[\s\\]++|\#[^\r\n]*+)*+"""  # blanks, continued lines and comments in front of a token
    r"""([^\W\d]\w*+(?!["'])"""
    r"""|\d[\w.]*+(?:(?<=[eE])[+-]\d++)?|\.\d\w*+"""
    r"""|[rbfuRBFU]{0,2}(?:\"{3}(?:[^"\\]|\\.|"(?!""))*+\"{3}|'{3}(?:[^'\\]|\\.|'(?!''))*+'{3}"""
    r"""|"(?:[^"\\\n]|\\.)*+"|'(?:[^'\\\n]|\\.)*+')"""
    r"""|\w++|\*\*=|//=|>>=|<<=|\.\.\.|[-+*/%@&|^=!<>:]=|->|\*\*|//|<<|>>|.|\Z)""",
    re.DOTALL,
)

_LOOSE = re.compile(r"\w++|[^\w\s]")

MAX_CHARS = 100_000
"""The longest program. All of this runs in the trusted process: a syntax tree takes some 200 bytes per character."""
_FSTRING_STEPS = 10_000_000
"""Python 3.11 looks for each expression of an f-string from the string's start: length times expressions, 5 ns each."""
_COPIES = 4
_FREE_COPIES = 20_000
"""Nodes that `finally` blocks may add to those of the program, beyond `_COPIES` times their number."""


def split_lines(source: str) -> list[str]:
    """Lines as Python's own tokenizer counts them (LF, CRLF or CR; not form feed or U+2028), ends kept."""
    return _LINE.findall(source)


@dataclass(frozen=True, slots=True)
class EvolveBlock:
    """Lines that may change: `source[start:stop]`, the marker lines left out.

    `first_line` and `last_line` count from 1 and are inclusive; an empty block has last_line = first_line - 1.
    """

    first_line: int
    last_line: int
    start: int
    stop: int
    text: str


@lru_cache(maxsize=64)
def evolve_blocks(source: str) -> tuple[EvolveBlock, ...]:
    """The evolve blocks in order; without any marker the whole source is one.

    Raises ValueError naming the line when markers are nested or unbalanced.
    """
    if "EVOLVE-BLOCK-" not in source:
        return (EvolveBlock(1, len(split_lines(source)), 0, len(source), source),)
    blocks: list[EvolveBlock] = []
    opened: tuple[int, int] | None = None  # line number of the start marker, offset behind it
    offset = number = 0
    for number, line in enumerate(split_lines(source), start=1):
        marker = _MARKER.match(line)
        if marker is not None and marker[1] == "START":
            if opened is not None:
                raise ValueError(
                    f"line {number}: EVOLVE-BLOCK-START inside the evolve block opened at line {opened[0]}"
                )
            opened = (number, offset + len(line))
        elif marker is not None:
            if opened is None:
                raise ValueError(f"line {number}: EVOLVE-BLOCK-END without EVOLVE-BLOCK-START")
            start = opened[1]
            blocks.append(EvolveBlock(opened[0] + 1, number - 1, start, offset, source[start:offset]))
            opened = None
        offset += len(line)
    if opened is not None:
        raise ValueError(f"line {opened[0]}: EVOLVE-BLOCK-START without EVOLVE-BLOCK-END")
    if not blocks:  # the words occur in a string or a sentence, not as markers
        return (EvolveBlock(1, number, 0, len(source), source),)
    return tuple(blocks)


def parse(source: str) -> ast.Module:
    """A fresh syntax tree, the caller's to change.

    Raises SyntaxError, also where Python's parser gives up otherwise (null bytes, lone surrogates, too deep nesting)
    and for programs that are too long.
    """
    _check_length(source)
    try:
        return ast.parse(source, FILENAME)
    except SyntaxError:
        raise
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(f"cannot be parsed: {str(error) or type(error).__name__}") from None


def _check_length(source: str) -> None:
    if len(source) > MAX_CHARS:
        raise SyntaxError(f"the program has {len(source)} characters, more than {MAX_CHARS}")
    if len(source) * source.count("{") > _FSTRING_STEPS:
        formatted = (token for token in _tokens(source) if "f" in token[:2].lower() and token[-1] in "\"'")
        if sum(len(token) * token.count("{") for token in formatted) > _FSTRING_STEPS:
            raise SyntaxError("its f-strings are too long")


def _check_copies(tree: ast.Module) -> None:
    """Raises SyntaxError for nested `finally` blocks: the compiler writes each one out for every way into it."""
    nodes = sum(1 for _ in ast.walk(tree))
    if _compiled_size(tree)[0] > _COPIES * nodes + _FREE_COPIES:
        raise SyntaxError("`finally` blocks are nested too deeply")


def _compiled_size(node: ast.AST) -> tuple[int, int]:
    """Nodes below a node as often as they are compiled, and jumps out of it, which lead through `finally` blocks."""
    size, jumps = 1, int(isinstance(node, ast.Return | ast.Break | ast.Continue))
    final = node.finalbody if isinstance(node, ast.Try | ast.TryStar) else []
    last = {id(child) for child in final}
    for child in ast.iter_child_nodes(node):
        if id(child) not in last:
            inner = _compiled_size(child)
            size, jumps = size + inner[0], jumps + inner[1]
    copies = 2 + jumps
    for child in final:
        inner = _compiled_size(child)
        size, jumps = size + copies * inner[0], jumps + copies * inner[1]
    return size, jumps


def fingerprint(source: str) -> str:
    """32 hex digits naming the program up to layout: comments, docstrings, formatting and idle `pass` do not count.

    The digest is a SHA-256 of the normalised syntax tree (`encode`). Raises SyntaxError when there is none.
    """
    return _digests(source)[0]


def shape(source: str) -> str:
    """32 hex digits like `fingerprint`, of the tree with its constants and their signs blanked.

    Equal for two programs that differ in literals only. Raises SyntaxError as `fingerprint` does.
    """
    return _digests(source)[1]


_CONSTANT = re.compile(r"^(?:UnaryOp\n(?:USub|UAdd)\n)?'.*$|(?<=^MatchSingleton\n)[=~].*$", re.MULTILINE)
"""In the text of `encode`: a constant, with its sign if it has one."""


@lru_cache(maxsize=64)
def _digests(source: str) -> tuple[str, str]:
    tree = parse(source)
    try:
        text = encode(tree)
    except RecursionError:
        raise SyntaxError("cannot be parsed: nested too deeply") from None
    return _digest(text), _digest(_CONSTANT.sub("'", text))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_IGNORED_FIELDS = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


class _Fields(dict[type[ast.AST], tuple[str, tuple[str, ...]]]):
    """Node class -> (its name, the fields that say something), filled as classes are met."""

    def __missing__(self, cls: type[ast.AST]) -> tuple[str, tuple[str, ...]]:
        entry = self[cls] = (cls.__name__, tuple(f for f in cls._fields if f not in _IGNORED_FIELDS))
        return entry


_FIELDS = _Fields()


def encode(node: ast.AST) -> str:
    """The normalised syntax tree as text: equal for two programs that differ in layout only.

    Statements that do nothing (`pass`, bare constants such as docstrings) are left out. A prefix code: class names,
    then fields in order, lists bracketed, so different trees have different texts. Raises RecursionError.
    """
    out: list[str] = []
    _encode(node, out.append)
    return "\n".join(out)


def _encode(node: ast.AST, emit: Callable[[str], None]) -> None:
    cls = type(node)
    if cls is ast.Name:
        emit("." + node.id)  # type: ignore[attr-defined]
        return
    if cls is ast.Constant:
        emit(_constant(node.value))  # type: ignore[attr-defined]
        return
    name, fields = _FIELDS[cls]
    emit(name)
    for field in fields:
        value = getattr(node, field)
        if isinstance(value, ast.AST):
            _encode(value, emit)
        elif type(value) is list:
            if not value and field == "type_params":
                continue  # Python 3.11 does not know the field
            emit("[")
            for item in value:
                if isinstance(item, ast.AST):
                    if not is_idle(item):
                        _encode(item, emit)
                else:
                    emit(f"={item}")
            emit("]")
        else:
            emit("~" if value is None else f"={value}")


def is_idle(node: ast.AST) -> bool:
    """Whether a statement does nothing: `pass`, or a bare constant such as a docstring."""
    cls = type(node)
    return cls is ast.Pass or (cls is ast.Expr and type(node.value) is ast.Constant)  # type: ignore[attr-defined]


def _constant(value: object) -> str:
    if type(value) is int and value.bit_length() > 64:
        return f"'{value:x}"  # repr refuses integers of more than 4,300 digits
    return "'" + repr(value)


def syntax_problem(source: str) -> str | None:
    """Why a program cannot be run at all, as one line; None when it compiles and its evolve blocks are well formed.

    Files of a bundle are compiled one by one, and the line names the file.
    """
    if not is_bundle(source):
        return _syntax_problem(source)
    try:
        _check_length(source)
        files = split(source)
    except (SyntaxError, ValueError) as error:
        return str(error)
    problems = ((name, _syntax_problem(text)) for name, text in files.items())
    return next((f"{name}: {problem}" for name, problem in problems if problem is not None), None)


def _syntax_problem(source: str) -> str | None:
    try:
        if re.search(r"\bfinally\b", source):
            _check_copies(parse(source))
        else:
            _check_length(source)
        compile(source, FILENAME, "exec", dont_inherit=True)
        evolve_blocks(source)
    except SyntaxError as error:
        where = f"line {error.lineno}: " if error.lineno else ""
        return " ".join(f"{where}{error.msg}".split())
    except (ValueError, RecursionError, MemoryError) as error:
        return " ".join((str(error) or "nested too deeply for the parser").split())
    return None


@dataclass(frozen=True, slots=True)
class Descriptor:
    """Where a program lies in the space an archive spreads over."""

    size: float
    """Tokens inside the evolve blocks, comments and blanks not counted."""
    distance: float
    """0 for the seed's blocks, 1 for blocks that share no three tokens in a row with them."""


def _tokens(text: str) -> list[str]:
    """The tokens of a text, in linear time: behind a quote that begins no string, quotes are looked at no closer."""
    found: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match[1]
        found.append(token)
        if token == '"' or token == "'":
            return found + _LOOSE.findall(text, match.end())
    return found


def block_tokens(source: str) -> tuple[str, ...]:
    """The tokens inside the evolve blocks, in order. Raises ValueError on bad markers."""
    return tuple(token for block in evolve_blocks(source) for token in _tokens(block.text) if token)


Shingles: TypeAlias = Counter[tuple[str, str, str]]
"""How often each three tokens in a row occur."""


def shingles(source: str) -> Shingles:
    """The token 3-grams inside the evolve blocks, padded at both ends, so that short texts have some too.

    Raises ValueError on bad markers.
    """
    return _shingles(block_tokens(source))


def similarity(a: Shingles, b: Shingles) -> float:
    """Dice similarity of two multisets, 0 to 1: one changed token in a text of n lowers it by about 3/n."""
    if len(b) < len(a):
        a, b = b, a
    shared = sum(min(count, b[gram]) for gram, count in a.items() if gram in b)
    total = a.total() + b.total()
    return 2.0 * shared / total if total else 1.0


def describe(source: str, seed_tokens: Sequence[str]) -> Descriptor:
    """The descriptor of a program relative to a seed (`seed_tokens = block_tokens(seed)`).

    distance = 1 - `similarity` of their shingles. Raises ValueError on bad markers.
    """
    tokens = block_tokens(source)
    return Descriptor(float(len(tokens)), 1.0 - similarity(_shingles(tokens), _seed_shingles(tuple(seed_tokens))))


def _shingles(tokens: tuple[str, ...]) -> Shingles:
    padded = ("", "", *tokens, "", "") if tokens else ()
    return Counter(zip(padded, padded[1:], padded[2:], strict=False))


@lru_cache(maxsize=8)
def _seed_shingles(tokens: tuple[str, ...]) -> Shingles:
    return _shingles(tokens)


_FUNCTIONS = frozenset({ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda})
_LOOPS = frozenset({ast.For, ast.AsyncFor, ast.While})
_BRANCHES = frozenset({ast.If, ast.IfExp, ast.match_case, ast.ExceptHandler})
_COMPREHENSIONS = frozenset({ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp})
_COLLECTIONS = frozenset({ast.List, ast.Set, ast.Dict})
_REPEATED = _LOOPS | _COMPREHENSIONS
_NUMBERS = frozenset({int, float, complex})


@lru_cache(maxsize=64)
def features(source: str) -> tuple[float, ...]:
    """What the syntax tree of the whole program holds, ten numbers.

    Functions (lambdas too), loops, deepest nesting of loops and comprehensions, branches (if, case, except),
    comprehensions, calls, different names called, numbers, list, set and dict displays, depth of the tree. Time is
    linear in the program's length. Raises SyntaxError as `parse` does.
    """
    kinds: Counter[type[ast.AST]] = Counter()
    called: set[str] = set()
    numbers = nesting = depth = 0
    level: list[tuple[ast.AST, int]] = [(parse(source), 0)]  # level by level: a tree may be deeper than the stack
    while level:
        below: list[tuple[ast.AST, int]] = []
        for node, loops in level:
            cls = type(node)
            kinds[cls] += 1
            if cls is ast.Constant:
                numbers += type(node.value) in _NUMBERS  # type: ignore[attr-defined]
                continue
            if cls is ast.Call:
                called.add(_called_name(node.func))  # type: ignore[attr-defined]
            elif cls in _REPEATED:
                loops += 1
                nesting = max(nesting, loops)
            for field in _FIELDS[cls][1]:
                value = getattr(node, field, None)
                if isinstance(value, ast.AST):
                    below.append((value, loops))
                elif type(value) is list:
                    below += [(item, loops) for item in value if isinstance(item, ast.AST)]
        depth += bool(below)
        level = below
    functions, loops, branches, comprehensions, collections = (
        sum(kinds[cls] for cls in group) for group in (_FUNCTIONS, _LOOPS, _BRANCHES, _COMPREHENSIONS, _COLLECTIONS)
    )
    found = (functions, loops, nesting, branches, comprehensions)
    return tuple(map(float, (*found, kinds[ast.Call], len(called - {""}), numbers, collections, depth)))


def _called_name(function: ast.expr) -> str:
    """The last name of what is called; empty where it has none."""
    if isinstance(function, ast.Name):
        return function.id
    return function.attr if isinstance(function, ast.Attribute) else ""
