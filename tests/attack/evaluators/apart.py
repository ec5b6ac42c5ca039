"""Runs a program's function in a process of its own: answers come back as JSON, one per input, and nothing else does.

Copied beside an evaluator by the tests. What a program prints, patches or changes stays in its process.
"""

import json
import os
import subprocess
import sys

_RUNNER = """
import json, os, sys
path, name, descriptor = sys.argv[1], sys.argv[2], int(sys.argv[3])
space = {"__name__": "program", "__file__": path}
exec(compile(open(path).read(), path, "exec"), space)
answers = [space[name](*arguments) for arguments in json.load(sys.stdin)]
os.write(descriptor, json.dumps(answers).encode())
"""


def answers_of(path, name, inputs):
    """One answer per input; ValueError when the program gave something else, RuntimeError when it failed."""
    read, write = os.pipe()
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _RUNNER, path, name, str(write)],
            input=json.dumps(inputs), text=True, capture_output=True, pass_fds=[write], timeout=20,
        )  # fmt: skip
        os.close(write)
        with os.fdopen(read) as stream:
            text = stream.read()
    except BaseException:
        os.close(read)
        raise
    if done.returncode:
        raise RuntimeError(done.stderr[-300:])
    answers = json.loads(text)
    if not isinstance(answers, list) or len(answers) != len(inputs):
        raise ValueError(f"expected {len(inputs)} answers")
    return answers
