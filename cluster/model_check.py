"""`adrs models check`: of each source of weights, whether it is pinned, here and whole, or can be fetched."""

from __future__ import annotations

from pathlib import Path

from adrs_ray.errors import RunError, UsageError
from cluster.inspection import Row
from cluster.model_files import folder_bytes, folder_problem
from cluster.presets import is_commit
from cluster.pull import GIB, Want, cache_root, cached_folder, free_bytes, look_up, missing


def model_rows(want: Want, to: Path | None = None) -> list[Row]:
    """Rows on one source, tried on this machine; `to`: where a pull would put it, as of `adrs models pull`.

    Raises UsageError when the hub's client library is missing.
    """
    name = ", ".join(want.names)
    if want.folder is not None:
        return [_folder_row(name, want.folder)]
    return [_pin_row(name, want), *_file_rows(name, want, to)]


def _pin_row(name: str, want: Want) -> Row:
    if is_commit(want.revision):
        return Row("ok", name, f"{want.source} pinned to {want.revision[:10]}")
    return Row("", name, f"{want.source} at {want.revision} is not pinned to a commit: `adrs models pull` does")


def _folder_row(name: str, folder: Path) -> Row:
    problem = folder_problem(folder)
    if problem is not None:
        return Row("NO", name, f"{folder} {problem}")
    return Row("ok", name, f"{folder}, {folder_bytes(folder) / GIB:.2f} GiB, whole")


def _file_rows(name: str, want: Want, to: Path | None) -> list[Row]:
    place = None if to is None else to / want.source
    folder = cached_folder(want) if place is None else place
    problem = "is not there" if folder is None else folder_problem(folder)
    files = f"{name}: files"
    if folder is not None and problem is None:
        return [Row("ok", files, f"{folder}, {folder_bytes(folder) / GIB:.2f} GiB, whole")]
    where = cache_root() if place is None else place
    absent = Row("NO", files, f"{where} has no whole copy ({problem}): `adrs models pull`")
    try:
        listing = look_up(want)
    except (RunError, UsageError) as error:
        return [absent, Row("NO", f"{name}: hub", str(error))]
    size = sum(file.bytes for file in missing(listing, folder))
    free = free_bytes(where)
    room = f"{size / GIB:.2f} GiB to fetch, {where} has {free / GIB:.1f} GiB free"
    return [
        absent,
        Row("ok", f"{name}: hub", "can be fetched"),
        Row("ok" if free >= size else "NO", f"{name}: disk", room),
    ]
