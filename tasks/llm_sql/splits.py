"""The tables of every split, by name.

train       two windows of the recorded beer table's first half, and two generated tables of other shapes
validation  the same from the second half, other seeds
test        the other recorded tables, each as it is publicly merged
stress      generated: renamed, permuted, repeated, constant and unique columns, cells that hide in each other, long
            cells, one row, one column, and a table several times as large as those of train

Where a recorded file is missing a generated table takes its place, and `missing` tells which.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd

from adrs_ray.task import Split

from .families import Table, catalogue, films, orders, reviews, texts, words
from .recorded import BEER, MOVIES, PDMX, PRODUCTS, Recorded, read

_NEEDED: dict[Split, tuple[Recorded, ...]] = {"train": (BEER,), "validation": (BEER,), "test": (MOVIES, PDMX, PRODUCTS)}
_WINDOW = 320


def tables(split: Split) -> dict[str, Table]:
    """Tables of a split by case name. Raises UsageError when a recorded file is there with another content."""
    if split == "train":
        return {
            **_beer("train", (0, 3_600), 100),
            "train-orders": orders(110, 160),
            "train-catalogue": catalogue(120, 90),
        }
    if split == "validation":
        return {
            **_beer("validation", (7_500, 12_000), 200),
            "validation-orders": orders(210, 160, customers=30, products=50),
            "validation-catalogue": catalogue(220, 90, flags=10, sources=7),
        }
    if split == "stress":
        return dict(_stress())
    return {
        "test-movies": read(MOVIES) or films(300, 500, items=40),
        "test-pdmx": read(PDMX) or catalogue(310, 100, flags=24, sources=60),
        "test-products": read(PRODUCTS) or films(320, 100, items=70, skew=0.5),
    }


def missing(split: Split) -> list[str]:
    """The recorded files that a split would use and that are not here."""
    return [recorded.file for recorded in _NEEDED.get(split, ()) if read(recorded) is None]


def _beer(split: str, starts: tuple[int, int], seed: int) -> dict[str, Table]:
    recorded = read(BEER)
    if recorded is None:
        return {f"{split}-beer-{k}": reviews(seed + k, _WINDOW, items=12 + 8 * k) for k in range(2)}
    table, groups = recorded
    windows = (table.iloc[start : start + _WINDOW].reset_index(drop=True) for start in starts)
    return {f"{split}-beer-{k}": (window, groups) for k, window in enumerate(windows)}


@cache
def _stress() -> dict[str, Table]:
    rng = np.random.default_rng(400)
    return {
        "stress-renamed": _renamed(rng),
        "stress-repeated": _repeated_columns(),
        "stress-constant": _constant_columns(rng),
        "stress-unique": (pd.DataFrame({f"c{j}": texts(rng, 200, 2, 4) for j in range(5)}), ()),
        "stress-hidden": _cells_in_cells(rng),
        "stress-long": (_long_cells(rng), ()),
        "stress-row": (reviews(450, 8)[0].iloc[:1], (("number", "name"),)),
        "stress-column": (pd.DataFrame({"only": [words(rng, 1) for _ in range(300)]}), ()),
        "stress-large": orders(470, 700, customers=90, products=90),
        "stress-wide": catalogue(480, 120, flags=40),
    }


def _renamed(rng: np.random.Generator) -> Table:
    """Orders with their columns shuffled and named by numbers, rows shuffled."""
    table, groups = orders(410, 160)
    names = {name: f"{k}" for k, name in enumerate(rng.permutation(table.columns))}
    table = table.rename(columns=names)[sorted(names.values(), key=int)].sample(frac=1.0, random_state=411)
    return table.reset_index(drop=True), tuple(tuple(names[name] for name in group) for group in groups)


def _repeated_columns() -> Table:
    table, groups = films(420, 120)
    return table.assign(**{f"{name} again": table[name] for name in table.columns}), groups


def _constant_columns(rng: np.random.Generator) -> Table:
    table, groups = reviews(430, 200)
    text = words(rng, 30)
    return table.assign(policy=text, version=3, valid=True, nothing=np.nan), groups


def _cells_in_cells(rng: np.random.Generator) -> Table:
    """Digits only: cells are beginnings, ends and inner parts of each other, so boundaries can be mistaken."""
    table = pd.DataFrame({f"d{j}": rng.integers(0, 10 ** (1 + j % 4), size=250) for j in range(7)})
    return table, (("d0", "d1"), ("d2", "d3", "d4"))


def _long_cells(rng: np.random.Generator) -> pd.DataFrame:
    """Cells of some 5,000 characters with a common beginning, beyond ASCII."""
    start = "Æther — 東京 🚲 " + words(rng, 400)
    return pd.DataFrame(
        {
            "id": rng.permutation(40),
            "page": [f"{start[: int(rng.integers(1_000, len(start)))]}{words(rng, 300)}" for _ in range(40)],
            "site": [f"https://{words(rng, 1).lower()}.example/" * 20 for _ in range(4)] * 10,
        }
    )
