"""A Ray cluster of several nodes on this machine, with GPUs that are only counted, to kill parts of."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence

import cluster.runtime  # noqa: F401  sets how Ray authenticates, before Ray is imported
from tests.processes import descendants, kill, table, wait_gone


class SmallCluster:
    """A head and further nodes; each entry is (CPUs, GPUs). Used with `with`: nothing is left behind."""

    def __init__(self, nodes: Sequence[tuple[int, int]] = ((2, 0), (1, 2), (1, 2))) -> None:
        self._wanted = nodes
        self._cluster = None
        self._nodes: list[object] = []

    def __enter__(self) -> SmallCluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_everything()

    @property
    def address(self) -> str:
        return str(self._cluster.address)

    def start(self) -> None:
        """All nodes; once more when a starved machine aborts one of them."""
        for attempt in (1, 2):
            try:
                self._start()
                return
            except Exception:
                self.kill_everything()
                if attempt == 2:
                    raise

    def _start(self) -> None:
        from ray.cluster_utils import Cluster

        (cpus, gpus), *others = self._wanted
        self._cluster = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": cpus, "num_gpus": gpus, "include_dashboard": False},
        )
        self._nodes = [self._cluster.head_node]
        for each in others:
            self.add_node(*each)

    def add_node(self, cpus: int, gpus: int) -> object:
        """Once more when a starved machine aborts it."""
        try:
            node = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus)
        except Exception:
            node = self._cluster.add_node(num_cpus=cpus, num_gpus=gpus)
        self._nodes.append(node)
        return node

    def kill_node(self, number: int) -> None:
        """As when a machine is switched off: its raylet and all below it, with SIGKILL."""
        node = self._nodes.pop(number)
        pids = [info.process.pid for infos in node.all_processes.values() for info in infos]
        below = {pid for root in pids for pid in descendants(root)}
        kill(sorted(below))
        self._cluster.remove_node(node, allow_graceful=False)

    def kill_everything(self) -> None:
        """Every process of every node, with SIGKILL."""
        ours = descendants(os.getpid()).keys() - {os.getpid()}
        ray_ones = {pid for pid, (_, command) in table().items() if pid in ours and _of_ray(command)}
        family = {below for pid in ray_ones for below in descendants(pid)}
        kill(sorted(family))
        wait_gone(family, 10)
        if self._cluster is not None:
            self._cluster = None
        self._nodes = []

    def pids(self, name: str) -> list[int]:
        """Processes of this cluster whose command line has `name` in it."""
        return sorted(pid for pid, command in descendants(os.getpid()).items() if name in command)

    def await_pids(self, name: str, count: int, other_than: Sequence[int] = (), seconds: float = 90) -> list[int]:
        """At least `count` such processes that are not among `other_than`."""
        deadline = time.monotonic() + seconds
        while True:
            found = [pid for pid in self.pids(name) if pid not in other_than]
            if len(found) >= count:
                return found
            assert time.monotonic() < deadline, f"{len(found)} of {count} {name} after {seconds} s"
            time.sleep(0.1)


def _of_ray(command: str) -> bool:
    return any(part in command for part in ("raylet", "gcs_server", "ray::", "ray/", "default_worker"))
