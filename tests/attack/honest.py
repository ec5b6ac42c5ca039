"""Forty honest programs for two small native tasks: renamed, other constants, other tie breaks, other algorithms.

None of them cheats, some are poor, and each is attacked as if it were the seed of its task: a finding about a sound
task is a false alarm, whatever program it was made from.
"""

from __future__ import annotations

from pathlib import Path

from adrs_ray.scaffold import new_folder

PACK = """\
MARGIN = {margin}


def pack(sizes, capacity):
    {order}
    room, bins = [], [0] * len(sizes)
    for item in order:
        fitting = [b for b in range(len(room)) if room[b] - sizes[item] >= MARGIN]
        if fitting:
            best = {choice}
        else:
            best = len(room)
            room.append(capacity)
        room[best] -= sizes[item]
        bins[item] = best
    return bins
"""
ORDERS = (
    "order = range(len(sizes))",
    "order = sorted(range(len(sizes)), key=lambda i: -sizes[i])",
    "order = sorted(range(len(sizes)), key=lambda i: sizes[i])",
    "order = sorted(range(len(sizes)), key=lambda i: (sizes[i] % 3, i))",
)
CHOICES = ("fitting[0]", "fitting[-1]", "min(fitting, key=lambda b: room[b])", "max(fitting, key=lambda b: room[b])")
APART = "def pack(sizes, capacity):\n    return list(range(len(sizes)))\n"
RENAMED = """\
class Bin:
    def __init__(self, capacity):
        self.left = capacity

    def takes(self, size):
        return size <= self.left


def pack(widths, limit):
    chests, where = [], {}
    for position, width in sorted(enumerate(widths), key=lambda pair: (-pair[1], -pair[0])):
        chosen = next((number for number, chest in enumerate(chests) if chest.takes(width)), None)
        if chosen is None:
            chests.append(Bin(limit))
            chosen = len(chests) - 1
        chests[chosen].left -= width
        where[position] = chosen
    return tuple(where[position] for position in range(len(widths)))
"""

QUEUE_FILES = {
    "task.yaml": """\
name: queue
summary: serve customers in an order with little weighted waiting, one choice at a time
entry: [choose]
metrics:
  waiting: {unit: s, direction: min}
limits: {case_timeout_s: 5, memory_mb: 256}
splits: [train]
share_process: an attack in a test judges thousands of programs
""",
    "adapter.py": "def act(program, observation):\n    return program.choose(observation)\n",
    "judge.py": """\
import random

from adrs_ray.task import Case, Combined, InvalidOutput, MalformedOutput


def cases(split):
    made = []
    for seed in (1, 2):
        rng = random.Random(seed)
        jobs = [(rng.randint(1, 9), rng.randint(1, 5)) for _ in range(8)]
        made.append(Case(f"train-{seed}", seed, None, jobs))
    return made


def referee(case):
    left, now, cost = list(case.hidden), 0, 0
    while left:
        chosen = yield {"now": now, "seconds": [job[0] for job in left], "weights": [job[1] for job in left]}
        if type(chosen) is not int:
            raise MalformedOutput(f"expected the position of a customer, got {type(chosen).__name__}")
        if not 0 <= chosen < len(left):
            raise InvalidOutput(f"there is no customer {chosen}")
        seconds, weight = left.pop(chosen)
        now += seconds
        cost += weight * now
    return cost


def score(case, raw):
    return {"waiting": float(raw)}


def combine(results):
    waiting = sum(result.metrics["waiting"] for result in results) / len(results)
    return Combined(1000.0 / waiting, {"waiting": waiting})
""",
}
QUEUE = """\
FACTOR = {factor}


def choose(seen):
    {body}
"""
RULES = (
    "return 0",
    "return len(seen['seconds']) - 1",
    "return min(range(len(seen['seconds'])), key=lambda i: seen['seconds'][i])",
    "return max(range(len(seen['seconds'])), key=lambda i: seen['weights'][i])",
    "return min(range(len(seen['seconds'])), key=lambda i: seen['seconds'][i] - FACTOR * seen['weights'][i])",
    "return min(range(len(seen['seconds'])), key=lambda i: (seen['seconds'][i] / seen['weights'][i], -i))",
)


def pack_programs() -> dict[str, str]:
    """Name -> program: 22 ways to pack."""
    found = {
        f"order {o}, choice {c}": PACK.format(margin=0, order=order, choice=choice)
        for o, order in enumerate(ORDERS)
        for c, choice in enumerate(CHOICES)
    }
    for margin in (1, 5, 20, 60):
        found[f"margin {margin}"] = PACK.format(margin=margin, order=ORDERS[1], choice=CHOICES[2])
    return {**found, "each its own bin": APART, "renamed, with a class and tuples": RENAMED}


def queue_programs() -> dict[str, str]:
    """Name -> program: 18 ways to choose."""
    return {
        f"rule {r}, factor {factor}": QUEUE.format(factor=factor, body=rule)
        for r, rule in enumerate(RULES)
        for factor in (0.5, 1, 3)
    }


def write_pack(parent: Path) -> Path:
    """The task that `adrs task new` writes, with two cases in one process, so that a verdict is cheap."""
    folder = new_folder("pack", parent)
    judge = folder / "judge.py"
    judge.write_text(judge.read_text().replace('CASES = {"train": 8', 'CASES = {"train": 2'))
    yaml = folder / "task.yaml"
    yaml.write_text(yaml.read_text() + "share_process: an attack in a test judges thousands of programs\n")
    return folder


def write_queue(parent: Path) -> Path:
    """An interactive task."""
    folder = parent / "queue"
    folder.mkdir(parents=True)
    for name, text in QUEUE_FILES.items():
        (folder / name).write_text(text)
    (folder / "seed.py").write_text(queue_programs()["rule 2, factor 1"])
    return folder
