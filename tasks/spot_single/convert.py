"""Turns the public archive of traces into `spot_single.json.gz`.

The archive is a tar of JSON files, one per trace and overhead:
ddl=search+task=48+overhead=<h>/real/<environment>/traces/random_start/<id>.json, each with `metadata` and `data`, per
gap 0 (spot can run) or 1 (it cannot). The folders of all overheads hold the same traces; those of 0.02 are read. They
are read in memory: none is unpacked, nothing is executed.
"""

from __future__ import annotations

import gzip
import io
import json
import re
import tarfile
from collections.abc import Mapping
from typing import Any

ENVIRONMENTS = ("us-west-2a_k80_1", "us-west-2b_k80_1", "us-west-2a_v100_1", "us-west-2b_v100_1")
TRACES = 30
"""Traces of an environment that the public evaluator takes, evenly from all when their names are sorted as texts."""

_MEMBER = re.compile(
    r"(?:^|/)ddl=search\+task=48\+overhead=0\.02/real/(?P<environment>[^/]+)/traces/random_start/(?P<id>\d+)\.json$"
)
_START_KEYS = ("start_tick", "start_index", "start")
_HEADER: dict[str, Any] = {
    "gap_seconds": 600,
    "num_ticks": 554,
    "on_demand_price_per_hour": 3.06,
    "spot_price_per_hour": 0.9731,
    "encoding": "unavailable[k]=='1' means spot CANNOT run during gap [k*gap,(k+1)*gap); '0' means it can",
    "job": {"duration_hours": 48, "deadline_hours": [52, 70, 92], "changeover_delay_hours": [0.02, 0.2, 0.4]},
    "note": "start_tick/end_tick index the 2022-10-26 22:05:04Z base trace (600 s per tick); traces of one environment "
    "overlap each other in time; order inside an environment = evaluator order",
}


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` (`spot_single.json.gz`) from those of the public `real_traces.tar.gz`.

    Raises ValueError naming what is missing or no trace.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(raw), mode="r:gz") as archive:
            environments = {name: _environment(archive, name) for name in ENVIRONMENTS}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"no tar archive: {error}") from None
    return packed(environments)


def packed(environments: Mapping[str, list[dict[str, Any]]]) -> bytes:
    """The recorded file with these traces; the same bytes every time, as its header has neither name nor time."""
    text = json.dumps({**_HEADER, "environments": environments}, separators=(",", ":"))
    target = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=target, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(text.encode())
    return target.getvalue()


def _environment(archive: tarfile.TarFile, environment: str) -> list[dict[str, Any]]:
    members = {}
    for member in archive.getmembers():
        found = _MEMBER.search(member.name)
        if found and found["environment"] == environment and member.isfile():
            members[f"{found['id']}.json"] = member
    names = sorted(members)
    if len(names) < TRACES:
        raise ValueError(f"{environment}: {len(names)} traces, expected at least {TRACES}")
    chosen = [names[round(i * (len(names) - 1) / (TRACES - 1))] for i in range(TRACES)]
    return [_trace(archive, members[name], name) for name in chosen]


def _trace(archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> dict[str, Any]:
    stream = archive.extractfile(member)
    assert stream is not None  # it is a file
    content = json.loads(stream.read())
    gaps = content.get("data") if isinstance(content, Mapping) else None
    if not isinstance(gaps, list) or len(gaps) != _HEADER["num_ticks"] or any(gap not in (0, 1) for gap in gaps):
        raise ValueError(f"{member.name}: expected `data` with {_HEADER['num_ticks']} zeros and ones")
    metadata = content.get("metadata")
    starts = [metadata[key] for key in _START_KEYS if key in metadata] if isinstance(metadata, Mapping) else []
    if not starts or type(starts[0]) is not int:
        raise ValueError(f"{member.name}: metadata holds none of {', '.join(_START_KEYS)} as a whole number")
    return {
        "trace_id": int(name.removesuffix(".json")),
        "start_tick": starts[0],
        "end_tick": starts[0] + len(gaps),
        "unavailable": "".join("1" if gap else "0" for gap in gaps),
    }
