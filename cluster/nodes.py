"""What the nodes of a cluster, or this machine, have; and running something once on each of them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cluster.fit import NodeRoom

_T = TypeVar("_T")

NODE_TIMEOUT_S = 120.0
"""For a node to start a worker and answer; pulls take longer and have no limit."""

_KNOWN_GIB = {
    "T4": 14.7,
    "L4": 22.4,
    "A10G": 22.4,
    "L40S": 44.9,
    "A100-40G": 39.5,
    "A100-80G": 79.5,
    "H100": 79.5,
    "H200": 140.0,
}
"""Memory of one GPU, GiB, rounded down, by what Ray calls it. An A100 is not among them: there are two."""


def rooms(nodes: Sequence[Mapping[str, Any]]) -> list[NodeRoom]:
    """From what `ray.nodes()` tells; nodes that are lost are left out."""
    found = []
    for node in nodes:
        if not node.get("Alive"):
            continue
        resources: Mapping[str, float] = node.get("Resources", {})
        kinds = [key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")]
        kind = kinds[0] if kinds else None
        found.append(
            NodeRoom(
                node_id=str(node["NodeID"]),
                cpus=resources.get("CPU", 0.0),
                gpus=resources.get("GPU", 0.0),
                gpu_memory_gib=_KNOWN_GIB.get(kind or ""),
                memory_gib=resources.get("memory", 0.0) / 2**30,
                accelerator=kind,
            )
        )
    return found


def nodes_of_cluster() -> list[NodeRoom]:
    """Of the Ray cluster that this process has joined."""
    import ray

    return rooms(ray.nodes())  # type: ignore[no-untyped-call]


def this_machine() -> NodeRoom:
    """This machine as a cluster of one node."""
    gpus = nvidia_gpus()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    least = min((gib for _, gib in gpus), default=None)
    return NodeRoom(
        "this machine", len(os.sched_getaffinity(0)), len(gpus), least, memory, gpus[0][0] if gpus else None
    )


def nvidia_gpus() -> list[tuple[str, float]]:
    """(name, memory in GiB) of each GPU that the driver shows; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return parse_gpus(done.stdout) if done.returncode == 0 else []


def parse_gpus(text: str) -> list[tuple[str, float]]:
    """Lines such as `NVIDIA H100 80GB HBM3, 81559`; what is no such line is left out."""
    found = []
    for line in text.splitlines():
        name, comma, memory = line.rpartition(",")
        if comma and memory.strip().isdecimal():
            found.append((name.strip(), int(memory) / 1024))
    return found


def on_each(
    function: Callable[..., _T], arguments: Sequence[Any], node_ids: Sequence[str], timeout_s: float | None
) -> dict[str, _T | str]:
    """Run the function once on each node, at the same time; what it gave, or one line that says why it gave nothing.

    It takes none of the node's CPUs, so that it runs beside whatever is there.
    """
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(function)
    references = {
        node_id: task.options(
            num_cpus=0, max_retries=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False)
        ).remote(*arguments)
        for node_id in node_ids
    }
    if references:
        ray.wait(list(references.values()), num_returns=len(references), timeout=timeout_s)
    answers: dict[str, _T | str] = {}
    for node_id, reference in references.items():
        try:
            answers[node_id] = ray.get(reference, timeout=0.5)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(reference, force=True)
            answers[node_id] = f"no answer within {timeout_s:g} s"
        except RayError as error:
            answers[node_id] = last_line(error)
    return answers


def last_line(error: BaseException) -> str:
    """What an error of a remote task comes to: its last line that says something."""
    cause = getattr(error, "cause", None) or error
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()]
    return (lines[-1] if lines else type(cause).__name__)[:300]
