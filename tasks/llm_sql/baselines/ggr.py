"""Greedy group recursion (GGR) with functional dependencies.

Source: Liu et al., "Optimizing LLM Queries in Relational Data Analytics Workloads" (MLSys 2025), written anew. The
value that promises most goes first in all rows that have it; these rows are solved without its column, the others too.
A value's promise is its squared length, and those of the values that it determines, times its repetitions.
"""

from itertools import permutations

import numpy as np
import pandas as pd


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


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    texts = [[str(value) for value in column] for column in values.T]
    codes, lengths = numbered(texts)
    orders = [None] * len(df)
    group_recursion(codes, lengths, np.arange(len(df)), list(range(len(texts))), [], orders)
    rows = sorted([texts[c][row] for c in orders[row]] for row in range(len(df)))
    return pd.DataFrame(rows)
