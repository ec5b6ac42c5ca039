"""What a control actor does with a command, without Ray."""

import asyncio
import os
import sys

import pytest

from adrs_ray.config import RunConfig
from adrs_ray.storage.runfolder import RunFolder
from cluster.control import (
    LARGEST_OUTPUT_BYTES,
    ControlActor,
    argv_for,
    decoded,
    encoded,
    run_command,
)


def run(code, *arguments, stdin="", limit_s=60.0):
    return asyncio.run(run_command([sys.executable, "-c", code, *arguments], stdin, limit_s))


def test_the_run_folder_comes_after_the_words_of_a_command(tmp_path):
    assert argv_for(["status", "--json"], tmp_path) == ["status", str(tmp_path), "--json"]
    assert argv_for(["inbox", "answer", "--file=-", "--", "0-1/0"], tmp_path) == [
        *("inbox", "answer", str(tmp_path), "--file=-", "--", "0-1/0")
    ]


def test_a_command_runs_against_the_folder(tmp_path):
    RunFolder.create(tmp_path / "run", RunConfig(), "txn_offline", False)
    actor = ControlActor(str(tmp_path / "run"), os.getpid())
    answer = asyncio.run(actor.command(["stop"]))
    assert answer.rc == 2
    assert "is not running: nothing to stop" in answer.stderr


@pytest.mark.parametrize("argv", [[], ["run", "txn_offline"], ["job"], ["eval"], ["--version"], ["submit"]])
def test_other_commands_are_refused(tmp_path, argv):
    answer = asyncio.run(ControlActor(str(tmp_path), os.getpid()).command(argv))
    assert answer.rc == 2
    assert "cannot be asked of a run" in answer.stderr


def test_streams_and_code_come_back_apart():
    code = "import sys; print(sys.stdin.read().upper()); print('oops', file=sys.stderr); sys.exit(3)"
    answer = run(code, stdin="a program")
    assert (answer.rc, answer.stdout, answer.stderr) == (3, "A PROGRAM\n", "oops\n")


def test_what_does_not_read_its_input_ends_all_the_same():
    assert run("pass", stdin="x" * 10**6).rc == 0


def test_output_is_cut_and_the_command_ends():
    answer = run(f"print('x' * {LARGEST_OUTPUT_BYTES * 2})")
    assert answer.rc == 0
    assert answer.stdout.endswith("(cut here)\n")
    assert len(answer.stdout) < LARGEST_OUTPUT_BYTES + 100


def test_output_that_is_no_text_comes_back_as_one():
    answer = run("import sys; sys.stdout.buffer.write(b'\\xff\\xfe')")
    assert answer.stdout == "\ufffd\ufffd"


def test_what_takes_too_long_is_ended_with_its_children(tmp_path):
    code = "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    answer = run(code, limit_s=1.0)
    assert answer.rc == 1
    assert "took longer than 1 s" in answer.stderr


def test_a_driver_that_is_gone_is_known(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    assert asyncio.run(ControlActor(str(tmp_path), os.getpid()).where()).alive
    # A zombie does not live, nor does what has been waited for.
    while asyncio.run(ControlActor(str(tmp_path), child).where()).alive:
        pass
    os.waitpid(child, 0)
    assert not asyncio.run(ControlActor(str(tmp_path), child).where()).alive


def test_requests_travel_as_one_word():
    data = {"run": "a b", "argv": ["steer", "--hint=try 'this'\n"], "stdin": "ü" * 100}
    word = encoded(data)
    assert decoded(word) == data
    assert word.isascii()
    assert not set(word) & set(" '\"$\n;|&")
