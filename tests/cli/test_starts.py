"""What a run starts from: an OpenEvolve checkpoint, a disguised task, templates of a user."""

from __future__ import annotations

import json
from pathlib import Path

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.runs import events_of
from tests.test_openevolve_checkpoint import saved
from tests.tiny import FILES, write_tiny_task


def test_the_best_programs_of_a_checkpoint_are_seeds(tmp_path: Path) -> None:
    program = FILES["seed.py"]
    checkpoint = saved(
        tmp_path / "checkpoint_9",
        {
            "weak": {"code": program.replace("STEP = 3", "STEP = 4"), "metrics": {"combined_score": 0.1}},
            "good": {"code": program.replace("STEP = 3", "STEP = 90"), "metrics": {"combined_score": 0.9}},
        },
    )
    task, run = write_tiny_task(tmp_path), tmp_path / "run"
    done = adrs("run", task, "--local", "--warm-start", checkpoint, "--max-candidates", 8, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    planted = [e for e in events_of(run) if e.kind is EventKind.GENERATED and e.island == -1]
    origins = [e.body["operator"] for e in planted]
    assert origins[0] == "seed"
    assert [origin.rsplit(" ", 1)[1] for origin in origins[1:]] == ["good", "weak"]
    assert json.loads(done.stdout)["best"]["score"] > 0.2


def test_an_isomorphic_run_of_a_task_without_another_story_is_refused_in_one_line(tmp_path: Path) -> None:
    done = adrs("run", write_tiny_task(tmp_path), "--local", "--isomorphic", "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "isomorphic.yaml" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_an_isomorphic_run_leaves_a_program_in_native_names(tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = adrs("run", "prism", "--local", "--isomorphic", "--max-candidates", 6, "--no-baselines", "--out", run)
    assert done.returncode == 0, done.stderr
    assert "def compute_model_placement(" in (run / "best" / "program.py").read_text()
    told = next(e for e in events_of(run) if e.kind is EventKind.GENERATED)
    shown = adrs("show", run, told.candidate)
    assert "compute_model_placement" not in shown.stdout


def test_templates_that_cannot_work_are_refused_before_a_folder_is_made(tmp_path: Path) -> None:
    templates = tmp_path / "templates"
    templates.mkdir()
    (templates / "diff.jinja").write_text("Improve {{ parrent.source }}")
    config = tmp_path / "config.yaml"
    config.write_text(f"prompt: {{folder: {templates}}}\n")
    done = adrs("run", write_tiny_task(tmp_path), "--local", "--config", config, "--out", tmp_path / "run")
    assert done.returncode == 2
    assert "diff.jinja" in done.stderr
    assert "parrent" in done.stderr
    assert not (tmp_path / "run").exists()
