"""One order of columns for the whole table: long values that repeat go first."""

# EVOLVE-BLOCK-START
LENGTH_POWER = 1.0  # how much long cells count
REPEAT_POWER = 1.0  # how much repetition counts
MISSING_WEIGHT = 1.0  # worth of a row whose cell is missing


def column_score(texts):
    """Worth of a column as the first one."""
    total = 0.0
    for text in texts:
        total += len(text) ** LENGTH_POWER if text else MISSING_WEIGHT
    mean_length = total / len(texts)
    repeats = len(texts) / len(set(texts))
    return mean_length * repeats**REPEAT_POWER


def solve(df, col_merge):
    values = df.astype(object).where(df.notna(), "").to_numpy()
    columns = []
    for column in values.T:
        columns.append([str(value) for value in column])

    scores = [column_score(texts) for texts in columns]
    order = sorted(range(len(columns)), key=lambda c: scores[c], reverse=True)

    rows = []
    for row in range(len(values)):
        rows.append([columns[c][row] for c in order])
    rows.sort()
    return rows


# EVOLVE-BLOCK-END
