"""Tasks with stages: which judge judges where, and what is said of folders that lack one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray.attack import campaign
from adrs_ray.candidate import Evaluation
from adrs_ray.config import EvaluatorConfig, RunConfig
from adrs_ray.errors import UsageError
from adrs_ray.isomorphic import disguised, given_away
from adrs_ray.placement import place
from adrs_ray.prompt.brief import brief_of
from adrs_ray.scaffold import check_folder
from adrs_ray.stages_here import served_here
from adrs_ray.standings import markdown, measure, recorded, write
from adrs_ray.task import Task, load_task
from tests.levels_task import write as write_levels
from tests.staged_task import CHEAP, DEAR, JUDGE, SEED, write_staged_task

WITHOUT = JUDGE.replace("def for_stage(stage):", "def of_stage(stage):")


@pytest.fixture
def task(tmp_path: Path) -> Task:
    return write_staged_task(tmp_path / "staged", gpus=0)


def test_the_judge_of_a_task_is_that_of_its_last_stage(task):
    assert task.judge.cases("train")[0].id == "measured-0"
    assert task.judge_of(CHEAP).cases("train")[0].id == "simulated-0"
    assert task.judge_of("") is task.judge_of(DEAR)
    assert brief_of(task, RunConfig()).stages == (CHEAP, DEAR)


def test_a_stage_alone_is_a_task_with_its_judge_and_needs(tmp_path):
    task = write_staged_task(tmp_path / "staged", gpus=1)
    cheap, dear = task.in_stage(CHEAP), task.in_stage("")
    assert (cheap.spec.gpus, dear.spec.gpus) == (0, 1)
    assert [stage.name for stage in dear.spec.all_stages] == ["full"]
    assert cheap.judge.cases("train")[0].id == "simulated-0"
    assert dear.in_stage("") is dear


def test_a_task_without_stages_has_one_named_full():
    task = load_task("txn_offline")
    assert task.stage("").name == task.stage("full").name == "full"
    assert task.in_stage("full") is task
    assert task.judge_of("full") is task.judge
    with pytest.raises(UsageError, match="task txn_offline has no stage 'measured': it has full"):
        task.judge_of("measured")


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        (WITHOUT, "judge.py must define for_stage(stage): task.yaml has the stages simulated, measured"),
        (
            JUDGE.replace("return STAGES[stage]", "return None"),
            "for_stage('simulated') gives must have cases, score",
        ),
        (JUDGE.replace("STAGES[stage]", "STAGES['no']"), "for_stage('simulated') raised KeyError: 'no'"),
        ("import no_such_module\n", "judge.py does not import: ModuleNotFoundError"),
    ],
)
def test_a_judge_without_its_stages_is_refused_in_one_line(tmp_path, judge, said):
    task = write_staged_task(tmp_path / "staged", judge=judge)
    with pytest.raises(UsageError) as refused:
        task.judge_of(CHEAP)
    text = str(refused.value)
    assert "\n" not in text
    assert said in text
    wrong = [finding for finding in check_folder(task.folder) if not finding.usable]
    assert [finding.what for finding in wrong] == [text]


def test_a_note_on_a_split_may_stand_in_the_module(tmp_path):
    judge = JUDGE + "\n\ndef split_note(split):\n    return f'{split} was made up'\n"
    assert write_staged_task(tmp_path / "staged", judge=judge).split_note("test") == "test was made up"


def test_check_looks_at_the_cases_of_every_stage(task):
    found = check_folder(task.folder)
    assert all(finding.usable for finding in found), found
    told = [finding.what for finding in found]
    assert "judge.py has cases, score and combine for the stages simulated, measured" in told
    assert {"stage simulated: train: 2 cases", "stage measured: train: 2 cases"} <= set(told)
    assert sum("the cases are the same when they are made again" in what for what in told) == 2
    assert any(what.startswith("the seed scores 1 on train") for what in told)


def test_check_finds_what_is_wrong_in_a_cheap_stage(tmp_path):
    judge = JUDGE.replace('f"{self.name}-{i}"', '"same" if self.name == "simulated" else f"{i}"')
    found = check_folder(write_staged_task(tmp_path / "staged", gpus=0, judge=judge).folder)
    assert "judge.py: stage simulated: cases('train') has the id 'same' twice" in [finding.what for finding in found]


def test_check_says_that_a_gpu_is_missing_and_runs_the_seed_in_the_stage_before(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = check_folder(write_staged_task(tmp_path / "staged").folder)
    missing = "stage measured needs 1 GPU, this machine shows none: judged in simulated"
    assert missing in [finding.what for finding in found if finding.level == "warn"]
    assert any(finding.what.startswith("the seed scores 1 on train") for finding in found)


def test_a_task_up_to_a_stage_ends_there(tmp_path):
    task = write_staged_task(tmp_path / "staged", gpus=1)
    cheap = task.up_to(CHEAP)
    assert [stage.name for stage in cheap.spec.all_stages] == [CHEAP]
    assert cheap.judge.cases("train")[0].id == "simulated-0"
    assert task.up_to(DEAR).spec == task.spec
    with pytest.raises(UsageError, match="no stage 'other': it has simulated, measured"):
        task.up_to("other")
    with pytest.raises(UsageError, match="task txn_offline has no stages: leave out last_stage full"):
        load_task("txn_offline").up_to("full")


def test_standings_say_which_stage_judged(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    task, left_out = served_here(write_staged_task(tmp_path / "staged", gpus=1))
    assert left_out == "stage measured needs 1 GPU, this machine shows none: judged in simulated"
    standings = measure(task, slots=1)
    assert standings.stage == CHEAP
    assert f"--last-stage {CHEAP} --write" in markdown(task, standings)[0]
    write(task, standings)
    assert recorded(task.folder) == standings
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    whole = load_task(task.folder)
    assert served_here(whole) == (whole, None)
    assert served_here(whole, CHEAP)[0].spec == task.spec


def test_standings_places_and_attacks_use_the_last_stage(task):
    (task.folder / "baselines").mkdir()
    (task.folder / "baselines" / "nine.py").write_text(SEED.replace("VALUE = 1", "VALUE = 9"))
    standings = measure(load_task(task.folder), slots=1)
    row = standings.find("nine", "train")
    assert row is not None
    assert row.score == 7.0
    verdict = place(task)["seed"]
    assert isinstance(verdict, Evaluation)
    assert verdict.artifacts["stage"] == DEAR
    report = campaign.attack(task, campaign.Options(max_candidates=3, max_wall_s=5), EvaluatorConfig(slots=1))
    assert report.seed_scores[0] == 1.0


def test_the_paper_scoring_of_a_task_with_stages_has_stages_too(tmp_path):
    good, bad = (write_staged_task(tmp_path / name).folder for name in ("good", "bad"))
    (good / "paper.py").write_text(JUDGE)
    assert load_task(good, "paper").judge.cases("train")[0].id == "measured-0"
    (bad / "paper.py").write_text(WITHOUT)
    with pytest.raises(UsageError, match=r"paper\.py must define for_stage"):
        load_task(bad, "paper").judge_of("")


def test_a_disguise_covers_the_names_of_stages(task):
    story = (
        "name: told\nsummary: say a number\nstatement: say it\nrename: {answer: word}\n"
        "metrics: {value: how large it is}\nsecret_words: {simulated: pretended}\nseed: |\n"
    ) + "".join(f"  {line}\n" for line in SEED.replace("answer", "word").splitlines())
    (task.folder / "isomorphic.yaml").write_text(story)
    told = disguised(load_task(task.folder))
    assert told.spec.stages == task.spec.stages
    assert given_away(told) == ("simulated",)
    assert told.native.judge_of(CHEAP).cases("train")[0].id == "simulated-0"


def test_levels_of_a_plain_task_are_unchanged(tmp_path):
    plain = load_task(write_levels(tmp_path / "levels"))
    assert replace(plain).in_stage("") == plain
