"""Generated tables, by the shapes of the public ones: what repeats, how long it is and what it determines.

Every family is a function of a seed and a number of rows; texts are made of syllables, so nothing is from a recording.
The groups of columns to merge belong to the family, as they do publicly.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

Rng: TypeAlias = np.random.Generator
Table: TypeAlias = tuple[pd.DataFrame, tuple[tuple[str, ...], ...]]
"""A table and the groups of its columns that may be merged."""

_SYLLABLES: list[str] = [
    "ba", "be", "bi", "bo", "da", "den", "di", "dor", "fa", "fe", "go", "gra", "ka", "kel", "la", "lin", "ma",
    "mer", "mi", "na", "nor", "pa", "pe", "ra", "ri", "sa", "sol", "ta", "ter", "vi", "zo",
]  # fmt: skip


def words(rng: Rng, count: int) -> str:
    """`count` made-up words, the first with a capital."""
    ends = np.cumsum(rng.integers(1, 4, size=count))
    syllables = [_SYLLABLES[i] for i in rng.integers(0, len(_SYLLABLES), size=int(ends[-1]))]
    return " ".join("".join(syllables[a:b]) for a, b in pairwise([0, *ends.tolist()])).capitalize()


def texts(rng: Rng, count: int, low: int, high: int) -> list[str]:
    """`count` texts of low..high words each."""
    return [words(rng, int(rng.integers(low, high + 1))) for _ in range(count)]


def zipf(rng: Rng, values: int, size: int, skew: float) -> np.ndarray[Any, Any]:
    """`size` draws of 0..values-1, the k-th as likely as (k + 1)^-skew."""
    weight = np.arange(1, values + 1, dtype=float) ** -skew
    return rng.choice(values, size=size, p=weight / weight.sum())


def reviews(seed: int, rows: int, items: int = 20, people: int = 150, skew: float = 1.0) -> Table:
    """Reviews of items: an item determines name, style and number; people, times and ratings repeat across items."""
    rng = np.random.default_rng(seed)
    item = np.sort(zipf(rng, items, rows, skew))
    person = zipf(rng, people, rows, 0.7)
    names, persons, styles = texts(rng, items, 2, 6), texts(rng, people, 1, 1), texts(rng, max(2, items // 4), 1, 3)
    style = rng.integers(0, len(styles), size=items)
    number = rng.permutation(np.arange(40, 60_000))[:items]
    good = rng.integers(2, 5, size=items)
    taste = np.clip(2 * good[item] + rng.integers(-2, 3, size=rows), 1, 10)
    palate = np.clip(good[item] + rng.integers(-1, 2, size=rows), 1, 5)
    looks = np.clip(good[item] + rng.integers(-1, 2, size=rows), 1, 5)
    overall = np.clip(taste + palate + looks + rng.integers(-1, 2, size=rows), 1, 20)
    table = pd.DataFrame(
        {
            "person": [persons[p].lower() for p in person],
            "time": 86_400 * rng.integers(11_600, 15_300, size=rows),
            "overall": [f"{value}/20" for value in overall],
            "taste": [f"{value}/10" for value in taste],
            "palate": [f"{value}/5" for value in palate],
            "appearance": [f"{value}/5" for value in looks],
            "name": [names[i] for i in item],
            "style": [styles[style[i]] for i in item],
            "number": number[item],
        }
    )
    return table, (("number", "name"),)


def films(seed: int, rows: int, items: int = 18, skew: float = 0.8) -> Table:
    """Short reviews of films with long descriptions; link, title and description determine each other."""
    rng = np.random.default_rng(seed)
    item = zipf(rng, items, rows, skew)
    titles, plots = texts(rng, items, 1, 4), texts(rng, items, 25, 60)
    review = [words(rng, int(rng.integers(5, 25))) if rng.random() > 0.2 else None for _ in range(rows)]
    table = pd.DataFrame(
        {
            "link": [f"m/{titles[i].lower().replace(' ', '_')}" for i in item],
            "review": pd.Series(review, dtype=object),
            "title": [titles[i] for i in item],
            "info": [plots[i] for i in item],
            "id": rng.permutation(100_000)[:rows],
        }
    )
    return table, (("info", "title", "link"),)


def orders(seed: int, rows: int, customers: int = 40, products: int = 40, skew: float = 1.0) -> Table:
    """Orders: customer and product are both long and both skewed, so one row's best first column is not another's."""
    rng = np.random.default_rng(seed)
    customer, product = zipf(rng, customers, rows, skew), zipf(rng, products, rows, skew)
    address, description = texts(rng, customers, 4, 14), texts(rng, products, 4, 18)
    notes, carriers = texts(rng, 6, 3, 20), texts(rng, 4, 1, 2)
    category = texts(rng, 6, 1, 2)
    price = np.round(rng.uniform(1.0, 90.0, size=products), 2)
    discount = np.where(rng.random(rows) < 0.7, np.nan, 5 * rng.integers(1, 5, size=rows))
    note = zipf(rng, 6, rows, 1.2)
    table = pd.DataFrame(
        {
            "order": 100_000 + rng.permutation(rows),
            "customer": [f"C{c:04d}" for c in customer],
            "address": [address[c] for c in customer],
            "express": rng.random(rows) < 0.3,
            "product": [description[p] for p in product],
            "price": price[product],
            "discount": discount,
            "category": [category[p % 6] for p in product],
            "note": pd.Series([notes[n] if n < 3 or rng.random() < 0.3 else None for n in note], dtype=object),
            "carrier": [carriers[c] for c in zipf(rng, 4, rows, 1.0)],
        }
    )
    return table, (("customer", "address"),)


def catalogue(seed: int, rows: int, flags: int = 12, sources: int = 9) -> Table:
    """A wide table of many short cells: flags that hang together, missing texts, measured numbers, long paths."""
    rng = np.random.default_rng(seed)
    source = zipf(rng, sources, rows, 0.8)
    kind = zipf(rng, 5, rows, 0.8)
    paths, licences = texts(rng, sources, 5, 9), texts(rng, 3, 3, 6)
    artists = texts(rng, rows // 4 + 1, 1, 3)
    columns: dict[str, Any] = {"path": [f"./{words(rng, 3).replace(' ', '/')}/{i}.json" for i in range(rows)]}
    for f in range(flags):
        odds = 0.1 + 0.8 * rng.random(5) if f % 2 else np.where(rng.random(5) < 0.5, 0.02, 0.98)
        columns[f"is{words(rng, 1).lower()}{f}"] = rng.random(rows) < odds[kind]
    columns["licence"] = [licences[k % 3] for k in kind]
    columns["collection"] = [f"/data/{paths[s].replace(' ', '/')}" for s in source]
    columns["artist"] = pd.Series(
        [artists[a] if rng.random() < 0.8 else None for a in zipf(rng, len(artists), rows, 0.7)], dtype=object
    )
    columns["title"] = texts(rng, rows, 1, 4)
    columns["views"] = zipf(rng, 300, rows, 1.1)
    columns["entropy"] = np.round(rng.uniform(0.5, 3.0, size=rows), 12)
    columns["rating"] = np.where(rng.random(rows) < 0.6, 0.0, np.round(rng.uniform(3.0, 5.0, size=rows), 1))
    columns["pages"] = np.where(rng.random(rows) < 0.2, np.nan, rng.integers(1, 12, size=rows))
    table = pd.DataFrame(columns)
    return table, (tuple(name for name in table.columns if name.startswith("is"))[:3],)
