"""What `adrs submit` checks here and what it would send; nothing leaves this machine."""

import shlex

import pytest

from adrs_ray.errors import UsageError
from cluster.job_server import JobView
from cluster.model_lock import LOCK_NAME, Locked, read_lock, write_lock
from cluster.submit import STOP_WAIT, Order, entrypoint, instructions, outcome, prepare
from tests.tiny import write_tiny_task

MODELS = """\
generator: {kind: openai}
models:
  small: {base_url: "http://127.0.0.1:8000/v1", model: small, api_key_env: SMALL_KEY}
"""
CANARY = "sk-canary-5f2e"


def project(tmp_path, config="budget: {max_candidates: 20}\n"):
    """A working directory with a task and a config."""
    folder = tmp_path / "project"
    folder.mkdir()
    task = write_tiny_task(folder)
    (folder / "night.yaml").write_text(config)
    return folder, task


def order(folder, at, **other):
    return Order(**{"task": str(at), "config": folder / "night.yaml", "working_dir": folder, **other})


def sent(submission):
    return {file.name for file in submission.files}


def test_a_task_of_the_working_directory_keeps_its_place(tmp_path):
    folder, task = project(tmp_path)
    submission = prepare(order(folder, task, out="/shared/runs", settings=("budget.max_candidates=9",)), {})
    assert submission.name == "tiny-night"
    command = "job tiny --config night.yaml --name tiny-night --out /shared/runs --set budget.max_candidates=9"
    assert submission.entrypoint == entrypoint(shlex.split(command), False)
    assert {"tiny/judge.py", "tiny/task.yaml", "night.yaml"} <= sent(submission)
    assert submission.size_bytes == sum(file.size_bytes for file in submission.files)


def test_a_task_and_a_config_from_elsewhere_go_along(tmp_path):
    folder, task = project(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    submission = prepare(order(folder, task, working_dir=work), {})
    assert "job adrs-task/tiny --config adrs-config/night.yaml --name tiny-night" in submission.entrypoint
    assert {"adrs-task/tiny/judge.py", "adrs-config/night.yaml"} <= sent(submission)


def test_the_lock_beside_a_config_goes_with_it_and_pins_the_run_there(tmp_path):
    folder, _ = project(tmp_path, "pool: {preset: 8x80gb}\n")
    write_lock(folder, {"a/b": Locked(revision="main", commit="0" * 40, bytes=1)})
    work = tmp_path / "work"
    work.mkdir()
    for working_dir, names in (
        (folder, {"night.yaml", LOCK_NAME}),
        (work, {"adrs-config/night.yaml", f"adrs-config/{LOCK_NAME}"}),
    ):
        submission = prepare(order(folder, "txn_offline", working_dir=working_dir), {})
        found = {file.name: file.path for file in submission.files}
        assert names <= found.keys()
        assert read_lock(found[next(name for name in names if name.endswith(LOCK_NAME))].parent) == read_lock(folder)


def test_the_lock_of_a_config_that_is_a_link_is_the_one_beside_the_link(tmp_path):
    folder, _ = project(tmp_path)
    (tmp_path / "shared").mkdir()
    linked = tmp_path / "shared" / "tonight.yaml"
    linked.symlink_to(folder / "night.yaml")
    write_lock(linked.parent, {"a/b": Locked(revision="main", commit="0" * 40, bytes=1)})
    work = tmp_path / "work"
    work.mkdir()
    submission = prepare(order(folder, "txn_offline", config=linked, working_dir=work), {})
    assert sent(submission) == {"adrs-config/night.yaml", f"adrs-config/{LOCK_NAME}"}


def test_a_lock_that_is_none_is_said_before_anything_is_sent(tmp_path):
    folder, _ = project(tmp_path)
    (folder / LOCK_NAME).write_text("models: [a]\n")
    with pytest.raises(UsageError, match=r"models\.lock\.yaml"):
        prepare(order(folder, "txn_offline"), {})


def test_a_task_that_would_be_left_out_with_the_outputs_goes_along_all_the_same(tmp_path):
    work = tmp_path / "work"
    task = write_tiny_task(work / "data")
    submission = prepare(Order(task=str(task), config=None, working_dir=work), {})
    assert "job adrs-task/tiny --name tiny" in submission.entrypoint
    assert "adrs-task/tiny/judge.py" in sent(submission)


def test_a_built_in_task_is_named(tmp_path):
    submission = prepare(Order(task="txn_offline", config=None, working_dir=tmp_path), {})
    assert "job txn_offline --name txn_offline" in submission.entrypoint
    assert submission.files == ()


def test_a_checkout_that_is_sent_is_what_runs_there():
    assert entrypoint(["job", "tiny"], True) == "python -m adrs_ray.cli job tiny"
    elsewhere = entrypoint(["job", "a b"], False)
    assert "exec adrs job 'a b'" in elsewhere
    assert "exec python -m adrs_ray.cli job 'a b'" in elsewhere


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"out": "runs"}, "--out runs is relative"),
        ({"out": "./runs"}, "absolute path on the cluster, or a URL"),
        ({"settings": ("mirror.url=mirror",)}, "mirror.url mirror is relative"),
        ({"settings": ("prompt.folder=prompts",)}, "cannot read|no template|prompts"),
        ({"settings": ("budget.max_candidates=no",)}, "budget.max_candidates"),
        ({"env": ("NAME",)}, "expected NAME=VALUE"),
        ({"env": ("1A=b",)}, "expected NAME=VALUE"),
        ({"name": "no/name"}, "--name"),
        ({"task": "no_such_task"}, "no_such_task"),
        ({"working_dir": None}, "is no folder"),
    ],
)
def test_what_is_wrong_is_one_line_before_anything_is_sent(tmp_path, change, message):
    folder, task = project(tmp_path)
    if "working_dir" in change:
        change = {"working_dir": tmp_path / "nothing"}
    with pytest.raises(UsageError, match=message) as raised:
        prepare(order(folder, task, **change), {})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("out", ["/runs", "~/runs", "s3://bucket/runs"])
def test_outputs_that_outlive_the_job_are_taken(tmp_path, out):
    folder, task = project(tmp_path)
    assert shlex.join(["--out", out]) in prepare(order(folder, task, out=out), {}).entrypoint


def test_keys_stay_here_unless_they_are_forwarded(tmp_path):
    folder, task = project(tmp_path, MODELS)
    submission = prepare(order(folder, task), {"SMALL_KEY": CANARY})
    assert "SMALL_KEY" not in submission.env
    assert submission.notes == ("the cluster must have SMALL_KEY set (or: --forward-keys)",)
    submission = prepare(order(folder, task, forward_keys=True), {"SMALL_KEY": CANARY})
    assert submission.env["SMALL_KEY"] == CANARY
    assert CANARY not in repr(submission) + submission.entrypoint + "".join(submission.notes)
    with pytest.raises(UsageError, match="SMALL_KEY is not set here"):
        prepare(order(folder, task, forward_keys=True), {})


def test_a_job_that_is_stopped_has_time_to_drain(tmp_path):
    folder, task = project(tmp_path)
    submission = prepare(order(folder, task, settings=("cluster.drain_s=25.5",), env=("A=b=c",)), {})
    assert submission.env == {STOP_WAIT: "41", "A": "b=c"}


def test_the_exit_code_is_that_of_the_job():
    assert outcome(JobView("j", "SUCCEEDED", exit_code=0))[0] == 0
    assert outcome(JobView("j", "FAILED", exit_code=2))[0] == 2
    assert outcome(JobView("j", "FAILED", exit_code=-9))[0] == 1
    code, words = outcome(JobView("j", "STOPPED", message="stopped\nby somebody"))
    assert code == 1
    assert words == "the job ended as stopped: stopped by somebody"


def test_the_instructions_can_be_pasted(tmp_path):
    lines = instructions("tiny-night", "tiny-night-1", "http://head:8265")
    assert any("adrs status tiny-night --address http://head:8265" in line for line in lines)
    assert any("ray job stop tiny-night-1 --address http://head:8265" in line for line in lines)
