"""Turns the public `evaluation_data.csv` into `telemetry/evaluation_rows_30.csv.gz`.

Kept are the 30 of its 40 rows that the public evaluator draws, in the order of the draw, with two changes: a first
column `file_row` (0-based row of the source) and `orig_index` as the name of the source's index column. The text is
packed by gzip at level 9 without name and time; bytes are equal where zlib is (1.2 and 1.3, but not zlib-ng).
"""

from __future__ import annotations

import csv
import gzip
import io
import random

_ROWS, _DRAWN, _SEED = 40, 30, 42


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` from those of the public CSV. Raises ValueError naming what is not as expected."""
    try:
        table = list(csv.reader(io.StringIO(raw.decode("utf-8"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"evaluation_data.csv is no CSV: {error}") from None
    if not table or "timestamp" not in table[0]:
        raise ValueError("evaluation_data.csv has no column timestamp")
    header, rows = table[0], [row for row in table[1:] if row]
    if len(rows) != _ROWS:
        raise ValueError(f"evaluation_data.csv has {len(rows)} rows, expected {_ROWS}")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file_row", "orig_index", *header[1:]])
    for row in random.Random(_SEED).sample(range(_ROWS), _DRAWN):
        writer.writerow([row, *rows[row]])
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=9) as archive:
        archive.write(text.getvalue().encode("utf-8"))
    return packed.getvalue()
