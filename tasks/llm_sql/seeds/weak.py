"""One order of columns for the whole table: few distinct values first."""

# EVOLVE-BLOCK-START
DISTINCT_WEIGHT = 1.0


def column_score(texts):
    """Worth of a column as the first one."""
    return -DISTINCT_WEIGHT * len(set(texts))


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    columns = [[str(value) for value in column] for column in values.T]
    scores = [column_score(texts) for texts in columns]
    order = sorted(range(len(columns)), key=lambda c: scores[c], reverse=True)
    rows = [[columns[c][row] for c in order] for row in range(len(values))]
    return rows


# EVOLVE-BLOCK-END
