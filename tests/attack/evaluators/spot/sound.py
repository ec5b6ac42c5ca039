"""The hole closed: the policy answers one question at a time, from another process, and the game is played here."""

import json
import os
import subprocess
import sys

PRICE = {"spot": 1.0, "on-demand": 3.0, "none": 0.0}
TRACES = ("110100110010", "001011010111", "000111100100", "111000010101")
RUNNER = """
import json, os, sys
out = int(sys.argv[2])
space = {"__name__": "program", "__file__": sys.argv[1]}
exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"), space)
policy = None
for line in sys.stdin:
    asked = json.loads(line)
    if asked[0] == 0:
        policy = space['Policy'](24, 16)
    os.write(out, (json.dumps(policy.step(*asked)) + "\\n").encode())
"""


def evaluate(path):
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", RUNNER, path, str(write)],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True, pass_fds=[write],
    )  # fmt: skip
    os.close(write)
    try:
        with os.fdopen(read) as answers, process.stdin as questions:
            costs = [played(trace, questions, answers) for trace in TRACES]
    finally:
        process.kill()
        process.wait()
    return {"cost": sum(costs) / len(costs), "combined_score": -sum(costs) / len(costs)}


def played(trace, questions, answers):
    done, cost = 0, 0.0
    for hour in range(24):
        spot = trace[hour // 2] == "1"
        questions.write(json.dumps([hour, done, spot]) + "\n")
        questions.flush()
        choice = json.loads(answers.readline())
        if choice == "spot" and not spot:
            raise ValueError("there is no spot machine")
        cost += PRICE[choice]
        done += choice != "none"
    if done < 16:
        raise ValueError("late")
    return cost
