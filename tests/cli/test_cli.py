"""The command line as a user meets it: real processes, exit codes, one line per mistake."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import adrs


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A small finished run of txn_offline."""
    run = tmp_path_factory.mktemp("cli") / "run"
    done = adrs(
        "run",
        "txn_offline",
        "--local",
        "--islands",
        "2",
        "--max-candidates",
        "12",
        "--seed",
        "1",
        "--out",
        run,
        "--json",
    )
    assert done.returncode == 0, done.stderr
    return run


def test_help_is_quick_to_import_nothing_heavy():
    script = (
        "import sys; sys.argv = ['adrs', '--help']\n"
        "from adrs_ray.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'ray', 'torch', 'numba', 'httpx2', 'sqlalchemy', 'numpy', 'pydantic'} & set(sys.modules)\n"
        "print('heavy:', sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "heavy: []" in done.stderr
    for command in (
        "run",
        "resume",
        "stop",
        "eval",
        "status",
        "best",
        "show",
        "task",
        "tasks",
        "config",
        "data",
        "doctor",
        "bench",
    ):
        assert re.search(rf"^ *{command} ", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["run", "nothing_of_that_name"], r"no task 'nothing_of_that_name'.*txn_offline"),
        (["run", "txn_offline", "--islands", "0"], r"islands.count is 0: .*greater than or equal to 1"),
        (["run", "txn_offline", "--local", "--address", "auto"], r"--local .*auto.* exclude each other"),
        (["run", "txn_offline", "--config", "/none.yaml"], r"cannot read config /none.yaml"),
        (["run", "txn_offline", "--warm-start", "/none.py"], r"--warm-start /none.py: neither"),
        (["resume", "/nowhere"], r"/nowhere is no run: it has no run.yaml"),
        (["stop", "/nowhere"], r"is no run"),
        (["status", "/nowhere"], r"is no run"),
        (["eval", "txn_offline", "nothing.py"], r"no program 'nothing.py': .*arrival_order"),
        (
            ["eval", "txn_offline", "seed", "--split", "exam"],
            r"--split exam: txn_offline has train, validation, test, stress",
        ),
        (["eval", "txn_offline", "seed", "--scoring", "fair"], r"--scoring fair: accepted are sound and paper"),
        (["run", "txn_offline", "--start", "best"], r"start is 'best': .*weak.*medium.*strong"),
        (["bench", "tasks", "txn_offline", "--split", "exam"], r"--split exam: accepted are train, validation"),
        (["task", "standings", "/nowhere"], r"no task '/nowhere'"),
        (["eval", "txn_offline", "seed", "--sandbox", "loose"], r"evaluator.sandbox is 'loose'.*strict"),
        (["config", "show", "/none.yaml"], r"cannot read config"),
        (["task", "new", "Bad-Name"], r"Bad-Name"),
    ],
)
def test_wrong_use_is_one_line_and_exit_code_2(arguments, wanted, tmp_path):
    done = adrs(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert re.search(wanted, done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_run_ends_with_one_line_of_json(tmp_path):
    run = tmp_path / "run"
    done = adrs("run", "txn_offline", "--local", "--max-candidates", "6", "--no-baselines", "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.strip().splitlines()
    report = json.loads(line)
    assert {"run", "candidates", "best", "failures", "wall_s"} <= report.keys()
    assert report["candidates"] == 6
    assert {"id", "score", "metrics"} <= report["best"].keys()
    assert Path(report["run"]) == run
    assert (run / "best" / "program.py").read_text().count("EVOLVE-BLOCK") == 2


def test_status_best_and_show_read_the_journal(finished):
    status = json.loads(adrs("status", finished, "--json").stdout)
    assert status["candidates"] == status["max_candidates"] == 12
    assert status["under_way"] == 0
    best = json.loads(adrs("best", finished, "--json").stdout)
    assert best[0]["id"] == status["champion"]
    assert {"validation", "test"} <= best[0]["held_out"].keys()
    assert adrs("best", finished, "--program").stdout == (finished / "best" / "program.py").read_text()
    shown = adrs("show", finished, best[0]["id"]).stdout
    assert f"candidate: {best[0]['id']}, admitted" in shown
    assert "EVOLVE-BLOCK-START" in shown
    assert "seed-0" in adrs("show", finished).stdout
    assert "smf" in adrs("best", finished).stdout
    wrong = adrs("show", finished, "9-999")
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (2, 1)


def test_a_second_run_in_the_same_folder_is_refused_and_nothing_is_lost(finished):
    before = (finished / "run.yaml").read_bytes()
    done = adrs("run", "txn_offline", "--local", "--out", finished)
    assert done.returncode == 2
    assert "adrs resume" in done.stderr
    assert (finished / "run.yaml").read_bytes() == before


def test_resume_extends_a_finished_run(finished):
    done = adrs("resume", finished, "--max-candidates", "18", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidates"] == 18
    assert json.loads(adrs("status", finished, "--json").stdout)["starts"] == 2


def test_warm_start_from_a_run(finished, tmp_path):
    done = adrs(
        "run",
        "txn_offline",
        "--local",
        "--warm-start",
        finished,
        "--max-candidates",
        "4",
        "--out",
        tmp_path / "r",
        "--json",
    )
    assert done.returncode == 0, done.stderr
    assert (
        "warm start" in adrs("show", tmp_path / "r", "seed-1").stdout
        or json.loads(done.stdout)["best"]["id"] == "seed-0"
    )


def test_eval_prints_the_verdict_as_json():
    done = adrs("eval", "txn_offline", "arrival_order", "--split", "train", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert set(report) >= {
        "task",
        "split",
        "valid",
        "score",
        "metrics",
        "cases",
        "artifacts",
        "failure",
        "trust",
        "wall_s",
    }
    assert (report["valid"], report["trust"], report["score"]) == (True, "verified", 0.0)


def test_eval_of_a_failing_program_is_exit_code_1(tmp_path):
    program = tmp_path / "p.py"
    program.write_text("def get_best_schedule(workload, num_seqs):\n    return 0, [0, 0]\n")
    done = adrs("eval", "txn_offline", program, "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["failure"]["kind"] == "invalid"


def test_config_show_round_trips(tmp_path):
    text = adrs("config", "show").stdout
    file = tmp_path / "c.yaml"
    file.write_text(text)
    assert adrs("config", "show", file).stdout == text


def test_a_new_task_passes_its_check_and_can_be_searched(tmp_path):
    assert adrs("task", "new", "my_task", cwd=tmp_path).returncode == 0
    check = adrs("task", "check", "my_task", cwd=tmp_path)
    assert check.returncode == 0, check.stdout
    done = adrs("run", "./my_task", "--local", "--max-candidates", "8", "--out", "r", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["candidates"] == 8


def test_doctor_names_every_layer():
    done = adrs("doctor")
    assert done.returncode == 0, done.stdout
    assert "landlock" in done.stdout.lower()
    assert "seccomp" in done.stdout.lower()


def test_users_own_folders_named_like_ours_shadow_nothing(tmp_path):
    for name in ("tasks", "cluster"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('shadowed')\n")
    done = adrs("eval", "txn_offline", "seed", "--json", cwd=tmp_path, env={"PYTHONPATH": ""})
    assert done.returncode == 0, done.stderr
