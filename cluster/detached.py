"""A run that outlives the job that started it: `adrs job --detach`.

A detached actor on the head runs the same command in a process of its own, which joins the cluster as a driver like any
other: it owns its actors and drains on SIGTERM. The actor ends with it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from adrs_ray.errors import RunError, UsageError, one_line
from cluster.runtime import connect

NAMESPACE = "adrs-detached"
STARTS_WITHIN_S = 120.0
LIVES_S = 5.0
"""A driver that lives so long has read its config and task."""
_KEPT = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED")
"""Of Ray's variables: the others describe this worker, not the driver that it starts."""


class DetachedRun:
    """Runs `adrs job ...`; two threads, so that it can be told to end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._started = threading.Event()

    def run(self, argv: list[str], folder: str) -> None:
        """Until the command, in that folder, ends; then this actor ends, too."""
        environment = driver_environment(os.environ, dict(ray.get_runtime_context().runtime_env))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "adrs_ray.cli", *argv],
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        self._started.set()
        self._process.wait()
        ray.actor.exit_actor()  # type: ignore[no-untyped-call]

    def where(self) -> tuple[str, int]:
        """Host and process id of the run's driver, once it has run for a moment.

        Raises RunError when it has ended by then.
        """
        self._started.wait(STARTS_WITHIN_S)
        assert self._process is not None
        try:
            code = self._process.wait(LIVES_S)
        except subprocess.TimeoutExpired:
            return os.uname().nodename, self._process.pid
        raise RunError(f"it ended at once with exit code {code}: its output is in Ray's logs of {os.uname().nodename}")


def driver_environment(environment: Mapping[str, str], runtime_env: Mapping[str, Any]) -> dict[str, str]:
    """The environment of a driver that a worker starts: on the same cluster, with the same runtime environment."""
    kept = {key: value for key, value in environment.items() if not key.startswith("RAY_") or key in _KEPT}
    kept["RAY_ADDRESS"] = "auto"
    if runtime_env:
        kept["RAY_JOB_CONFIG_JSON_ENV_VAR"] = json.dumps({"runtime_env": dict(runtime_env)})
    return kept


def start_detached(address: str, name: str, argv: list[str]) -> str:
    """Start the command on this node and return where it runs. Raises UsageError when the run is there already."""
    connect(address, 0, 0)
    try:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        actor_class = ray.remote(DetachedRun).options(
            name=name,
            namespace=NAMESPACE,
            lifetime="detached",
            num_cpus=0,
            max_concurrency=3,
            scheduling_strategy=here,
        )
        try:
            actor: Any = actor_class.remote()
        except ValueError:
            raise UsageError(
                f"the run {name} is there already, detached: `adrs status {name} --address {address}`"
            ) from None
        actor.run.remote(argv, os.getcwd())
        try:
            host, pid = ray.get(actor.where.remote(), timeout=STARTS_WITHIN_S)
        except (RayError, RunError, TimeoutError) as error:
            ray.kill(actor)
            told = error.cause if isinstance(error, RayTaskError) and error.cause else error
            raise RunError(f"the run {name} did not start: {one_line(told)}") from None
        return f"{host}, process {pid}"
    finally:
        ray.shutdown()
