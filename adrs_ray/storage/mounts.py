"""Which file system a folder lies on: SQLite's WAL needs a local one.

WAL keeps its index in memory shared between processes and relies on byte-range locks and on fsync; network file
systems give neither dependably (sqlite.org/wal.html, "All processes using a database must be on the same host").
"""

from __future__ import annotations

import re
from pathlib import Path

from adrs_ray.errors import UsageError

_BLOCK_SHARED = {"acfs", "gfs", "gfs2", "ocfs2"}
_SERVED = {"9p", "afs", "cifs", "coda", "ncpfs", "nfs", "nfs4", "smb2", "smb3", "smbfs", "vboxsf"}
_PARALLEL = {"beegfs", "ceph", "glusterfs", "gpfs", "lustre", "orangefs", "panfs", "pvfs2", "wekafs"}
NETWORK_TYPES = frozenset(_BLOCK_SHARED | _SERVED | _PARALLEL)
"""Types in /proc/mounts on which no journal is opened; so is every `fuse.*`, whose locks and fsync are unknown."""

_OCTAL = re.compile(r"\\([0-7]{3})")


def filesystem_type(folder: Path, mounts: str) -> str | None:
    """The type of the file system that `folder` (absolute, resolved) lies on, from the text of /proc/mounts."""
    best: tuple[int, str] | None = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < 3:
            continue
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), fields[1]))
        # Of equal mount points the later line covers the earlier one.
        if folder.is_relative_to(point) and (best is None or len(point.parts) >= best[0]):
            best = (len(point.parts), fields[2])
    return None if best is None else best[1]


def network_type(folder: Path, mounts_file: Path = Path("/proc/mounts")) -> str | None:
    """The type of the network file system that `folder` lies on, or would lie on once it is made; None when it is a
    local one. Without /proc/mounts nothing is known, and nothing counts as a network."""
    try:
        mounts = mounts_file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    kind = filesystem_type(folder.resolve(), mounts)
    return kind if kind is not None and (kind in NETWORK_TYPES or kind.startswith("fuse.")) else None


def is_network_folder(folder: Path, mounts_file: Path = Path("/proc/mounts")) -> bool:
    """Whether no journal may lie in `folder` because it is on a network file system."""
    return network_type(folder, mounts_file) is not None


def require_local(folder: Path, mounts_file: Path = Path("/proc/mounts")) -> None:
    """Raise UsageError, one line, when `folder` lies on a network file system."""
    kind = network_type(folder, mounts_file)
    if kind is not None:
        raise UsageError(
            f"{folder} is on a network file system ({kind}), where a journal can be damaged: "
            "put the run folder on a local disk"
        )
