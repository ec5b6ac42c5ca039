"""The recorded tables: the public table each is from, and the groups of columns that the public evaluator merges."""

from __future__ import annotations

import gzip
import io
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from adrs_ray.task import DataFile, data_file, read_spec

from .families import Table


@dataclass(frozen=True, slots=True)
class Recorded:
    """One recorded table."""

    file: str
    public: str
    """The public table that it is a part of or like."""
    groups: tuple[tuple[str, ...], ...]


BEER = Recorded("llm_sql/beer_15000.csv.gz", "beer", (("beer/beerId", "beer/name"),))
MOVIES = Recorded("llm_sql/movies_small.csv.gz", "movies", (("movie_info", "movie_title", "rotten_tomatoes_link"),))
PDMX = Recorded(
    "llm_sql/pdmx_100.csv.gz",
    "PDMX",
    (
        ("path", "metadata"),
        ("hasmetadata", "isofficial", "isuserpublisher", "isdraft", "hasannotations", "subsetall"),
    ),
)
PRODUCTS = Recorded("llm_sql/products_100.csv.gz", "products", (("product_title", "parent_asin"),))


def read(recorded: Recorded) -> Table | None:
    """The table, typed as `pandas.read_csv` types it; None when its file is nowhere.

    Raises UsageError when a file of that name is there with another content.
    """
    path = data_file(_data(recorded.file))
    if path is None:
        return None
    with gzip.open(path, "rb") as stream:
        return pd.read_csv(io.BytesIO(stream.read())), recorded.groups


def _data(file: str) -> DataFile:
    spec = read_spec(Path(__file__).with_name("task.yaml"))
    return next(data for data in spec.data if data.file == file)
