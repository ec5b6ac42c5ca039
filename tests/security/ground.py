"""The ground on which hostile programs are let loose: a jail, and something outside of it to protect."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.evaluator.tiny_task import CANARY, write_task
from tests.security.variants import Slot, interpreter_of, one_slot


@dataclass
class Ground:
    """A jail under attack, and what lies outside of it."""

    slot: Slot
    task: Path
    outside: Path
    has_listener: bool

    def fill(self, source: str, canary: str = CANARY) -> str:
        half = len(canary) // 2
        places = {
            "@SECRET@": str(self.outside / "secret"),
            "@OUTSIDE@": str(self.outside),
            "@TASK@": str(self.task),
            "@WORKER@": str(os.getpid()),
            "@CANARY1@": canary[:half].encode().hex(),
            "@CANARY2@": canary[half:].encode().hex(),
        }
        for place, value in places.items():
            source = source.replace(place, value)
        return source

    def look_outside(self) -> list[tuple[str, int, int, float, bytes]]:
        """Name, mode, owner, time of change and content of every file outside."""
        found = []
        for path in sorted(self.outside.iterdir()):
            stat = path.stat()
            found.append((path.name, stat.st_mode, stat.st_uid, stat.st_mtime, path.read_bytes()))
        return found


def unavailable(variant: str) -> str | None:
    """Why a variant cannot be tried here."""
    if variant == "dropped user" and os.geteuid() != 0:
        return "only root can become another user"
    if variant == "bubblewrap" and shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    return None


@contextmanager
def open_ground(variant: str) -> Iterator[Ground]:
    """A jail of the given variant round the small task."""
    root = Path(tempfile.mkdtemp(prefix="adrs-hostile-")).resolve()
    root.chmod(0o755)
    try:
        outside = root / "outside"
        outside.mkdir()
        outside.chmod(0o777)
        (outside / "secret").write_text("s3cr3t")
        (outside / "secret").chmod(0o666)
        task = write_task(root / "task", timeout_s=3.0)
        python = interpreter_of(variant, root)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ADRS_TEST_SECRET", "s3cr3t")
            with one_slot(task, variant, python) as slot:
                yield Ground(slot, root / "task", outside, has_listener=variant != "no listener")
    finally:
        shutil.rmtree(root)
