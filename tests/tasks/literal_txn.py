"""The transaction simulator taken literally: sorted lists of accesses per key, no state worked out in advance.

Slow on purpose; the kernel of `tasks/txn_offline` must give the same makespans.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

Token = tuple[str, str, int]


def parse(text: str) -> tuple[list[Token], int]:
    """(type, key, position from 1) of each operation, and the length in ticks."""
    tokens = text.split()
    return [(t[0], t[2:], p) for p, t in enumerate(tokens, start=1) if t != "*"], len(tokens)


def makespan(texts: Mapping[str, str], order: Iterable[int]) -> int:
    """Place transactions one by one; each looks at the accesses of earlier ones, kept sorted by time per key."""
    transactions = [parse(text) for text in texts.values()]
    accesses: dict[str, list[tuple[str, int]]] = {}
    total = 0
    for txn in order:
        operations, length = transactions[txn]
        start = 1
        for kind, key, position in operations:
            if key in accesses:
                start = max(start, _earliest(kind, accesses[key]) - position + 1)
        for kind, key, position in operations:
            _insert(accesses.setdefault(key, []), kind, start + position - 1)
        end = start + length - 1
        total += max(0, end - total)
    return total


def _earliest(kind: str, entries: list[tuple[str, int]]) -> int:
    last_kind, last_time = entries[-1]
    if last_kind == "w" or kind == "w":
        return last_time + 1
    writes = [time for entry, time in entries if entry == "w"]
    return writes[-1] + 1 if writes else 0


def _insert(entries: list[tuple[str, int]], kind: str, time: int) -> None:
    place = len(entries)
    while place > 0 and entries[place - 1][1] > time:
        place -= 1
    entries.insert(place, (kind, time))
