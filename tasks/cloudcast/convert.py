"""Turns the public throughput profile into `cloudcast/throughput.csv`; the other files are taken as they are.

The public file has three more columns, which tell where its measurements lay on the disk of their machine.
"""

from __future__ import annotations

import csv
import io

DROPPED = ("tag", "stdout_path", "stderr_path")
KEPT = (
    "src_region",
    "src_tier",
    "src_instance_class",
    "dst_region",
    "dst_tier",
    "dst_instance_class",
    "iperf3_connections",
    "iperf3_runtime",
    "throughput_sent",
    "throughput_recieved",
    "cpu_utilization",
    "success",
)


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` (named as in task.yaml) from those of its public source.

    Of the throughput profile the columns `DROPPED` go; rows, their order and all other text stay. Raises ValueError
    when it lacks a column that is read.
    """
    if file != "cloudcast/throughput.csv":
        return raw
    rows = csv.reader(io.StringIO(raw.decode("utf-8"), newline=""))
    header = next(rows, [])
    missing = [name for name in KEPT if name not in header]
    if missing:
        raise ValueError(f"throughput.csv has no column {', '.join(missing)}")
    kept = [i for i, name in enumerate(header) if name not in DROPPED]
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([header[i] for i in kept])
    for number, row in enumerate(rows, start=2):
        if len(row) != len(header):
            raise ValueError(f"throughput.csv line {number} has {len(row)} fields, expected {len(header)}")
        writer.writerow([row[i] for i in kept])
    return out.getvalue().encode("utf-8")
