"""Starting an embedded Ray, or joining a cluster; one per process."""

from __future__ import annotations

import logging
import os
import re
import resource
import socket
import sys
import time
from pathlib import Path

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Unset, Ray 2.60 turns token authentication on and leaves a token file in the user's home that later clusters obey.
os.environ.setdefault(
    "RAY_AUTH_MODE",
    "token" if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH") else "disabled",
)

import ray

from adrs_ray.errors import RunError, UsageError, one_line

START_ATTEMPTS = 2
"""A starved machine can abort the raylet while it starts; once more is enough."""
LISTENER_TIMEOUT_S = 10.0

_HOST_PORT = re.compile(r"(?P<host>[^:/]+|\[[^\]/]+\]):(?P<port>\d+)")


def allow_many_connections() -> None:
    """Raise this process's limit of open files as far as it may be raised: an island has a connection to every slot."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def check_layout() -> None:
    """Raise UsageError unless the `cluster` that was imported lies beside `adrs_ray`: not a user's own folder."""
    import adrs_ray

    ours = Path(adrs_ray.__file__).resolve().parent.parent
    here = Path(__file__).resolve().parent.parent
    if here != ours:
        raise UsageError(
            f"the package `cluster` was imported from {here}, adrs_ray from {ours}: run from another folder, "
            "or remove that one from PYTHONPATH"
        )


def connect(address: str | None, cpus: int, gpus: int | None = None) -> None:
    """Join `address`, or start an embedded Ray with `cpus` CPUs that ends with this process.

    `gpus`: as many as Ray shall count in an embedded one (default: those that it finds).

    Raises RunError in one line when Ray does not start or cannot be reached.
    """
    check_layout()
    if address is not None:
        _require_listener(address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise RunError(f"cannot join Ray at {address}: {one_line(error)}") from None
        return
    for attempt in range(1, START_ATTEMPTS + 1):
        try:
            ray.init(
                address="local",
                num_cpus=cpus,
                num_gpus=gpus,
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            return
        except (ConnectionError, RuntimeError, TimeoutError) as error:
            ray.shutdown()
            if attempt == START_ATTEMPTS:
                raise RunError(f"an embedded Ray did not start: {one_line(error)}; try --local") from None
            print(f"Ray did not start ({one_line(error)}); trying once more", file=sys.stderr, flush=True)
            time.sleep(2)


def _require_listener(address: str) -> None:
    """Raise RunError when nothing listens at `host:port`: Ray would wait for minutes."""
    match = _HOST_PORT.fullmatch(address)
    if match is None:
        return
    try:
        socket.create_connection((match["host"].strip("[]"), int(match["port"])), timeout=LISTENER_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise RunError(f"cannot join Ray at {address}: {one_line(error)}") from None
