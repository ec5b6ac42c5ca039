"""Where lines that a model quoted stand in a program: to the letter, up to blanks, shifted, or nearly.

Linear in the program, but for near matches, whose cost is bounded. Lines come without their ends.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

TAB = 4
"""Columns of a tab in front of a line: what a model writes in its place."""

_INDENT = re.compile(r"[ \t]*")
_WORD = re.compile(r"\w+|[^\w\s]")
_MANY = 6
"""Places looked for: as many as a message can name, and one more."""
_CLEARLY = 0.05
"""By how much the most similar place must be ahead of any other."""
_WORTH_COMPARING = 0.3
_WORTH_TELLING = 0.5
_SLACK = 2
"""Lines that a near match may have more or less than what is searched."""
_PLACES, _STARTS = 3, 3
"""How many places are compared character by character, and first lines at each of them."""
_NEAR_CHARS = 5_000
"""The longest text for which near matches are looked for."""

Ranges: TypeAlias = Sequence[tuple[int, int]]
"""Lines that may be matched: (start, stop) of each piece, stop exclusive."""


@dataclass(frozen=True, slots=True)
class Place:
    """Lines `start` to `stop` (exclusive) of a program, from 0."""

    start: int
    stop: int
    exact: bool = False
    """Whether they are the searched text to the letter."""

    def overlaps(self, other: Place) -> bool:
        return self.start < other.stop and other.start < self.stop


@dataclass(frozen=True, slots=True)
class Near:
    """What came of a search for similar lines: one place, or several that are too much alike, or neither."""

    place: Place | None = None
    rivals: tuple[Place, ...] = ()
    closest: Place | None = None
    """The most similar lines, where none are similar enough."""


def find_lines(lines: Sequence[str], search: Sequence[str], ranges: Ranges) -> list[Place]:
    """The places inside one of the ranges where the lines stand, at most six.

    By the first of three readings that finds any: to the letter; up to blanks inside and behind lines, and tabs in
    front; as that, with all lines shifted by the same number of columns. Under the last two, blank lines at the ends
    of what is searched do not count. Nothing is found of a search without text.
    """
    core = trimmed(search)
    if not core:
        return []
    if found := _found([lines[start:stop] for start, stop in ranges], search, ranges, 1):
        return [Place(start, start + len(search), exact=True) for start in found]
    for reading, per_line in ((_by_column, 1), (_by_step, 2)):
        found = _found([reading(lines[start:stop]) for start, stop in ranges], reading(core), ranges, per_line)
        if found:
            return [Place(start, start + len(core)) for start in found]
    return []


def trimmed(lines: Sequence[str]) -> Sequence[str]:
    """Without the blank lines at both ends."""
    full = [index for index, line in enumerate(lines) if line.strip()]
    return lines[full[0] : full[-1] + 1] if full else []


def _by_column(lines: Sequence[str]) -> list[Hashable]:
    """One symbol a line: its column and its text."""
    return [(columns(line), _plain(line)) if line.strip() else "" for line in lines]


def _by_step(lines: Sequence[str]) -> list[Hashable]:
    """Two symbols a line, its text and the step in columns to the next line with text: equal wherever it begins."""
    symbols: list[Hashable] = []
    before = None
    for line in lines:
        column = columns(line) if line.strip() else before
        if symbols:
            symbols.append(0 if column is None or before is None else column - before)
        symbols.append(_plain(line))
        before = column
    return symbols


def _found(
    pieces: Iterable[Sequence[Hashable]], wanted: Sequence[Hashable], ranges: Ranges, per_line: int
) -> list[int]:
    """Lines at which the symbols stand in the pieces, which are those of the ranges; at most `_MANY`.

    Symbols become characters, so that the search is Python's own, which is linear.
    """
    codes: dict[Hashable, str] = {}
    needle = "".join(codes.setdefault(symbol, chr(len(codes) + 1)) for symbol in wanted)
    found: list[int] = []
    for (start, _), piece in zip(ranges, pieces, strict=True):
        text = "".join(codes.get(symbol, "\0") for symbol in piece)
        at = text.find(needle)
        while at >= 0 and len(found) < _MANY:
            found.append(start + at // per_line)
            at = text.find(needle, at + 1)
    return found


def find_near(lines: Sequence[str], search: Sequence[str], ranges: Ranges, least: float) -> Near:
    """The window of lines that resembles what is searched, if its similarity is at least `least` and clearly highest.

    Similarity = 2 c / (a + b): c characters in common in order, a and b the lengths of the two texts without
    indentation, blank lines and runs of blanks. A window has up to two lines more or less than the search. Which
    windows are compared is decided by the words they share. Nothing is found of texts beyond 5,000 characters.
    """
    core = trimmed(search)
    wanted = _text(core)
    if not wanted or len(wanted) > _NEAR_CHARS:
        return Near()
    scored: list[tuple[float, int, Place]] = []
    for place in _promising(lines, core, ranges):
        text = _text(lines[place.start : place.stop])
        if 2 * min(len(text), len(wanted)) >= _WORTH_TELLING * (len(text) + len(wanted)):  # else it cannot be
            scored.append((_similarity(wanted, text), -abs(place.stop - place.start - len(core)), place))
    if not scored:
        return Near()
    score, closeness, best = max(scored, key=lambda entry: (entry[0], entry[1], -entry[2].start))
    if score < least:
        return Near(closest=best if score >= _WORTH_TELLING else None)
    rivals = {
        place.start: place
        for other, size, place in scored
        if (other > score - _CLEARLY and not place.overlaps(best))
        or (other == score and size == closeness and place.start != best.start)
    }
    if rivals:
        rivals[best.start] = best
        return Near(rivals=tuple(rivals[start] for start in sorted(rivals)))
    return Near(best)


def _promising(lines: Sequence[str], core: Sequence[str], ranges: Ranges) -> list[Place]:
    """The windows that are worth comparing: of several sizes, from some lines at each of a few places."""
    bag = Counter(word for line in core for word in _WORD.findall(line))
    shares = _shares(lines, bag, len(core), ranges)
    ranked = sorted((-share, start, stop) for share, start, stop in shares if share >= _WORTH_COMPARING)
    groups: list[list[tuple[int, int]]] = []
    for _, start, stop in ranked:
        group = next((group for group in groups if abs(group[0][0] - start) < len(core)), None)
        if group is None and len(groups) < _PLACES:
            groups.append([(start, stop)])
        elif group is not None and len(group) < _STARTS:
            group.append((start, stop))
    return [
        Place(start, start + size)
        for start, stop in (begun for group in groups for begun in group)
        for size in range(max(1, len(core) - _SLACK), min(len(core) + _SLACK, stop - start) + 1)
        if lines[start + size - 1].strip()
    ]


def _shares(lines: Sequence[str], bag: Counter[str], length: int, ranges: Ranges) -> Iterator[tuple[float, int, int]]:
    """How many words of a bag the lines from each line with text share with it (Dice, 0 to 1): (share, line, end).

    So many lines as are searched, or up to two less at the end of a range, which is what `end` says.
    """
    total = bag.total()
    for start, stop in ranges:
        words = [_WORD.findall(line) for line in lines[start:stop]] + [[]] * _SLACK
        missing, shared, count = bag.copy(), 0, 0
        for index, line in enumerate(words):
            for word in line:
                if word in missing:
                    shared += missing[word] > 0
                    missing[word] -= 1
            count += len(line)
            first = index - length + 1
            if first < 0:
                continue
            if words[first]:
                yield 2 * shared / (count + total), start + first, stop
            for word in words[first]:
                if word in missing:
                    missing[word] += 1
                    shared -= missing[word] > 0
            count -= len(words[first])


def _similarity(a: str, b: str) -> float:
    return 1.0 if a == b else 2 * _common(a, b) / (len(a) + len(b))


def _common(a: str, b: str) -> int:
    """Length of the longest common subsequence, a row of the table in one integer (Hyyrö 2004)."""
    where: dict[str, int] = {}
    for index, char in enumerate(a):
        where[char] = where.get(char, 0) | 1 << index
    full = (1 << len(a)) - 1
    row = full
    for char in b:
        hit = row & where.get(char, 0)
        row = (row + hit | row - hit) & full
    return len(a) - row.bit_count()


def shifted(new: Sequence[str], search: Sequence[str], there: Sequence[str]) -> list[str]:
    """Replacement lines indented for where the searched lines were found.

    They move by as many columns as most searched lines have to, and take tabs or blanks as the place has them.
    """
    at = {_plain(line): columns(line) for line in reversed(search) if line.strip()}
    moves = Counter(columns(line) - at[_plain(line)] for line in there if _plain(line) in at)
    if not moves:
        moves[columns(trimmed(there)[0]) - columns(trimmed(search)[0])] += 1
    return moved(new, moves.most_common(1)[0][0], there)


def moved(lines: Sequence[str], by: int, there: Sequence[str]) -> list[str]:
    """Lines indented by so many columns more (less, at most to 0), with tabs if the lines `there` are so indented."""
    theirs = "".join(_indent(line) for line in there if line.strip())
    ours = "".join(_indent(line) for line in lines if line.strip())
    tabs = "\t" in (theirs or ours)
    if by == 0 and ("\t" in ours) == tabs:
        return list(lines)
    return [_reindented(line, max(0, columns(line) + by), tabs) if line.strip() else line for line in lines]


def _reindented(line: str, column: int, tabs: bool) -> str:
    indent = "\t" * (column // TAB) + " " * (column % TAB) if tabs else " " * column
    return indent + line[len(_indent(line)) :]


def columns(line: str) -> int:
    """How far a line is indented."""
    return len(_indent(line).expandtabs(TAB))


def _indent(line: str) -> str:
    indent = _INDENT.match(line)
    assert indent is not None
    return indent[0]


def _plain(line: str) -> str:
    return " ".join(line.split())


def _text(lines: Sequence[str]) -> str:
    return "\n".join(_plain(line) for line in lines if line.strip())
