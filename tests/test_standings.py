"""Where the programs of a task stand: measured once, kept beside the task, shown in its README and by `adrs tasks`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from adrs_ray import standings as module
from adrs_ray.candidate import CaseResult, Failure, FailureKind
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.scaffold import check_folder
from adrs_ray.standings import Standings, measure, recorded, summary, table, write
from adrs_ray.task import load_task, quality
from adrs_ray.verdict_cost import verdict_cost
from tests import levels_task
from tests.cli.command import adrs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return levels_task.write(tmp_path_factory.mktemp("tasks") / "near_ten")


@pytest.fixture(scope="module")
def measured(folder: Path) -> tuple[Standings, list[str]]:
    told: list[str] = []
    return measure(load_task(folder), slots=1, told=told.append), told


def test_every_program_is_judged_on_every_split_and_by_public_scoring(measured) -> None:
    standings, told = measured
    programs = {"weak", "medium", "strong", "zero", "nine", "below"}
    sound = {(row.program, row.split) for row in standings.rows if row.scoring == "sound"}
    assert sound == {(name, split) for name in programs for split in ("train", "validation", "test", "stress")}
    assert {(row.program, row.split) for row in standings.rows if row.scoring == "paper"} == {
        (name, "test") for name in programs
    }
    assert len(told) == len(standings.rows)
    assert standings.find("seed", "test").score == -6.0
    assert standings.find("medium", "test", "paper").score == 8.0
    failed = standings.find("below", "train")
    assert (failed.score, failed.failure) == (None, "invalid in case c0: below zero")
    assert standings.find("below", "test", "paper").score == -2.0
    assert standings.notes == {"stress": "made up"}
    assert standings.verdict["cpu_s"] > 0


def test_the_table_goes_from_worst_to_best_and_ends_with_the_bound(folder, measured) -> None:
    header, rows = table(load_task(folder), measured[0])
    shared = ["program", "train", "validation", "test", "stress"]
    assert header == [*shared, "distance (test)", "cpu_s_per_case (test)", "worst_decile (test)", "public score (test)"]
    assert [row[0] for row in rows] == [
        "below",
        "zero (trivial)",
        "seed: weak",
        "seed: medium (default)",
        "seed: strong",
        "nine (best human)",
        "*bound*",
    ]
    assert rows[0][1] == "(invalid)"
    assert rows[3][1] == "-6.0000"
    assert rows[-1][1:5] == ["0.0000"] * 4
    assert all(len(row) == len(header) for row in rows)


def test_the_leaderboards_formula_is_shown_only_where_all_its_data_is_here(folder, measured) -> None:
    def with_coverage(coverage: float) -> Standings:
        extra = {"leaderboard_formula": 50.0, "leaderboard_coverage": coverage}
        rows = tuple(
            module.Standing(r.program, r.split, r.scoring, r.score, {**r.metrics, **extra}, r.failure)
            for r in measured[0].rows
        )
        return Standings("near_ten", rows, {}, measured[0].verdict)

    task = load_task(folder)
    assert "leaderboard_formula (test)" in table(task, with_coverage(100.0))[0]
    assert "leaderboard_formula (test)" not in table(task, with_coverage(50.0))[0]


def test_what_is_written_is_read_back_and_stands_in_the_readme(tmp_path: Path, measured) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    task = load_task(folder)
    assert recorded(folder) is None
    assert summary(task)["seed"] is None
    assert write(task, measured[0]) == [folder / "standings.json", folder / "README.md"]
    assert recorded(folder) == measured[0]
    assert summary(task) == {
        "task": "near_ten",
        "summary": "name a number near ten",
        "metric": "distance",
        "split": "test",
        "seed": -6.0,
        "best_human": -1.0,
        "best_human_name": "nine",
        "bound": 0.0,
        "stage": None,
        "verdict_cpu_s": measured[0].verdict["cpu_s"],
    }
    text = (folder / "README.md").read_text()
    assert text.startswith("# near_ten\n\nBefore.\n\n<!-- standings -->\n`adrs task standings near_ten --write`")
    assert text.endswith("<!-- /standings -->\n\nAfter.\n")
    assert "old" not in text
    assert "- below on train (sound): invalid in case c0: below zero" in text
    assert "The bound: a distance is never negative." in text
    assert "The stress split was made up." in text
    write(task, measured[0])
    assert (folder / "README.md").read_text() == text


def test_a_readme_without_markers_is_left_alone(tmp_path: Path, measured) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    (folder / "README.md").write_text("mine\n")
    assert write(load_task(folder), measured[0]) == [folder / "standings.json"]
    assert (folder / "README.md").read_text() == "mine\n"


@pytest.mark.parametrize("text", ["", "[]", '{"task": "x"}', '{"task": "x", "rows": [{"a": 1}], "notes": {}}'])
def test_a_foreign_standings_file_is_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / "standings.json").write_text(text)
    with pytest.raises(UsageError, match=r"standings.json is no standings file .*adrs task standings"):
        recorded(tmp_path)


def test_the_place_of_each_seed_is_checked(folder: Path, tmp_path: Path) -> None:
    said = {finding.what: finding for finding in check_folder(folder)}
    for level, share in {"weak": 11, "medium": 44, "strong": 78}.items():
        (what,) = [what for what in said if what.startswith(f"seed {level} scores")]
        assert f"{share} % of the way from zero to nine" in what
        assert said[what].level == "ok"

    other = levels_task.write(tmp_path / "near_ten")
    (other / "seeds" / "weak.py").write_text(levels_task.program(10))
    warnings = [finding.what for finding in check_folder(other) if finding.level == "warn"]
    assert any(what.startswith("seed weak scores 0 on train, 111 %") for what in warnings)
    assert "seed weak is better than medium on train" in warnings


@pytest.mark.parametrize(
    ("breakage", "level", "says"),
    [
        (lambda f: (f / "seeds" / "weak.py").unlink(), "warn", "seeds/weak.py is missing"),
        (lambda f: (f / "hints" / "weak.md").unlink(), "warn", "hints/weak.md is missing"),
        (lambda f: (f / "baselines" / "nine.py").unlink(), "wrong", "task.yaml: best_human names no baseline: nine"),
        (
            lambda f: (f / "seeds" / "strong.py").write_text("x = 1\n"),
            "wrong",
            "seeds/strong.py does not define answer",
        ),
    ],
)
def test_what_is_missing_of_the_levels_is_named(tmp_path: Path, breakage, level: str, says: str) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    breakage(folder)
    findings = check_folder(folder, run_seed=False)
    assert (level, says) in [(finding.level, finding.what) for finding in findings]


def test_a_seed_that_is_not_the_medium_one_is_wrong(tmp_path: Path) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    (folder / "seed.py").unlink()
    (folder / "seed.py").write_text(levels_task.program(5))
    whats = [f.what for f in check_folder(folder, run_seed=False) if f.level == "wrong"]
    assert whats == ["seed.py is not seeds/medium.py"]


def test_a_task_starts_from_the_level_that_was_asked_for(folder: Path) -> None:
    task = load_task(folder)
    assert task.starting_from("medium").seed_source == task.seed_source == levels_task.program(4)
    assert task.starting_from("strong").seed_source == levels_task.program(7)
    assert list(task.hints()) == ["weak", "medium", "strong"]


def test_a_score_above_the_bound_was_not_earned(tmp_path: Path) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    judge = folder / "judge.py"
    judge.write_text(judge.read_text().replace('"score_bound": 0.0', '"score_bound": -5.0'))
    task = load_task(folder)
    source = (folder / "baselines" / "nine.py").read_text()
    verdict = evaluate_once(task, source, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Failure)
    assert verdict.kind is FailureKind.REWARD_HACKING
    assert "above the proven bound -5.0" in verdict.detail


def test_what_a_verdict_costs_is_all_that_makes_it(folder: Path) -> None:
    busy = "def answer():\n    return float(sum(range(3_000_000)) > 0)\n"
    idle, worked = (verdict_cost(load_task(folder), "train", source, repeats=2) for source in (None, busy))
    assert worked.candidate_cpu_s > idle.candidate_cpu_s
    assert worked.cpu_s > worked.candidate_cpu_s - 0.02  # the kernel's ticks
    assert worked.cpu_s > idle.cpu_s
    with pytest.raises(RunError, match="fails on train: invalid: below zero"):
        verdict_cost(load_task(folder), "train", levels_task.program(-1))


def test_quality_of_results() -> None:
    def results(*points: tuple[float, float, float]) -> list[CaseResult]:
        return [CaseResult(str(i), {"v": v, "n": n}, cpu, 0.0) for i, (v, n, cpu) in enumerate(points)]

    quadratic = results(*((float(i), 10.0 * i, 1e-3 * i * i) for i in range(1, 21)))
    told = quality(quadratic, "v", "max", "n")
    assert told["cpu_growth"] == pytest.approx(2.0)
    assert told["worst_decile"] == 1.5
    assert quality(quadratic, "v", "min")["worst_decile"] == 19.5
    assert told["cpu_s"] == pytest.approx(sum(r.cpu_s for r in quadratic))
    assert told["cpu_s_per_case"] == pytest.approx(told["cpu_s"] / 20)
    assert "cpu_growth" not in quality(results((1, 1, 0.5), (1, 1, 0.5), (1, 1, 0.5)), "v", "max", "n")
    assert "cpu_growth" not in quality(results((1, 1, 1e-5), (1, 2, 1e-5), (1, 3, 1e-5)), "v", "max", "n")


def test_the_commands(tmp_path: Path) -> None:
    folder = levels_task.write(tmp_path / "near_ten")
    done = adrs("task", "standings", folder, "--write", "--slots", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)["rows"]) == 30
    assert f"wrote {folder / 'standings.json'}" in done.stderr

    done = adrs("eval", folder, "strong", "--split", "test", "--scoring", "paper", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["scoring"], report["score"]) == ("paper", 14.0)
    done = adrs("eval", folder, "strong", "--scoring", "paper")
    assert done.returncode == 2
    assert "public scoring knows the test split only" in done.stderr

    done = adrs("bench", "tasks", folder, "--repeats", "1", "--json")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["task"], row["split"], row["public_cpu_s"]) == ("near_ten", "test", 12.5)
    assert row["cpu_s"] > 0

    done = adrs("run", folder, "--local", "--start", "strong", "--max-candidates", "2", "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert levels_task.program(7) in adrs("show", tmp_path / "run", "seed-0").stdout


def test_built_in_tasks_are_listed() -> None:
    done = adrs("tasks", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["task"]: row for row in json.loads(done.stdout)}
    assert "txn_offline" in rows
    assert set(rows["txn_offline"]) == {
        "task", "summary", "metric", "split", "seed", "best_human", "best_human_name", "bound", "stage",
        "verdict_cpu_s",
    }  # fmt: skip
