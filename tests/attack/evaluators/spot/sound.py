"""The hole closed: the policy answers one question at a time, from another process, and the game is played here."""

import json
import os
import random
import subprocess
import sys

PRICE = {"spot": 1.0, "on-demand": 3.0, "none": 0.0}
RUNNER = """
import importlib.util, json, os, sys
out = int(sys.argv[2])
spec = importlib.util.spec_from_file_location("program", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
policy = None
for line in sys.stdin:
    asked = json.loads(line)
    if asked[0] == 0:
        policy = module.Policy(24, 16)
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
            costs = [played(seed, questions, answers) for seed in range(4)]
    finally:
        process.kill()
        process.wait()
    return {"cost": sum(costs) / len(costs), "combined_score": -sum(costs) / len(costs)}


def played(seed, questions, answers):
    rng = random.Random(seed)
    done, cost = 0, 0.0
    for hour in range(24):
        spot = rng.random() < 0.5
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
