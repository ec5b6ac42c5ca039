"""What needs a cluster that is there: asking every node, and pulling models once per node."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import ray

from adrs_ray.config import RunConfig
from adrs_ray.errors import RunError
from adrs_ray.task_spec import Stage
from cluster.fit import NodeRoom
from cluster.inspection import (
    Row,
    cluster_rows,
    fit_rows,
    inspect_node,
    journal_row,
    mirror_row,
    versions_here,
    with_memory,
)
from cluster.job import place_of
from cluster.model_check import model_rows
from cluster.nodes import NODE_TIMEOUT_S, nodes_of_cluster, on_each
from cluster.presets import footprints
from cluster.pull import Listing, Want, pull
from cluster.runtime import connect


def inspect(address: str | None, config: RunConfig, stages: Sequence[Stage], out: str | None) -> list[Row]:
    """What doctor tells of a cluster, and of where a run with this `out` (as of `adrs job`) would lie; without an
    address, of an embedded Ray on this machine.

    Raises UsageError for an `out` that cannot be, RunError when the cluster cannot be joined.
    """
    # Of any run: it is asked for the folders that runs lie in.
    place = place_of("any", out, config)
    connect(address, len(os.sched_getaffinity(0)))
    try:
        nodes = nodes_of_cluster()
        reports = on_each(inspect_node, [config.pool.python], [node.node_id for node in nodes], NODE_TIMEOUT_S)
    finally:
        ray.shutdown()
    nodes = with_memory(nodes, reports)
    rows = cluster_rows(nodes, reports, config, versions_here())
    rows.append(journal_row(place.path.parent))
    if place.mirror is not None:
        rows.append(mirror_row(place.mirror.rpartition("/")[0]))
    return rows + fit_rows(nodes, config, stages, footprints(config))


def check_models(
    address: str, config: RunConfig, wanted: Sequence[Want], stages: Sequence[Stage], to: Path | None
) -> list[Row]:
    """What `adrs models check` tells of a cluster: each source on each node that engines can be on, then the fit.

    Raises RunError when the cluster cannot be joined.
    """
    connect(address, 0)
    try:
        nodes = nodes_of_cluster()
        answers = on_each(_rows_there, [list(wanted), to], _engine_nodes(nodes), None)
    finally:
        ray.shutdown()
    rows = []
    for node_id, answer in answers.items():
        found = [Row("NO", "models", answer)] if isinstance(answer, str) else answer
        rows += [Row(row.state, f"{node_id[:8]} {row.name}", row.detail) for row in found]
    return rows + fit_rows(nodes, config, stages, footprints(config))


def pull_on_nodes(address: str, listing: Listing, to: Path | None) -> dict[str, Path]:
    """Pull once on each node that engines can be on, all at the same time; the folder on each.

    Raises RunError naming the first node that could not.
    """
    connect(address, 0)
    try:
        answers = on_each(pull, [listing, to], _engine_nodes(nodes_of_cluster()), None)
    finally:
        ray.shutdown()
    folders: dict[str, Path] = {}
    for node_id, answer in answers.items():
        if isinstance(answer, str):
            raise RunError(f"node {node_id[:8]}: {answer}")
        folders[node_id] = answer
    return folders


def _rows_there(wanted: Sequence[Want], to: Path | None) -> list[Row]:
    return [row for want in wanted for row in model_rows(want, to)]


def _engine_nodes(nodes: Sequence[NodeRoom]) -> list[str]:
    """Those with GPUs; all, where none has one."""
    return [node.node_id for node in nodes if node.gpus] or [node.node_id for node in nodes]
