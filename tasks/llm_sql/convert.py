"""Turns the public CSV files into the recorded tables.

Of beer.csv the first 15,000 rows are kept, of the small movies table all, of the labelled samples (PDMX, products) the
columns of the original table, without the "column: " that was put before every cell. The CSV is written with plain
line ends and packed by gzip at level 9 without name and time; bytes are equal where zlib is (1.2 and 1.3, but not
zlib-ng).
"""

from __future__ import annotations

import csv
import gzip
import io

_BEER_ROWS = 15_000
_PRODUCTS = (
    "text", "description", "parent_asin", "review_title", "verified_purchase", "rating", "product_title", "id"
)  # fmt: skip
_PDMX = (
    "path", "metadata", "hasmetadata", "version", "isuserpro", "isuserpublisher", "isuserstaff", "haspaywall",
    "israted", "isofficial", "isoriginal", "isdraft", "hascustomaudio", "hascustomvideo", "ncomments",
    "nfavorites", "nviews", "nratings", "rating", "license", "licenseurl", "genres", "groups", "tags", "songname",
    "title", "subtitle", "artistname", "composername", "publisher", "complexity", "ntracks", "tracks",
    "songlength", "songlengthseconds", "songlengthbars", "songlengthbeats", "nnotes", "notesperbar",
    "nannotations", "hasannotations", "nlyrics", "haslyrics", "ntokens", "pitchclassentropy", "scaleconsistency",
    "grooveconsistency", "bestpath", "isbestpath", "bestarrangement", "isbestarrangement", "bestuniquearrangement",
    "isbestuniquearrangement", "subsetall", "subsetrated", "subsetdeduplicated", "subsetrateddeduplicated"
)  # fmt: skip


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` from those of its public source. Raises ValueError naming what is not as expected."""
    try:
        header, *rows = csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ValueError(f"the source of {file} is no CSV: {error}") from None
    if file.endswith("beer_15000.csv.gz"):
        if len(rows) < _BEER_ROWS:
            raise ValueError(f"beer.csv has {len(rows)} rows, expected {_BEER_ROWS} or more")
        rows = rows[:_BEER_ROWS]
    elif file.endswith("pdmx_100.csv.gz"):
        header, rows = _sample(file, header, rows, _PDMX)
    elif file.endswith("products_100.csv.gz"):
        header, rows = _sample(file, header, rows, _PRODUCTS)
    elif not file.endswith("movies_small.csv.gz"):
        raise ValueError(f"{file} is no file of this task")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=9) as archive:
        archive.write(text.getvalue().encode("utf-8"))
    return packed.getvalue()


def _sample(
    file: str, header: list[str], rows: list[list[str]], columns: tuple[str, ...]
) -> tuple[list[str], list[list[str]]]:
    missing = [name for name in columns if name not in header]
    if missing:
        raise ValueError(f"the source of {file} has no column {', '.join(missing)}")
    places = [(header.index(name), f"{name}: ") for name in columns]
    return list(columns), [[row[place].removeprefix(start) for place, start in places] for row in rows]
