"""Runs the command line in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ADRS = [sys.executable, "-c", "from adrs_ray.cli import main; main()"]


def environment(extra: Mapping[str, str] = {}) -> dict[str, str]:
    """Ours, without anything that changes what a user would see."""
    return {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled", "TERM": "dumb", **extra}


def adrs(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] = {}, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    """`adrs ...` to its end."""
    return subprocess.run(
        [*ADRS, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(env),
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )
