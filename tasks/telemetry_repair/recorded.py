"""The 30 recorded Abilene snapshots that the public evaluator draws, from `evaluation_rows_30.csv.gz`."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np

from adrs_ray.task import UsageError

from .network import Floats, Network

_DIRECTIONS = {"_ingress_from_": 0, "_egress_to_": 1}


def read(path: Path) -> tuple[Network, Floats]:
    """The network, interfaces in the order of the columns, and counters in Mbit/s, rows x interfaces x (rx, tx).

    Columns are `low_<A>_egress_to_<B>` (tx of A_to_B) and `low_<A>_ingress_from_<B>` (its rx); a cell is the text of a
    dict, of which `perturbed` counts and `ground_truth` where that is None. Raises UsageError for another content.
    """
    try:
        table = csv.reader(io.StringIO(gzip.decompress(path.read_bytes()).decode("utf-8")))
        header = next(table)
        counters = {i: found for i, name in enumerate(header) if (found := _counter(name)) is not None}
        network = Network.of(dict.fromkeys(ends for ends, _ in counters.values()))
        interface = {name: i for i, name in enumerate(network.interfaces)}
        rows = []
        for row in table:
            values = np.zeros((network.size, 2))
            for column, ((router, neighbour), direction) in counters.items():
                values[interface[f"{router}_to_{neighbour}"], direction] = _value(row[column])
            rows.append(values)
    except (OSError, EOFError, StopIteration, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{path} does not hold recorded snapshots: {type(error).__name__}: {error}") from None
    return network, np.stack(rows)


def _counter(column: str) -> tuple[tuple[str, str], int] | None:
    """((router, neighbour), direction) of a counter's column, None for others."""
    if column.startswith("low_"):
        for text, direction in _DIRECTIONS.items():
            router, found, neighbour = column.removeprefix("low_").partition(text)
            if found:
                return (router, neighbour), direction
    return None


def _value(cell: str) -> float:
    fields = json.loads(cell.replace("'", '"').replace("None", "null"))  # much faster than to parse it as Python
    value = fields["ground_truth"] if fields["perturbed"] is None else fields["perturbed"]
    return float(value)
