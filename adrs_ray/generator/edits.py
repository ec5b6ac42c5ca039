"""SEARCH/REPLACE edits: read from a model's answer, and applied to a program inside its evolve blocks.

    <<<<<<< SEARCH
    lines of the program
    =======
    lines in their place
    >>>>>>> REPLACE

Where an edit belongs is decided in a fixed order of ever looser readings, and only a single place counts: what is
ambiguous or nowhere is told in words that can be sent back to the model. Pure; never raises for what an answer or a
program contains, and never changes a byte outside the evolve blocks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from adrs_ray.bundle import is_bundle, spans
from adrs_ray.generator.matching import Near, Place, find_lines, find_near, shifted
from adrs_ray.program import evolve_blocks, split_lines

MAX_EDITS = 50
"""Of one answer."""
MAX_ANSWER_CHARS = 400_000
MAX_NEAR_CHARS = 20_000
"""SEARCH texts of one answer up to which similar lines are looked for: 50 us for each character."""

_SEARCH = re.compile(r"[ \t]*(<{5,9})[ \t]*SEARCH[ \t]*")
_DIVIDER = re.compile(r"[ \t]*(={5,9})[ \t]*")
_REPLACE = re.compile(r"[ \t]*>{5,9}[ \t]*REPLACE[ \t]*")
_FENCE = re.compile(r"[ \t]*+(?:`{3,}+|~{3,}+)[^`]*+")
_NAMED = re.compile(r"[#>*`'\" -]*(?:(?:adrs-)?file(?:name)?[ :=]+)?[*`'\"]*([a-z_][a-z0-9_]*\.py)[*`'\":]*", re.I)
_HEADING_CHARS = 120


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An answer that gives no program; `reason` is written to be sent back to the model, one or a few lines."""

    reason: str


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines to look for and lines to put in their place, without line ends."""

    search: tuple[str, ...]
    replace: tuple[str, ...]
    file: str | None = None
    """The file that the answer named in front of it, for programs of several files."""


@dataclass(frozen=True, slots=True)
class _Region:
    """Lines of one file that may change: `lines[start:stop]` of the program."""

    file: str
    start: int
    stop: int


def parse(text: str) -> tuple[Edit, ...] | Unreadable:
    """The edits of an answer in order, inside fences or not; () when it has none.

    Unreadable when a block is not finished, when it cannot be told where SEARCH ends, or when there are too many.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return Unreadable(f"the answer has {len(text)} characters, more than {MAX_ANSWER_CHARS}")
    lines = [line.rstrip("\r\n") for line in split_lines(text)]
    edits: list[Edit] = []
    opened: int | None = None
    for number, line in enumerate(lines):
        if _SEARCH.fullmatch(line):
            if opened is not None:
                return _unfinished(len(edits) + 1)
            opened = number
        elif opened is not None and _REPLACE.fullmatch(line):
            edit = _edit(lines, opened, number)
            if edit is None:
                return Unreadable(
                    f"SEARCH block {len(edits) + 1} must have exactly one line ======= between what is searched and "
                    "what replaces it, as long as its <<<<<<< marker"
                )
            edits.append(edit)
            opened = None
    if opened is not None:
        return _unfinished(len(edits) + 1)
    if len(edits) > MAX_EDITS:
        return Unreadable(f"the answer has {len(edits)} SEARCH blocks, more than {MAX_EDITS}: rewrite larger pieces")
    return tuple(edits)


def _unfinished(number: int) -> Unreadable:
    return Unreadable(f"SEARCH block {number} is cut off: it has no line >>>>>>> REPLACE")


def _edit(lines: Sequence[str], start: int, stop: int) -> Edit | None:
    """The edit between two marker lines; None when it cannot be told where its two halves meet."""
    dividers = [i for i in range(start + 1, stop) if _DIVIDER.fullmatch(lines[i])]
    if len(dividers) > 1:  # a heading underlined in a docstring looks like one
        opener = _SEARCH.fullmatch(lines[start])
        assert opener is not None
        dividers = [i for i in dividers if len(lines[i].strip()) == len(opener[1])]
    if len(dividers) != 1:
        return None
    middle = dividers[0]
    return Edit(tuple(lines[start + 1 : middle]), tuple(lines[middle + 1 : stop]), file_named(lines, start))


def file_named(lines: Sequence[str], before: int) -> str | None:
    """The file that the line in front of `lines[before]` names, such as `file: a.py` or `### a.py`.

    Blank lines and a line that opens a fence may stand between.
    """
    for line in reversed(lines[max(0, before - 4) : before]):
        if line.strip() and not _FENCE.fullmatch(line):
            named = _NAMED.fullmatch(line.strip()) if len(line) <= _HEADING_CHARS else None
            return named[1].lower() if named is not None else None
    return None


Frame: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]


def frame(source: str) -> Frame:
    """What no edit may change: the text between and round the evolve blocks, and the names of the files.

    Raises ValueError on bad markers or names.
    """
    cuts = [0, *(offset for block in evolve_blocks(source) for offset in (block.start, block.stop)), len(source)]
    outside = tuple(source[a:b] for a, b in zip(cuts[::2], cuts[1::2], strict=True))
    return outside, tuple(name for name, _, _ in spans(source)) if is_bundle(source) else ()


def apply(source: str, edits: Sequence[Edit], fuzzy: float) -> str | Unreadable:
    """The program after the edits, one after another, each on what those before it left.

    An edit belongs where its SEARCH lines stand in an evolve block, and by the first reading that finds them:

    1. line by line the same text;
    2. the same up to blanks at line ends, runs of blanks inside a line, tabs for four blanks in front;
    3. as 2, with all lines indented by the same amount more or less; the replacement moves by it as well;
    4. the one window of lines whose similarity (`matching.find_near`) is at least `fuzzy` and clearly the highest, as
       long as the SEARCH texts so far have at most `MAX_NEAR_CHARS` characters.

    Under readings 2 to 4 blank lines round the searched ones do not count. A SEARCH without text stands for an evolve
    block without text. Line ends of the program are kept. Unreadable where the place is not exactly one.
    """
    try:
        kept = frame(source)
        searched = 0
        for number, edit in enumerate(edits, start=1):
            searched += sum(map(len, edit.search))
            least = fuzzy if searched <= MAX_NEAR_CHARS else None
            changed = _applied(source, edit, f"SEARCH block {number}", least)
            if isinstance(changed, Unreadable):
                return changed
            if not has_frame(changed, kept):
                return Unreadable(f"SEARCH block {number} puts in EVOLVE-BLOCK or ADRS-FILE lines: leave them out")
            source = changed
    except ValueError as error:
        return Unreadable(f"the program's own markers are broken: {error}")
    return source


def has_frame(source: str, kept: Frame) -> bool:
    """Whether a program has the frame that it must keep; False on bad markers or names."""
    try:
        return frame(source) == kept
    except ValueError:
        return False


def is_marker(line: str) -> bool:
    """Whether a line begins or ends an evolve block."""
    if "EVOLVE-BLOCK-" not in line:
        return False
    try:
        evolve_blocks(line)
    except ValueError:  # a marker alone is unbalanced
        return True
    return False


def _applied(source: str, edit: Edit, what: str, fuzzy: float | None) -> str | Unreadable:
    lines = split_lines(source)
    regions = _regions(source, lines)
    if is_bundle(source) and edit.file is not None:
        names = [name for name, _, _ in spans(source)]
        if edit.file not in names:
            return Unreadable(f"{what} is for {edit.file}, but the program's files are {', '.join(names)}")
        regions = [region for region in regions if region.file == edit.file]
        if not regions:
            return Unreadable(f"{what} is for {edit.file}, which has no evolve block and may not change")
    found = _place(lines, regions, edit, what, fuzzy)
    if isinstance(found, Unreadable):
        return found
    end = line_end(lines, found.start)
    new = [line + end for line in _replacement(lines, edit, found)]
    if new and found.stop == len(lines) and lines and not lines[-1].endswith(("\r", "\n")):
        new[-1] = new[-1].removesuffix(end)
    return "".join([*lines[: found.start], *new, *lines[found.stop :]])


def _regions(source: str, lines: Sequence[str]) -> list[_Region]:
    """The evolve blocks, cut where a file ends. Raises ValueError on bad markers or names."""
    regions: list[_Region] = []
    offsets, offset = {0: 0}, 0  # offset of a line -> its index
    for index, line in enumerate(lines, start=1):
        offset += len(line)
        offsets[offset] = index
    files = spans(source)
    for block in evolve_blocks(source):
        for file, start, stop in files:
            first, last = max(start, block.start), min(stop, block.stop)
            if first <= last:
                regions.append(_Region(file, offsets[first], offsets[last]))
    return regions


def _place(
    lines: Sequence[str], regions: Sequence[_Region], edit: Edit, what: str, fuzzy: float | None
) -> Place | Unreadable:
    bare = [line.rstrip("\r\n") for line in lines]
    allowed = [(region.start, region.stop) for region in regions]
    if not any(line.strip() for line in edit.search):
        return _blank_place(bare, allowed, what)
    found = find_lines(bare, edit.search, allowed)
    if len(found) == 1:
        return found[0]
    if found:
        return Unreadable(
            f"{what} matches {_count(len(found))} places (lines {_starts(found)}): add lines around it to tell which"
        )
    if outside := find_lines(bare, edit.search, [(0, len(bare))]):
        return Unreadable(
            f"{what} lies outside the evolve blocks (line {outside[0].start + 1}): only lines between "
            "EVOLVE-BLOCK-START and EVOLVE-BLOCK-END may change, the markers left out"
        )
    near = Near() if fuzzy is None else find_near(bare, edit.search, allowed, fuzzy)
    if near.place is not None:
        return near.place
    if near.rivals:
        return Unreadable(
            f"{what} matches no lines exactly, and resembles {_count(len(near.rivals))} places "
            f"(lines {_starts(near.rivals)}): copy the lines as they stand, with lines around them"
        )
    closest = f"; the closest lines start at {near.closest.start + 1}" if near.closest is not None else ""
    return Unreadable(f"{what} matches nothing in the evolve blocks{closest}: copy the lines as they stand")


def _blank_place(bare: Sequence[str], allowed: Sequence[tuple[int, int]], what: str) -> Place | Unreadable:
    """Where an edit without SEARCH text belongs: the evolve block that has no text either."""
    blank = [(start, stop) for start, stop in allowed if not any(line.strip() for line in bare[start:stop])]
    if len(blank) == 1:
        return Place(*blank[0], exact=True)
    if blank:
        starts = ", ".join(str(start + 1) for start, _ in blank[:_SHOWN_PLACES])
        return Unreadable(f"{what} is empty, and {len(blank)} evolve blocks are (lines {starts}): fill one by its file")
    return Unreadable(f"{what} is empty: give the lines that are to be replaced, or those beside a new piece")


_SHOWN_PLACES = 5


def _count(found: int) -> str:
    return str(found) if found <= _SHOWN_PLACES else f"more than {_SHOWN_PLACES}"


def _starts(places: Sequence[Place]) -> str:
    shown = [str(place.start + 1) for place in places[:_SHOWN_PLACES]]
    return ", ".join(shown) + (", ..." if len(places) > _SHOWN_PLACES else "")


def _replacement(lines: Sequence[str], edit: Edit, place: Place) -> Sequence[str]:
    """The new lines, indented as the place is where the searched lines were indented otherwise."""
    if place.exact:
        return edit.replace
    new = list(edit.replace)
    blank_before = next(i for i, line in enumerate(edit.search) if line.strip())
    blank_behind = next(i for i, line in enumerate(reversed(edit.search)) if line.strip())
    while blank_before and len(new) > 1 and not new[0].strip():
        new, blank_before = new[1:], blank_before - 1
    while blank_behind and len(new) > 1 and not new[-1].strip():
        new, blank_behind = new[:-1], blank_behind - 1
    there = [line.rstrip("\r\n") for line in lines[place.start : place.stop]]
    return shifted(new, edit.search, there)


def line_end(lines: Sequence[str], near: int) -> str:
    """The line end used at a place, else at the program's start, else LF."""
    for line in (*lines[near : near + 1], *lines[:1]):
        for end in ("\r\n", "\n", "\r"):
            if line.endswith(end):
                return end
    return "\n"
