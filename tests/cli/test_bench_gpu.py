"""The benches of gpu_eval as commands: what is refused, and that given programs run in the jail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adrs_ray.cli.bench import _jailed
from tests.cli.command import adrs

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

HONEST = """
def init(config):
    return 0


def step(state, load_window, placement):
    return state + 1, placement
"""
SPY = HONEST.replace("return 0", "return open('/etc/passwd').read()")


@pytest.mark.parametrize("bench", ["eplb", "moe_placement"])
def test_what_cannot_be_measured_is_one_line(bench, tmp_path):
    for words, said in (
        (["--regime", "calm"], "--regime calm: accepted are"),
        (["--candidates", "gone.py"], "cannot read program gone.py"),
        (["--sandbox", "none"], "--sandbox none: accepted are strict and unsafe"),
    ):
        told = adrs("bench", bench, *words, "--out", tmp_path / "out")
        assert (told.returncode, told.stderr.count("\n")) == (2, 1)
        assert said in told.stderr
    assert not (tmp_path / "out").exists()


def test_programs_of_a_bench_run_in_the_jail(tmp_path):
    from gpu_eval.child_process import ProgramError
    from gpu_eval.placement_process import PlacementProcess

    loads, placed = np.ones((1, 2, 4), np.int64), np.zeros((2, 6), np.int64)
    paths: dict[str, Path] = {}
    for name, text in (("honest", HONEST), ("spy", SPY)):
        paths[name] = tmp_path / f"{name}.py"
        paths[name].write_text(text)
    launcher = _jailed("moe_placement", list(paths.values()))
    with PlacementProcess(paths["honest"], launcher=launcher) as process:
        assert process.null(loads, placed) > 0
        process.load({})
        given, seconds = process.step(loads, placed)
        assert given["placement"].tolist() == placed.tolist()
        assert seconds > 0
    with PlacementProcess(paths["spy"], launcher=launcher) as process, pytest.raises(ProgramError, match="Permission"):
        process.load({})
    with PlacementProcess(paths["spy"]) as process:
        process.load({})
