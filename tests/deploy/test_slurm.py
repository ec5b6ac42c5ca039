"""The batch script on a Slurm that stands in: what it starts, what it hands on, when the job is queued again."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "slurm" / "adrs.sbatch"
COMMANDS = {
    "scontrol": 'if [ "$1" = show ]; then printf "n1\\nn2\\n"; else log scontrol "$@"; fi',
    "srun": 'case "$*" in *hostname*) echo 10.0.0.1 10.0.0.2;; *) log srun "$@"; exec sleep 60;; esac',
    "ray": "exit 0",
    "python": 'if [ "$1" = -c ]; then echo 0f0f; else cat >/dev/null; fi',
    "adrs": """trap 'exit 143' TERM
log adrs "$@"
if [ -z "$ADRS_EXIT" ]; then while :; do sleep 0.05; done; fi
exit "$ADRS_EXIT" """,
}


@pytest.fixture
def slurm(tmp_path):
    """Starts the script with arguments and variables; `calls` are those of the commands that it found."""
    bin_, calls = tmp_path / "bin", tmp_path / "calls"
    bin_.mkdir()
    calls.touch()
    head = f"#!/bin/bash\nlog() {{ (IFS=$'\\t'; echo \"$*\" >>{calls}); }}\n"
    for name, body in COMMANDS.items():
        (bin_ / name).write_text(f"{head}{body}\n")
        (bin_ / name).chmod(0o755)
    env = {
        "PATH": f"{bin_}:{os.defpath}",
        "HOME": str(tmp_path),
        "SLURM_JOB_NAME": "night",
        "SLURM_JOB_ID": "77",
        "SLURM_JOB_NODELIST": "n[1-2]",
        "SLURM_CPUS_ON_NODE": "96",
    }
    started = []

    def start(*arguments, **variables):
        with (tmp_path / "errors").open("wb") as errors:
            process = subprocess.Popen(
                ["bash", SCRIPT, *arguments], env=env | variables, stderr=errors, start_new_session=True
            )
        started.append(process)
        return process

    start.calls = lambda name: [
        words for words in (line.split("\t") for line in calls.read_text().splitlines()) if words[0] == name
    ]
    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended(process):
    return process.wait(timeout=60)


def test_what_follows_the_config_goes_to_the_run(slurm, tmp_path):
    extra = ["--set", "pool.python=/a b/python", "--warm-start", "old"]
    assert ended(slurm("txn_offline", "night.yaml", *extra, ADRS_EXIT="0", SLURM_GPUS_ON_NODE="8")) == 0
    ((_, *words),) = slurm.calls("adrs")
    assert words[:4] == ["job", "txn_offline", "--config", "night.yaml"]
    assert words[4:] == [
        *("--name", "night", "--out", f"{tmp_path}/adrs-runs", "--address", "10.0.0.1:6379"),
        *extra,
    ]
    assert slurm.calls("scontrol") == []


def test_nothing_more_than_task_and_config_is_enough(slurm):
    assert ended(slurm("txn_offline", "night.yaml", ADRS_EXIT="0", SLURM_GPUS_ON_NODE="8")) == 0
    assert slurm.calls("adrs")[0][-2:] == ["--address", "10.0.0.1:6379"]


@pytest.mark.parametrize("gpus", [None, "0", "8"])
def test_gpus_are_asked_for_where_there_are_any(slurm, gpus):
    variables = {} if gpus is None else {"SLURM_GPUS_ON_NODE": gpus}
    assert ended(slurm("txn_offline", "night.yaml", ADRS_EXIT="0", **variables)) == 0
    steps = slurm.calls("srun")
    assert len(steps) == 2
    for words in steps:
        assert ("--gpus-per-task=8" in words) == (gpus == "8")
        assert not any(word.startswith("--gpus") for word in words) or gpus == "8"
        assert f"--num-gpus={gpus or 0}" in words
        assert "--num-cpus=96" in words


@pytest.mark.parametrize("code", [0, 1, 2, 143])
def test_a_run_that_a_signal_ended_with_budget_left_is_queued_again_and_no_other(slurm, code):
    assert ended(slurm("txn_offline", "night.yaml", ADRS_EXIT=str(code))) == code
    assert slurm.calls("scontrol") == ([["scontrol", "requeue", "77"]] if code == 143 else [])


def test_slurms_signal_drains_the_run_and_queues_it_again(slurm):
    process = slurm("txn_offline", "night.yaml", ADRS_EXIT="")
    deadline = time.monotonic() + 60
    while not slurm.calls("adrs"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert ended(process) == 143
    assert slurm.calls("scontrol") == [["scontrol", "requeue", "77"]]
