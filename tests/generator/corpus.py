"""Small programs of many shapes, for the generator's property tests."""

from __future__ import annotations

TYPICAL = '''"""Place jobs on machines."""
import heapq
import math

LIMIT = 12


# EVOLVE-BLOCK-START
def weight(job, alpha=0.5):
    """How urgent a job is."""
    # longer jobs first
    return job["size"] * alpha + job["deadline"] / (1 + job["slack"])


def inverse(job, alpha=0.25):
    return alpha / (job["size"] + 1.0)


class Greedy:
    """Least loaded machine first."""

    def __init__(self, machines, bias=3):
        self.machines = machines
        self.bias = bias
        self.heap = [(0.0, m) for m in range(machines)]

    def cost(self, load, size):
        return load + math.sqrt(size)

    def waste(self, load, size):
        return load - size * 0.5

    def place(self, job):
        load, machine = heapq.heappop(self.heap)
        if load > 10 and job["size"] < self.bias:
            load = self.cost(load, job["size"])
        elif job["size"] == 0:
            load += 1
        else:
            load += job["size"] * 1.25  # the usual case
        heapq.heappush(self.heap, (load, machine))
        return machine


def schedule(jobs, machines, *, tight=False):
    order = sorted(jobs, key=lambda job: weight(job, 0.7), reverse=True)
    greedy = Greedy(machines)
    result = {}
    total = 0
    for index, job in enumerate(order):
        machine = greedy.place(job)
        result[job["id"]] = machine
        total = total + max(job["size"], 1)
        if index % 7 == 3 or total > 1000:
            total = min(total, 500)
        for other in range(1, machines):
            if other != machine and total < other:
                total += other * 2
    for job in order[:5]:
        result[job["id"]] = int(weight(job, 1.5)) % machines
    spans = [sum(j["size"] for j in jobs if result[j["id"]] == m) for m in range(machines)]
    worst = max(spans, default=0)
    if worst > LIMIT or tight is True:
        result["note"] = f"spread {worst - min(spans):.2f}"
    return result
# EVOLVE-BLOCK-END


def main():
    print(schedule([], 3))
'''

SIBLING = (
    TYPICAL.replace('job["size"] * 1.25', 'job["size"] * 1.75 + 2')
    .replace("total = min(total, 500)", "total -= 3\n            total = min(total, 640)")
    .replace("return alpha / (job", "alpha *= 2\n    return alpha / (job")
    .replace("greedy.place(job)\n", "greedy.place(job)  # as it comes\n")
)

SEVERAL_BLOCKS = """import numpy as np

# EVOLVE-BLOCK-START tuning
ALPHA = 0.125
STEPS = 16
MODES = ("near", "far")
# EVOLVE-BLOCK-END

FIXED = 3


def run(xs):
    best = None
    # EVOLVE-BLOCK-START
    for i in range(len(xs) - 1):
        a, b = xs[i], xs[i + 1]
        if best is None or a - b > best:
            best = a - b
    # EVOLVE-BLOCK-END
    if best is None:
        best = FIXED
    return best * ALPHA


# EVOLVE-BLOCK-START
def smooth(xs):
    out = np.zeros(len(xs))
    out[1:] = np.maximum(xs[1:], xs[:-1]) * ALPHA
    return out[::2]
# EVOLVE-BLOCK-END
"""

MODERN = """from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Point:
    x: float
    y: float = 0.5

    @property
    def norm(self) -> float:
        return (self.x**2 + self.y**2) ** 0.5

    @staticmethod
    def mean(a: Point, b: Point) -> Point:
        return Point((a.x + b.x) / 2, (a.y + b.y) / 2)


@functools.lru_cache(
    maxsize=128,
)
def depth(n: int) -> int:
    '''Levels of
    a tree.
    '''
    return 0 if n <= 1 else 1 + depth(n // 2)


async def gather(urls, *, limit: int = 4, **options):
    gate = asyncio.Semaphore(limit)

    async def one(url):
        async with gate:
            await asyncio.sleep(0.01)
            return url, len(url) + options.get("extra", 0)

    results = [r async for r in stream(urls)]
    return dict(await asyncio.gather(*(one(u) for u in urls if u not in results)))


async def stream(items):
    for item in items:
        if item:
            yield item


def classify(event):
    match event:
        case {"kind": "job", "size": size, **rest} if size > 10 and not rest:
            label = "large"
        case {"kind": "job", "size": size}:
            label = "small" if size < 3 else "medium"
        case [first, *others]:
            label = f"{first!r} and {len(others) + 1} more"
        case Point(x=0):
            label = 'origin'
        case _:
            label = None
    while (size := len(label or "")) > 20:
        label = label[: size - 1]
    return label


def counter():
    count = 0

    def step(by=1):
        nonlocal count
        count += by
        return count

    return step


if __name__ == "__main__":
    print(classify({"kind": "job", "size": 3}))
"""

AWKWARD = '''x = 1; y = 2.5; z = x + y
def f(a, b): return a * b - 1
if x > 0: y = 3
else: y = 4; z = 5
text = """first 1
  second 2  # EVOLVE me not
"""; w = (
    1 +  # one
    2
)
total = x + \\
    y * 3
def g(a):
\tif a:
\t\tb = [i for i in range(10) if i % 2 == 0]  # tabs
\t\tb.append(a)
\t\treturn b
\ttry:
\t\tc = 1 / a
\texcept ZeroDivisionError as error:
\t\tc = str(error)
\telse:
\t\tpass
\tfinally:
\t\ta = 7
\treturn c, a
ü = "größe"; größe = len(ü) + 1; ß = größe > 3 and x < 2
def h(v):
    return f"""{v + 1:>{10}} {f'{v * 2}'}
  done""" if v else -1
lam = lambda q, k=2: q ** k + 1
del w; big = 0x1FFFFFFFFFFFFFFFFFFFFFFFFFFFFF; s = slice(1, -2)'''

CRLF = TYPICAL.replace("\n", "\r\n")
TABS = SEVERAL_BLOCKS.replace("    ", "\t").replace("import numpy", "# größe \u2028 \x0c 数\nimport numpy")
NO_NEWLINE = "GAIN = 1.5\n\n\ndef act(state):\n    # keep\n    return state['x'] * GAIN - 3"

PROGRAMS = {
    "typical": TYPICAL,
    "sibling": SIBLING,
    "several_blocks": SEVERAL_BLOCKS,
    "modern": MODERN,
    "awkward": AWKWARD,
    "crlf": CRLF,
    "tabs": TABS,
    "no_newline": NO_NEWLINE,
}

HOPELESS = {
    "empty": "",
    "docstring": '"""Nothing here."""\n',
    "imports": "import os\nfrom sys import path\n",
    "broken": "def f(:\n",
    "null": "x = 1\0",
    "surrogate": "x = '\ud800'",
    "markers": "# EVOLVE-BLOCK-START\nx = 1\n",
    "deep": "x = " + "-" * 5000 + "1\n",
    "sum": "x = " + "+".join(["a"] * 3000) + "\n",
    "parentheses": "(" * 500 + "1" + ")" * 500,
    "outside": "x = 1\n# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-END\n",
}
"""Sources that no mutation can work on; each must be refused politely."""
