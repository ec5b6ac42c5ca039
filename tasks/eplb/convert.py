"""Turns the public archive of SGLang's expert statistics into `eplb_deepseek_loads.npz`.

The archive is a tar of JSON files, one per load test, `attachment_ep_statistics/<phase>_in<n>[out<n>].json`, each with
`logical_count`: 61 layers x 256 experts of routed tokens. The dense layers, whose counts are zero, are dropped. Files
are read in memory: none is unpacked, nothing is executed.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]

NAMES = (
    "prefill_in512",
    "prefill_in1024",
    "prefill_in2048",
    "prefill_in4096",
    "prefill_in1000out1000",
    "prefill_in1800out100",
    "decode_in1000out1000",
    "decode_in2000out100",
)


def convert(file: str, raw: bytes) -> bytes:
    """The bytes of `file` (`eplb_deepseek_loads.npz`) from those of the archive.

    Raises ValueError naming what is missing or is no matrix of counts.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            arrays = dict(_arrays(archive))
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"no tar archive: {error}") from None
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)  # type: ignore[arg-type]  # names are none of its own
    return out.getvalue()


def _arrays(archive: tarfile.TarFile) -> Iterator[tuple[str, Counts]]:
    members = {member.name.rpartition("attachment_ep_statistics/")[2]: member for member in archive if member.isfile()}
    for name in NAMES:
        member = members.get(f"{name}.json")
        handle = archive.extractfile(member) if member else None
        if handle is None:
            raise ValueError(f"the archive has no attachment_ep_statistics/{name}.json")
        yield name, _counts(name, json.load(handle))


def _counts(name: str, content: object) -> Counts:
    told = content.get("logical_count") if isinstance(content, dict) else None
    counts = np.array(told, np.int64) if isinstance(told, list) else np.zeros(0, np.int64)
    if counts.ndim == 3:
        counts = counts.sum(axis=0)
    if counts.ndim != 2:
        raise ValueError(f"logical_count of {name}.json is no matrix of layers x experts")
    return np.asarray(counts[counts.any(axis=1)], np.int64)
