"""Turns the public archive of traces, `real_traces.tar.gz`, into `spot_multi.json.gz`.

Kept are nine zones and the first eight of their aligned windows, with the scenarios of the public evaluator. Members
are read from the archive, never unpacked to disk. The text is packed by gzip at level 9 without name and time; bytes
are equal where zlib is (1.2 and 1.3, but not zlib-ng).
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from itertools import groupby
from typing import Any

GAP_S, TICKS, INDICES = 195, 1107, range(8)
SCENARIOS = (
    ("2_zones_same_region", ("us-east-1a", "us-east-1c"), 8),
    ("2_regions_east_west", ("us-east-2a", "us-west-2a"), 8),
    ("3_regions_diverse", ("us-east-1a", "us-east-2b", "us-west-2c"), 6),
    ("3_zones_same_region", ("us-east-1a", "us-east-1c", "us-east-1d"), 6),
    ("5_regions_high_diversity", ("us-east-1a", "us-east-1f", "us-west-2a", "us-west-2b", "us-east-2b"), 4),
    (
        "all_9_regions",
        ("us-east-2a", "us-west-2c", "us-east-1d", "us-east-2b", "us-west-2a", "us-east-1f", "us-east-1a",
         "us-west-2b", "us-east-1c"),
        2,
    ),
)  # fmt: skip
"""Name, zones in their order, number of runs: the public evaluator's settings."""

_INSTANCE = "_v100_1"
_MEMBER = re.compile(r"(?:^|/)converted_multi_region_aligned/([^/]+)/(\d+)\.json$")
_MEMBER_BYTES = 4 << 20
_HEADER = {
    "gap_seconds": GAP_S,
    "num_ticks": TICKS,
    "on_demand_price_per_hour": 3.06,
    "encoding": "unavailable[k]=='1' means spot CANNOT run in that zone during gap k; spot_price_rle = "
    "[[price in $/h, repeat count],...] per tick; billed_spot_price = price of tick 0 (what the reference bills)",
    "job": {"duration_hours": 48, "deadline_hours": 52, "restart_overhead_hours": 0.2},
}


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` from those of the public archive. Raises ValueError naming what is not as expected."""
    zones = sorted({zone + _INSTANCE for _, names, _ in SCENARIOS for zone in names})
    found = _members(raw, set(zones))
    missing = [f"{zone}/{index}.json" for zone in zones for index in INDICES if (zone, index) not in found]
    if missing:
        raise ValueError(f"real_traces.tar.gz has no converted_multi_region_aligned/{missing[0]}")
    scenarios = [
        {"name": name, "regions": [zone + _INSTANCE for zone in names], "trace_indices": list(range(runs))}
        for name, names, runs in SCENARIOS
    ]
    traces = {zone: {str(index): _trace(found[zone, index], f"{zone}/{index}") for index in INDICES} for zone in zones}
    text = json.dumps({**_HEADER, "scenarios": scenarios, "traces": traces}, separators=(",", ":"))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0, compresslevel=9) as archive:
        archive.write(text.encode("ascii"))
    return packed.getvalue()


def _members(raw: bytes, zones: set[str]) -> dict[tuple[str, int], bytes]:
    found = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r|gz") as archive:
            for member in archive:
                match = _MEMBER.search(member.name)
                if match is None or not member.isfile() or match[1] not in zones or int(match[2]) not in INDICES:
                    continue
                if member.size > _MEMBER_BYTES:
                    raise ValueError(f"{member.name} has {member.size} bytes, more than {_MEMBER_BYTES}")
                content = archive.extractfile(member)
                assert content is not None  # it is a file
                found[match[1], int(match[2])] = content.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"real_traces.tar.gz is no archive: {error}") from None
    return found


def _trace(raw: bytes, where: str) -> dict[str, Any]:
    """One window: `metadata.start_time`, `data` (1: spot cannot run) and `prices` ($/h), one entry per gap."""
    trace = json.loads(raw)
    try:
        metadata, data, prices = trace["metadata"], trace["data"], trace["prices"]
        start, gap_s = metadata["start_time"], metadata["gap_seconds"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"trace {where} lacks {error}") from None
    if gap_s != GAP_S or len(data) != TICKS or len(prices) != TICKS or not set(data) <= {0, 1}:
        raise ValueError(f"trace {where} is not {TICKS} gaps of {GAP_S} s, each 0 or 1, with a price each")
    return {
        "start_time": start,
        "unavailable": "".join(str(int(flag)) for flag in data),
        "spot_price_rle": [[price, len(list(run))] for price, run in groupby(prices)],
        "billed_spot_price": prices[0],
    }
