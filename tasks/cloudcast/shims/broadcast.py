"""Stand-in for the public module of this name: programs `from broadcast import BroadCastTopology`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Edge = list[Any]
"""[from region, to region, data of the edge in the graph]."""


class BroadCastTopology:
    """Which edges each destination's partitions take: `paths[destination][str(partition)]` is a list of edges."""

    def __init__(
        self,
        src: str,
        dsts: list[str],
        num_partitions: int = 4,
        paths: dict[str, dict[str, list[Edge] | None]] | None = None,
    ) -> None:
        self.src = src
        self.dsts = dsts
        self.num_partitions = num_partitions
        self.paths = paths if paths is not None else self._unset()

    def _unset(self) -> dict[str, dict[str, list[Edge] | None]]:
        return {dst: {str(i): None for i in range(self.num_partitions)} for dst in self.dsts}

    def get_paths(self) -> dict[str, dict[str, list[Edge] | None]]:
        """The paths as they are kept."""
        return self.paths

    def set_num_partitions(self, num_partitions: int) -> None:
        """Change the number of partitions; paths that are set stay."""
        self.num_partitions = num_partitions

    def set_dst_partition_paths(self, dst: str, partition: int | str, paths: list[Edge]) -> None:
        """All edges of one destination's partition."""
        self.paths[dst][str(partition)] = paths

    def append_dst_partition_path(self, dst: str, partition: int | str, path: Edge) -> None:
        """One more edge of one destination's partition."""
        partition = str(partition)
        edges = self.paths[dst].get(partition)
        if edges is None:
            edges = self.paths[dst][partition] = []
        edges.append(path)


SingleDstPath = Mapping[str, list[Edge]]
"""Edges by partition, of one destination."""

__all__ = ["BroadCastTopology", "SingleDstPath"]
