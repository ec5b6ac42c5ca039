"""The hole closed: the policy answers one question at a time, from another process, and the game is played here."""

import json
import os

PRICE = {"spot": 1.0, "on-demand": 3.0, "none": 0.0}
TRACES = ("110100110010", "001011010111", "000111100100", "111000010101")


def evaluate(path):
    ask, questions = os.pipe()
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(questions)
            serve(path, ask, answer)
        finally:
            os._exit(0)
    os.close(ask)
    os.close(answer)
    try:
        with os.fdopen(answers) as replies, os.fdopen(questions, "w") as asked:
            costs = [played(trace, asked, replies) for trace in TRACES]
    finally:
        os.waitpid(child, 0)
    return {"cost": sum(costs) / len(costs), "combined_score": -sum(costs) / len(costs)}


def serve(path, ask, answer):
    """The program's process: a policy per game, an answer per question."""
    space = {"__name__": "program", "__file__": path}
    with open(path) as file:
        exec(compile(file.read(), path, "exec"), space)
    policy = None
    for line in os.fdopen(ask):
        asked = json.loads(line)
        if asked[0] == 0:
            policy = space["Policy"](24, 16)
        os.write(answer, (json.dumps(policy.step(*asked)) + "\n").encode())


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
