"""The untrusted side: runs a candidate on a table and tells where each cell of its answer came from.

Programs of two styles run: the public one, a class `Evolved` with `reorder(df, early_stop, row_stop, col_stop,
col_merge, distinct_value_threshold, ...) -> (table, column orders)`, and `solve(df, col_merge) -> table`. A program
with both is run through `Evolved`, as the public evaluator does. A table is a DataFrame or a list of rows of cells.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from .placement import NoPlacement, place
from .table import cell_texts, column_texts, from_public, join_columns

PUBLIC_ARGUMENTS: Mapping[str, Any] = {
    "early_stop": 100_000,
    "distinct_value_threshold": 0.7,
    "row_stop": 4,
    "col_stop": 2,
}
"""What the public evaluator passes to `reorder`, beside `col_merge`."""


class InterfaceError(Exception):
    """The program defines neither entry."""


def run(program: ModuleType, public: Mapping[str, Any]) -> dict[str, Any]:
    """The candidate's answer to the table `public["columns"]`, as a placement or, for scoring `paper`, as texts.

    Gives `{"rows", "orders"}` (see `placement.Placement`); `{"refused": reason}` for what is no rearrangement of the
    table; `{"malformed": reason}` for what is no table; with `public["answer"] == "texts"` `{"text", "lengths"}`, the
    rows' texts end to end in UTF-32 and their lengths. Raises InterfaceError, and whatever the candidate raises.
    """
    df = from_public(public["columns"])
    table = cell_texts(df)
    names = list(df.columns)
    groups: list[list[str]] = public["col_merge"]
    answer = _answer(_reordered(program, df, [list(group) for group in groups]))
    if isinstance(answer, str):
        return {"malformed": answer}
    columns, rows = answer
    if public["answer"] == "texts":
        texts = join_columns(columns) if columns else [""] * rows
        encoded = "".join(texts).encode("utf-32-le", "surrogatepass")
        return {"text": np.frombuffer(encoded, "<u4"), "lengths": np.array([len(text) for text in texts], np.int64)}
    try:
        placement = place(table, [tuple(names.index(name) for name in group) for group in groups], columns, rows)
    except NoPlacement as error:
        return {"refused": str(error)}
    return {"rows": placement.rows, "orders": placement.orders}


def _reordered(program: ModuleType, df: pd.DataFrame, groups: list[list[str]]) -> Any:
    evolved = getattr(program, "Evolved", None)
    if callable(evolved):
        answer = evolved().reorder(df, col_merge=groups, **PUBLIC_ARGUMENTS)
        return answer[0] if isinstance(answer, tuple) and answer else answer
    solve = getattr(program, "solve", None)
    if not callable(solve):
        raise InterfaceError(
            "the program defines neither solve(df, col_merge) nor a class Evolved with reorder(df, ...)"
        )
    answer = solve(df, groups)
    return answer[0] if isinstance(answer, tuple) and answer else answer


def _answer(answer: Any) -> tuple[list[list[str]], int] | str:
    """Texts by column and the number of rows, or what is wrong with the answer."""
    if isinstance(answer, pd.DataFrame):
        return cell_texts(answer), len(answer)
    if not isinstance(answer, list):
        return f"the answer is a {type(answer).__name__}, expected a DataFrame or a list of rows"
    rows = []
    for i, row in enumerate(answer):
        if not isinstance(row, list | tuple | np.ndarray):
            return f"row {i} of the answer is a {type(row).__name__}, expected a list of cells"
        if len(row) != len(answer[0]):
            return f"row {i} of the answer has {len(row)} cells, row 0 has {len(answer[0])}"
        rows.append(column_texts(pd.Series(list(row), dtype=object)))
    return [list(column) for column in zip(*rows, strict=True)], len(rows)
