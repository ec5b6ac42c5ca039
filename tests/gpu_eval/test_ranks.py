"""Groups of processes: what they return, and that nothing of them stays when one goes wrong."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.ranks import RankError, run_ranks  # noqa: E402
from tests.gpu_eval.rank_works import misbehave  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("how", "line"),
    [
        ("raise", r"rank 1 of 2: KeyError: 'no such\\nexpert'"),
        ("die", "rank 1 of 2 died by SIGKILL"),
        ("answer a lambda", "rank 1 of 2: .*lambda.*"),
    ],
)
def test_one_bad_rank_ends_all(how: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(RankError) as caught:
        run_ranks(misbehave, (how, str(tmp_path)), 2, "cpu", 120)
    assert re.fullmatch(line, str(caught.value))
    assert len(list(tmp_path.glob("*.pid"))) == 2
    assert _alive(tmp_path) == []


def test_time_ends_all(tmp_path: Path) -> None:
    with pytest.raises(RankError, match=r"^ranks 0, 1 of 2 did not end within 2 s$"):
        run_ranks(misbehave, ("sleep", str(tmp_path)), 2, "cpu", 2)
    assert multiprocessing.active_children() == []


def test_ranks_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    script = (
        "from gpu_eval.ranks import run_ranks\nfrom tests.gpu_eval.rank_works import misbehave\n"
        f"if __name__ == '__main__':\n    run_ranks(misbehave, ('sleep', {str(tmp_path)!r}), 2, 'cpu', 120)\n"
    )
    (tmp_path / "start.py").write_text(script)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    starter = subprocess.Popen([sys.executable, str(tmp_path / "start.py")], env=environment)
    try:
        assert _until((tmp_path / "all-there").exists)
    finally:
        starter.send_signal(signal.SIGKILL)
        starter.wait()
    assert _until(lambda: not _alive(tmp_path)), _alive(tmp_path)


@pytest.mark.parametrize(
    ("world", "device", "line"),
    [(0, "cpu", "0 processes, expected at least 1"), (2, "tpu", "device is 'tpu', expected cpu or cuda")],
)
def test_a_group_that_cannot_be_is_refused(world: int, device: str, line: str) -> None:
    with pytest.raises(ValueError, match=line):
        run_ranks(misbehave, None, world, device, 5)


def test_more_ranks_than_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match=r"^1000 processes need as many GPUs, found \d+$"):
        run_ranks(misbehave, None, 1000, "cuda", 5)


def _alive(folder: Path) -> list[int]:
    """Ranks that left their process id in `folder` and have not ended."""
    pids = [int(path.read_text()) for path in folder.glob("*.pid")]
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _until(holds: object, within_s: float = 60.0) -> bool:
    assert callable(holds)
    end = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > end:
            return False
        time.sleep(0.1)
    return True
