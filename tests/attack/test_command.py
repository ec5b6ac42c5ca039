"""`adrs task attack`: exit codes, what is printed, what is kept, wrong use; and the built-in tasks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adrs_ray.attack import Options, attack
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.stages_here import served_here
from adrs_ray.task import builtin_tasks, load_task
from tests.attack.folders import write_folder
from tests.attack.honest import write_pack
from tests.cli.command import adrs


def test_a_hole_is_exit_code_1_and_its_program_can_be_judged_again(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "replicas", "inconsistent")
    kept = tmp_path / "kept"
    done = adrs("task", "attack", folder, "--json", "--keep", kept, "--max-candidates", 100)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert not report["clean"]
    hole = next(f for f in report["findings"] if f["family"] == "inconsistent parts")
    assert hole["score"] > hole["seed_score"] == report["seed"]["scores"][0]
    assert "combined_score" in hole["metrics"]
    assert len(list(kept.iterdir())) == report["tried"] <= 100
    judged = adrs("eval", folder, hole["program"], "--json")
    assert json.loads(judged.stdout)["score"] == hole["score"]


def test_no_finding_is_exit_code_0_and_says_what_that_is_worth(tmp_path: Path) -> None:
    done = adrs("task", "attack", write_pack(tmp_path), "--max-candidates", 16, "--seed", 3)
    assert done.returncode == 0, done.stderr
    assert "16 of 16 cheats tried" in done.stdout
    assert "no proof" in done.stdout
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no_such_task"], "no task 'no_such_task'"),
        (["@pack", "--program", "nowhere.py"], "cannot read program"),
        (["@pack", "--keep", "."], "--keep"),
        (["@pack", "--max-candidates", "0"], "max-candidates"),
        (["@broken"], "fails on train"),
    ],
    ids=["no-task", "no-program", "keep-in-use", "no-candidates", "seed-fails"],
)
def test_wrong_use_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], said: str) -> None:
    pack = write_pack(tmp_path)
    if arguments[0] == "@broken":
        (pack / "seed.py").write_text(
            "# EVOLVE-BLOCK-START\ndef pack(sizes, capacity):\n    1 / 0\n# EVOLVE-BLOCK-END\n"
        )
    done = adrs("task", "attack", pack if arguments[0][0] == "@" else arguments[0], *arguments[1:], cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_seed_that_is_no_python_is_wrong_use(tmp_path: Path) -> None:
    folder = write_pack(tmp_path)
    (folder / "seed.py").write_text("def pack(:\n")
    with pytest.raises(UsageError, match="is no Python"):
        attack(load_task(folder), Options(), EvaluatorConfig())


def test_the_wall_limit_leaves_cheats_out_and_says_so(tmp_path: Path) -> None:
    report = attack(load_task(write_pack(tmp_path)), Options(max_wall_s=0.0), EvaluatorConfig(slots=1))
    assert report.tried == 1 < report.planned
    assert any("stopped after" in note for note in report.notes)


SLOW_SEEDS = ("eplb",)
"""Slow on purpose: cheats are made from another one."""


@pytest.mark.parametrize("name", sorted(builtin_tasks()))
def test_a_cheat_of_every_family_finds_nothing_in_a_built_in_task(name: str) -> None:
    """The whole battery is `make attack`."""
    task, _ = served_here(load_task(name))
    if "torch" in task.spec.preload:
        pytest.importorskip("torch")
    task = task.starting_from("strong" if name in SLOW_SEEDS else "medium")
    report = attack(task, Options(max_candidates=14), EvaluatorConfig())
    assert report.is_clean, report.findings or report.blind
    assert report.tried == 14, report.notes


def test_the_reported_makespan_of_the_public_evaluator_is_found() -> None:
    task = load_task("txn_offline", "paper")
    report = attack(task, Options(max_candidates=30, split="test", seed=1), EvaluatorConfig())
    assert "forged metric" in {finding.family.value for finding in report.findings}
    assert max(finding.score for finding in report.findings) > 10 * max(report.seed_scores)
