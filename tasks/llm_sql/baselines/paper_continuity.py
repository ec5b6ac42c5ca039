"""Counts once, then row after row goes on where the row before it was.

The idea is from the prose of "Barbarians at the Gate" (arXiv 2510.06189) on this task: value counts are made once for
the table and not again in every recursion, deep recursion is avoided, and a row's cells are ordered so that the prefix
of the row before goes on, by squared lengths. The code is ours.
"""

from collections import Counter

import pandas as pd


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    texts = [[str(value) for value in column] for column in values.T]
    counts = [Counter(column) for column in texts]
    columns = range(len(texts))

    def worth(c, row):
        text = texts[c][row]
        return len(text) ** 2 * (counts[c][text] - 1)

    total = [sum(worth(c, row) for row in range(len(df))) for c in columns]
    base = sorted(columns, key=lambda c: -total[c])
    best_first = [min(base, key=lambda c: -worth(c, row)) for row in range(len(df))]
    rows = sorted(
        range(len(df)), key=lambda row: (best_first[row], texts[best_first[row]][row], [texts[c][row] for c in base])
    )
    answer, before, previous = [], list(base), None
    for row in rows:
        kept = []
        if previous is not None and best_first[row] == best_first[previous]:
            kept = [c for c in before if texts[c][row] == texts[c][previous]]
        rest = [c for c in columns if c not in kept]
        rest.sort(key=lambda c: (c != best_first[row], -worth(c, row)))
        before = [*kept, *rest]
        previous = row
        answer.append([texts[c][row] for c in before])
    return pd.DataFrame(answer)
