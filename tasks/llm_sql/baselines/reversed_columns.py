"""Columns from last to first: descriptions often stand at the end of a table."""


def solve(df, col_merge):
    return df[df.columns[::-1]]
