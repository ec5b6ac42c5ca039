"""A model's answer read into a program: edits, or a rewrite of the evolve blocks, and what it says it tried.

Pure; never raises for what an answer or a parent contains. What stands outside the evolve blocks is the parent's,
byte for byte, whatever the answer says.
"""

from __future__ import annotations

import ast
import re
import textwrap
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adrs_ray import bundle
from adrs_ray.candidate import Completion
from adrs_ray.generator import Form, GenerationRequest
from adrs_ray.generator.edits import (
    MAX_ANSWER_CHARS,
    Unreadable,
    apply,
    file_named,
    frame,
    has_frame,
    is_marker,
    line_end,
    parse,
)
from adrs_ray.generator.matching import columns, moved, trimmed
from adrs_ray.program import evolve_blocks, split_lines
from adrs_ray.program import parse as parse_program

__all__ = ["NOTE_CHARS", "Unreadable", "note_of", "program_of"]

NOTE_CHARS = 200

_OPEN = re.compile(r"[ \t]*+(`{3,}+|~{3,}+)[ \t]*+([^\s`]*+)[^`]*+")
_FENCE_INDENT = 3
"""Columns by which the end of a fence may be indented more than its beginning."""
_CODE_TAGS = frozenset({"", "python", "python3", "py"})
_EXAMPLE_SHARE = 3
"""Code of less than a third of the longest piece is an example of use, not the program."""
_IDEA = re.compile(r"[ \t>#*_-]*idea[*_]*[ \t]*:[*_]*[ \t]*(.*)", re.IGNORECASE)
_SENTENCE = re.compile(r"(.*?[.!?])(?=\s|\Z)", re.DOTALL)
_EDIT_LINE = re.compile(r"[ \t]*(?:<{5,9}[ \t]*SEARCH|>{5,9}[ \t]*REPLACE)[ \t]*")
_NO_CODE = "the answer has no fenced code block: give the code between ```python and ```"


@dataclass(frozen=True, slots=True)
class _Fence:
    """A fenced block: its language tag, its text, and the file named in front of it."""

    tag: str
    code: str
    file: str | None

    @property
    def is_code(self) -> bool:
        return self.tag in _CODE_TAGS and bool(self.code.strip())


def program_of(request: GenerationRequest, completion: Completion, fuzzy: float) -> str | Unreadable:
    """The program that an answer means, read as `request.form` says.

    `program`: the text itself. `diff`: its SEARCH/REPLACE blocks applied to `parents[0]` (`edits.apply`, with
    similarity `fuzzy`); without any, a single fenced block that is the whole program or all of the evolve block
    counts as a rewrite. `rewrite`: its SEARCH/REPLACE blocks, if it has any after all; else the last fenced block of
    code that is no mere example. With EVOLVE-BLOCK markers it is the whole program, of which the blocks are taken;
    without, it is the text of the single block, and lines outside the block that it repeats are left out. A program of
    several files is rewritten by blocks that name files (`file: a.py` in front, or `# ADRS-FILE: a.py` inside). An
    answer without fences that is Python counts as a block.

    Raises ValueError for form `text`, which gives no program.
    """
    if request.form == "text":
        raise ValueError("a request of form `text` asks for no program")
    if completion.text is None:
        return Unreadable(completion.detail or "the model gave nothing")
    if request.form == "program":
        return completion.text
    if len(completion.text) > MAX_ANSWER_CHARS:
        return Unreadable(f"the answer has {len(completion.text)} characters, more than {MAX_ANSWER_CHARS}")
    parent = request.parents[0]
    try:
        kept = frame(parent)
        child = _child(parent, completion.text, request.form, fuzzy)
    except ValueError as error:
        return Unreadable(f"the program's own markers are broken: {error}")
    if isinstance(child, str) and not has_frame(child, kept):
        return Unreadable("the code puts in EVOLVE-BLOCK or ADRS-FILE lines: leave them as they are")
    return child


def _child(parent: str, text: str, form: Form, fuzzy: float) -> str | Unreadable:
    """The program of an answer that holds edits or a rewrite, whichever of them `form` asked for."""
    edits = parse(text)
    if isinstance(edits, Unreadable):
        return edits
    if edits:
        return apply(parent, edits, fuzzy)
    if form == "rewrite":
        return _rewrite(parent, text)
    fences = _fences(text)
    if isinstance(fences, Unreadable):
        return fences
    code = [fence for fence in fences if fence.is_code]
    if len(code) == 1 and _is_whole(parent, code[0].code):
        return _rewrite(parent, text)
    return Unreadable("the answer has no SEARCH/REPLACE blocks, and no single code block with the whole evolve block")


# Fenced blocks


def _fences(text: str) -> list[_Fence] | Unreadable:
    """The fenced blocks in order; of an answer without any that is Python, all of it. Unreadable when one is open."""
    lines = [line.rstrip("\r\n") for line in split_lines(text)]
    fences: list[_Fence] = []
    opened: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(lines):
        if opened is None:
            opening = _OPEN.fullmatch(line)
            opened = (number, opening) if opening is not None else None
        elif _closes(line, opened[1]):
            start, opening = opened
            inside = "\n".join(lines[start + 1 : number])
            code = textwrap.dedent(inside) if line[:1].isspace() else inside
            fences.append(_Fence(opening[2].lower().partition(":")[0], code, file_named(lines, start)))
            opened = None
    if opened is not None:
        return Unreadable("the answer is cut off: its last code block is not closed")
    return fences or ([_Fence("python", text, None)] if _statements(text) else [])


def _closes(line: str, opening: re.Match[str]) -> bool:
    """Whether a line ends a fence. As in CommonMark, one that is indented as code does not: docstrings have such."""
    run = line.strip(" \t")
    return (
        run.startswith(opening[1])
        and not run.strip(opening[1][0])
        and columns(line) <= columns(opening[0]) + _FENCE_INDENT
    )


def _statements(text: str) -> list[ast.stmt]:
    """The statements of Python code that are more than an expression; [] of a text that is none."""
    try:
        return [node for node in parse_program(text).body if not isinstance(node, ast.Expr)]
    except SyntaxError:
        return []


def _picked(fences: Sequence[_Fence]) -> str | None:
    """The code of the last block that is no mere example; blocks tagged as Python, or with markers, go first."""
    code = [fence for fence in fences if fence.is_code]
    code = [fence for fence in code if fence.tag] or code
    code = [fence for fence in code if _has_markers(fence.code)] or code
    longest = max((len(fence.code) for fence in code), default=0)
    return next((f.code for f in reversed(code) if len(f.code) * _EXAMPLE_SHARE >= longest), None)


def _has_markers(code: str) -> bool:
    return any(is_marker(line) for line in split_lines(code))


# Rewrites


def _rewrite(parent: str, text: str) -> str | Unreadable:
    fences = _fences(text)
    if isinstance(fences, Unreadable):
        return fences
    if bundle.is_bundle(parent):
        told = _told_files(parent, fences)
        return told if isinstance(told, Unreadable) else _rewritten_files(parent, told)
    code = _picked(fences)
    return Unreadable(_NO_CODE) if code is None else _rewritten(parent, code)


def _told_files(parent: str, fences: Sequence[_Fence]) -> dict[str, str] | Unreadable:
    """Which files of a program an answer rewrites. Code without a name is that of the only file that may change."""
    files = bundle.split(parent)
    told: dict[str, str] = {}
    for fence in fences:
        code = fence.code.lstrip("\r\n")
        if fence.is_code and bundle.is_bundle(code):
            try:
                told |= {name: text for name, text in bundle.split(code).items() if text.strip()}
            except ValueError as error:
                return Unreadable(f"the code's ADRS-FILE lines are broken: {error}")
        elif fence.is_code and fence.file in files:
            told[fence.file] = code
    if unknown := sorted(told.keys() - files.keys()):
        return Unreadable(f"the code has a file {unknown[0]}, but the program's files are {', '.join(files)}")
    if not told:
        code_alone = _picked(fences)
        if code_alone is None:
            return Unreadable(_NO_CODE)
        free = [name for name, text in files.items() if _has_markers(text)]
        if len(free) != 1:
            return Unreadable(f"say which file the code is: a line `file: NAME` before it ({', '.join(free or files)})")
        told[free[0]] = code_alone
    return told


def _rewritten_files(parent: str, told: Mapping[str, str]) -> str | Unreadable:
    marked = _has_markers(parent)
    parts: list[str] = []
    end = 0
    for name, start, stop in bundle.spans(parent):
        text = parent[start:stop]
        if name in told and (_has_markers(text) or not marked):
            new = _rewritten(text, told[name])
            if isinstance(new, Unreadable):
                return Unreadable(f"{name}: {new.reason}")
            text = new
        parts += [parent[end:start], text]
        end = stop
    return "".join(parts)


def _rewritten(parent: str, code: str) -> str | Unreadable:
    """One file with the text of its evolve blocks taken from code, and all else as it is."""
    lines = [line.rstrip("\r\n") for line in split_lines(code)]
    blocks = evolve_blocks(parent)
    if not _has_markers(parent):
        texts = [[line for line in lines if not is_marker(line)]]
    elif _has_markers(code):
        try:
            found = evolve_blocks(code)
        except ValueError as error:
            return Unreadable(f"the code's EVOLVE-BLOCK markers are broken: {error}")
        if len(found) != len(blocks):
            return Unreadable(f"the code has {len(found)} evolve blocks, the program has {len(blocks)}")
        texts = [lines[block.first_line - 1 : block.last_line] for block in found]
    elif len(blocks) > 1:
        return Unreadable(f"the program has {len(blocks)} evolve blocks: keep their EVOLVE-BLOCK markers in the code")
    else:
        texts = [_block_lines(parent, lines)]
    parent_lines = split_lines(parent)
    parts: list[str] = []
    end = 0
    for block, text in zip(blocks, texts, strict=True):
        line_ends = line_end(parent_lines, block.first_line - 1)
        parts += [parent[end : block.start], *(line + line_ends for line in text)]
        end = block.stop
    return "".join([*parts, parent[end:]])


def _block_lines(parent: str, lines: Sequence[str]) -> list[str]:
    """The lines of code that are the single evolve block, indented as it is.

    Where the code begins with all lines that stand before the block, they are left out, and then those behind it as
    well if the code ends with them; blanks, blank lines and markers do not count in that.
    """
    (block,) = evolve_blocks(parent)
    before, behind = _plain_lines(parent[: block.start]), _plain_lines(parent[block.stop :])
    full = [index for index, line in enumerate(lines) if line.strip()]
    plain = _plain_lines("\n".join(lines))
    if plain[: len(before)] == before and len(plain) > len(before):
        lines, cut = lines[full[len(before)] :], full[len(before)]
        left = len(plain) - len(before) - len(behind)
        if behind and left > 0 and plain[-len(behind) :] == behind:
            lines = lines[: full[-len(behind)] - cut]
    lines = trimmed(lines)
    there = trimmed(split_lines(block.text)) or split_lines(parent[: block.start])[-1:]
    return moved(lines, columns(there[0]) - columns(lines[0]), there)


def _plain_lines(text: str) -> list[str]:
    """The lines that say something, runs of blanks as one, without markers."""
    return [" ".join(line.split()) for line in split_lines(text) if line.strip() and not is_marker(line)]


def _is_whole(parent: str, code: str) -> bool:
    """Whether code can stand for the whole program or the whole evolve block: it defines all that the block does."""
    if _has_markers(parent) and _has_markers(code):
        return True
    blocks = evolve_blocks(parent)
    needed = _defined(blocks[0].text)
    return len(blocks) == 1 and bool(needed) and needed <= _defined(code)


def _defined(text: str) -> set[str]:
    """Functions, classes and variables of the outermost level."""
    names: set[str] = set()
    for node in _statements(textwrap.dedent(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


# What was tried


def note_of(completion: Completion) -> str:
    """What an answer with edits or a rewrite says was tried: one line of at most 200 characters, '' if it is silent.

    The line that begins with `Idea:`, in a fence where all of the answer stands in fences; else the first sentence
    outside of code. Control characters are escaped.
    """
    text = (completion.text or "")[:MAX_ANSWER_CHARS]
    prose = _prose(text)
    said = prose if any(line.strip() for line in prose) else [line.rstrip("\r\n") for line in split_lines(text)]
    for number, line in enumerate(said):
        idea = _IDEA.fullmatch(line)
        if idea is not None:
            return _one_line(
                idea[1].strip(" \t*_") or next((later for later in said[number + 1 :] if later.strip()), "")
            )
    sentences = [line for line in prose if line.strip() and not line.lstrip().startswith("#")]
    text = " ".join(sentences[:3])[: 5 * NOTE_CHARS]
    sentence = _SENTENCE.match(text)
    return _one_line(sentence[1] if sentence is not None else text)


def _prose(text: str) -> list[str]:
    """The lines outside fences and edits."""
    prose: list[str] = []
    fence: re.Match[str] | None = None
    editing = False
    for line in split_lines(text):
        line = line.rstrip("\r\n")
        opening = _OPEN.fullmatch(line)
        if fence is not None:
            fence = None if _closes(line, fence) else fence
        elif _EDIT_LINE.fullmatch(line):
            editing = "SEARCH" in line
        elif not editing and opening is not None:
            fence = opening
        elif not editing:
            prose.append(line)
    return prose


def _one_line(said: str) -> str:
    plain = " ".join(said[: 5 * NOTE_CHARS].split())
    shown = "".join(_printable(char) for char in plain[: NOTE_CHARS + 1])
    return shown if len(shown) <= NOTE_CHARS else shown[: NOTE_CHARS - 3] + "..."


def _printable(char: str) -> str:
    hidden = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    return char.encode("unicode_escape").decode("ascii") if hidden else char
