"""Rows are grouped by the cell that promises most; it goes first, and each group has its own order of columns."""

# EVOLVE-BLOCK-START
LENGTH_POWER = 1.5  # how much long values count in the choice of groups
COUNT_POWER = 0.5  # how much repetition counts there
REPEAT_POWER = 1.0  # how much repetition counts for columns within a group


def cell_score(length, count):
    """Promise of a value with `length` characters that stands in `count` rows of its column."""
    return length**LENGTH_POWER * (count - 1) ** COUNT_POWER


def column_score(texts):
    """Worth of a column as the next one of a group."""
    mean_length = sum(len(text) for text in texts) / len(texts)
    return mean_length * (len(texts) / len(set(texts)) - 1.0) ** REPEAT_POWER


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    columns = [[str(value) for value in column] for column in values.T]
    counts = []
    for column in columns:
        seen = {}
        for text in column:
            seen[text] = seen.get(text, 0) + 1
        counts.append(seen)

    groups = {}
    for row in range(len(values)):
        best = 0
        best_score = -1.0
        for c in range(len(columns)):
            text = columns[c][row]
            score = cell_score(len(text), counts[c][text])
            if score > best_score:
                best = c
                best_score = score
        groups.setdefault((best, columns[best][row]), []).append(row)

    rows = []
    for (first, _), members in groups.items():
        scores = [column_score([columns[c][row] for row in members]) for c in range(len(columns))]
        rest = sorted((c for c in range(len(columns)) if c != first), key=lambda c: scores[c], reverse=True)
        for row in members:
            rows.append([columns[c][row] for c in [first, *rest]])
    rows.sort()
    return rows


# EVOLVE-BLOCK-END
