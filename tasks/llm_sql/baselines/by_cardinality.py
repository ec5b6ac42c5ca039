"""One order for all rows: columns with few distinct values first, then sorted rows."""


def solve(df, col_merge):
    columns = sorted(df.columns, key=lambda name: df[name].nunique())
    return df[columns].sort_values(columns, kind="stable", key=lambda column: column.astype(str))
