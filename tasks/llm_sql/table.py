"""A table on its way to the candidate, and the texts of its cells.

Columns travel as JSON lists (texts, None where missing) and numpy arrays (numbers and booleans), and become the pandas
columns that `pandas.read_csv` makes of a file: whole numbers with missing ones among them are floats, booleans are
booleans, texts are objects. Both sides use this module, so that they agree on what a cell's text is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd


def to_public(df: pd.DataFrame) -> list[dict[str, Any]]:
    """The columns in order, `{"name": ..., "values": list of texts or numeric array}`. Raises TypeError for others."""
    columns = []
    for name, series in df.items():
        if series.dtype == object:
            values: Any = [None if missing else value for value, missing in zip(series, series.isna(), strict=True)]
            if not all(value is None or type(value) is str for value in values):
                raise TypeError(f"column {name!r} holds something else than texts")
        elif series.dtype in (np.dtype("int64"), np.dtype("float64"), np.dtype("bool")):
            values = series.to_numpy()
        else:
            raise TypeError(f"column {name!r} has type {series.dtype}, expected texts, int64, float64 or bool")
        columns.append({"name": name, "values": values})
    return columns


def from_public(columns: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """The DataFrame of `to_public`, missing texts as NaN."""
    data: dict[str, Any] = {}
    for column in columns:
        values = column["values"]
        if isinstance(values, list):
            values = pd.Series([np.nan if value is None else value for value in values], dtype=object)
        data[column["name"]] = values
    return pd.DataFrame(data)


def column_texts(series: pd.Series) -> list[str]:
    """`str()` of every cell, "" where a value is missing."""
    if series.dtype in (np.dtype("int64"), np.dtype("bool")):
        return [str(value) for value in series.tolist()]
    if series.dtype == np.dtype("float64"):
        return ["" if value != value else str(value) for value in series.tolist()]
    missing = series.isna().tolist()
    return [
        value if type(value) is str else "" if gone else str(value) for value, gone in zip(series, missing, strict=True)
    ]


def cell_texts(df: pd.DataFrame) -> list[list[str]]:
    """Texts column by column; names may repeat."""
    return [column_texts(df.iloc[:, j]) for j in range(df.shape[1])]


def join_columns(columns: Sequence[Sequence[str]]) -> list[str]:
    """The columns' texts joined row by row, without a separator."""
    return list(map("".join, zip(*columns, strict=True)))
