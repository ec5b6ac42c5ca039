"""A good start, then rows are taken out of the trie of cells one by one and put back where they share most.

Ours. Starts are greedy group recursion (see ggr.py) and two fixed orders. A row's best place is found by walking the
trie of the other rows along cells that the row has; its other cells follow, those first whose beginnings are the most
common. Passes over all rows repeat that until nothing is gained; the best of starts and ends is the answer.
"""

from itertools import pairwise, permutations

import numpy as np
import pandas as pd

PASSES = 6
STEPS = 60  # nodes of one walk: rows of many short cells have too many paths


def numbered(texts):
    """Codes per column (columns x rows) and the lengths of their values; 0-based in order of appearance."""
    codes, lengths = [], []
    for column in texts:
        code, values = pd.factorize(np.array(column, dtype=object))
        codes.append(code)
        lengths.append(np.array([len(value) for value in values], dtype=float))
    return np.array(codes), lengths


def constant_columns(codes, rows, columns):
    return [c for c in columns if (codes[c][rows] == codes[c][rows[0]]).all()]


def dependencies(codes, rows, columns):
    """For each column the others that its value determines within `rows`."""
    local = codes[np.ix_(columns, rows)].astype(np.int64)
    sizes = [len(np.unique(code)) for code in local]
    found = [[] for _ in columns]
    for i, j in permutations(range(len(columns)), 2):
        if sizes[j] <= sizes[i] < len(rows):
            pairs = local[i] * codes.shape[1] + local[j]
            if len(np.unique(pairs)) == sizes[i]:
                found[i].append(j)
    return found


def group_recursion(codes, lengths, rows, columns, prefix, orders):
    """Fill `orders` for `rows`: the group with the largest squared length times repetitions goes first, recursively."""
    while len(rows) > 1 and columns:
        constant = constant_columns(codes, rows, columns)
        if constant:
            prefix, columns = prefix + constant, [c for c in columns if c not in constant]
            continue
        determined = dependencies(codes, rows, columns)
        tables = []
        for i, c in enumerate(columns):
            values, first, code = np.unique(codes[c][rows], return_index=True, return_inverse=True)
            weight = lengths[c][values] ** 2
            for j in determined[i]:
                weight = weight + lengths[columns[j]][codes[columns[j]][rows[first]]] ** 2
            tables.append((code, weight))
        alive = np.ones(len(rows), dtype=bool)
        while alive.any():
            best = (0.0, None, None)
            for i, (code, weight) in enumerate(tables):
                score = weight * (np.bincount(code[alive], minlength=len(weight)) - 1.0)
                top = int(score.argmax())
                if score[top] > best[0]:
                    best = (score[top], i, top)
            if best[1] is None:
                break
            group = alive & (tables[best[1]][0] == best[2])
            alive &= ~group
            c = columns[best[1]]
            group_recursion(codes, lengths, rows[group], [d for d in columns if d != c], [*prefix, c], orders)
        rows = rows[alive]
        break
    for row in rows:
        orders[row] = prefix + columns


class Node:
    __slots__ = ("below", "rows")

    def __init__(self):
        self.below = {}
        self.rows = 0


def seat(root, cells, order, change):
    """Add a row to the trie (change 1) or take it away (-1); return the characters that it shares with other rows."""
    node, shared, found = root, 0, True
    for c in order:
        text = cells[c]
        if not text:
            continue
        below = node.below.get(text)
        if below is None:
            below = node.below[text] = Node()
        found = found and below.rows + min(change, 0) > 0
        shared += len(text) if found else 0
        below.rows += change
        node = below
    return shared


def longest_walk(root, cells, limit):
    """The path of most characters along cells of the row: (characters, columns)."""
    best = (0, ())
    stack = [(root, 0, ())]
    while stack and limit:
        limit -= 1
        node, shared, path = stack.pop()
        if shared > best[0]:
            best = (shared, path)
        for c in range(len(cells)):
            if c not in path and cells[c]:
                below = node.below.get(cells[c])
                if below is not None and below.rows > 0:
                    stack.append((below, shared + len(cells[c]), (*path, c)))
    return best


def shared_beginnings(texts):
    """Characters that texts share with the ones before them."""
    total = 0
    for a, b in pairwise(texts):
        low, high = 0, min(len(a), len(b))
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle - 1)
        total += low
    return total


def common_beginnings(column):
    """Mean length of what a column's sorted values share with their neighbours."""
    values = sorted(column)
    return shared_beginnings(values) / max(1, len(values) - 1)


def shared_characters(texts, orders):
    rows = sorted("".join(texts[c][row] for c in order) for row, order in enumerate(orders))
    return shared_beginnings(rows)


def improved(texts, orders, tail):
    """`orders` after up to PASSES passes over all rows."""
    orders = [list(order) for order in orders]
    cells = list(zip(*texts, strict=True))
    root = Node()
    for row, order in enumerate(orders):
        seat(root, cells[row], order, 1)
    for _ in range(PASSES):
        gained = 0
        for row, order in enumerate(orders):
            shared = seat(root, cells[row], order, -1)
            found, path = longest_walk(root, cells[row], STEPS)
            if found > shared:
                gained += found - shared
                orders[row] = [*path, *(c for c in tail if c not in path)]
            seat(root, cells[row], orders[row], 1)
        if not gained:
            break
    return orders


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    texts = [[str(value) for value in column] for column in values.T]
    codes, lengths = numbered(texts)
    columns = list(range(len(texts)))
    tail = sorted(columns, key=lambda c: -common_beginnings(texts[c]))
    greedy = [None] * len(df)
    group_recursion(codes, lengths, np.arange(len(df)), tail, [], greedy)
    file_order = [None] * len(df)
    group_recursion(codes, lengths, np.arange(len(df)), columns, [], file_order)
    starts = [greedy, file_order, [tail] * len(df), [columns[::-1]] * len(df)]
    tried = [*starts, *(improved(texts, orders, tail) for orders in starts)]
    best = max(tried, key=lambda orders: shared_characters(texts, orders))
    rows = sorted(range(len(df)), key=lambda row: [texts[c][row] for c in best[row]])
    return pd.DataFrame([[texts[c][row] for c in best[row]] for row in rows])
