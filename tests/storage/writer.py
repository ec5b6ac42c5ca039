"""A journal writer in a process of its own, from the side of the test that starts and kills it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("writer_process.py")
ROOT = Path(__file__).resolve().parents[2]
BATCH = 3
"""As in writer_process.py."""


class Writer:
    """The process and its line protocol."""

    def __init__(self, journal: Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), str(journal), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert self.line().startswith("ready ")

    def tell(self, order: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> list[str]:
        """Kill it; the complete lines that it had still said."""
        self.process.kill()
        assert self.process.stdout is not None
        rest = [line for line in self.process.stdout.read().splitlines(keepends=True) if line.endswith("\n")]
        self.process.wait(10)
        self.process.stdout.close()
        assert self.process.stdin is not None
        self.process.stdin.close()
        return rest
