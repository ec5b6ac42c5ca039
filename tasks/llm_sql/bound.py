"""An upper bound on the prefix hits of a table, over all orders of its rows and of the columns in each row.

Hits are the sum over all rows but the first of the common prefix with one earlier row. Draw an edge from each row to
that earlier one: a spanning tree of the rows. So hits <= weight of a maximum spanning tree, if an edge weighs no less
than the longest common prefix that any orders of the cells give its two rows.

That weight (`kernel.pair_bound`), for rows a and b without their empty cells, S the characters of the cells that both
have (as multisets):

- No cell of a is a proper prefix of a cell of b, nor the other way round. Then both rows' cells begin and end at the
  same places of the common prefix until two cells differ. All full cells are shared, and of the two that differ, it
  holds their common prefix; if one of them is a shared cell left over, the whole is at most S. So it is at most
  S + the longest common prefix of a cell that only a has and one that only b has.
- Otherwise cells may get out of step. The characters of the common prefix belong to cells that a shares, at most S, or
  to the rest of a. Of that rest at most one cell is cut off at the end, and every other one is covered by cells of b
  that begin or end elsewhere: `kernel.composable` finds the texts for which any texts of the table could do that, and
  for others the longest beginning that could be covered, in step with one cell of b or out of step. So it is at most
  S + all composable cells that only a has + the longest such beginning of the others; the same with b; the less of
  both holds.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import kernel
from .prefixes import packed


def hits_bound(columns: Sequence[Sequence[str]]) -> int:
    """No order of rows and of each row's columns gives more prefix hits, in characters."""
    texts = sorted({text for column in columns for text in column if text})
    if not texts:
        return 0
    number = {text: i for i, text in enumerate(texts)}
    cells = np.array([[number.get(text, -1) for text in column] for column in columns], np.int64).T
    chars, start = packed(texts)
    covered, reach = kernel.composable(chars, start)
    return int(kernel.spanning_tree(chars, start, np.ascontiguousarray(np.sort(cells, axis=1)), covered, reach))
