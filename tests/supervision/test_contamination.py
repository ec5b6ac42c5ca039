"""Nearness to known programs: copies are found under other names, unrelated programs are far."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.errors import UsageError
from adrs_ray.supervision.contamination import known_programs, nearest
from adrs_ray.task import load_task
from tests.tiny import write_tiny_task

FIRST_FIT = '''\
import heapq as queue


def place(models, gpus):
    """The heaviest first, each where most is free."""
    free = [(-gpu.memory, index) for index, gpu in enumerate(gpus)]
    queue.heapify(free)
    chosen = {}
    for model in sorted(models, key=lambda m: -m.size):
        room, index = queue.heappop(free)
        if -room < model.size:
            return None
        chosen[model.name] = index
        queue.heappush(free, (room + model.size, index))
    return chosen
'''

RENAMED = """\
# EVOLVE-BLOCK-START
import heapq as hq
HELPFUL = 1
def assign(jobs: list, nodes: list) -> dict | None:
    slots = [(-node.memory, n) for n, node in enumerate(nodes)]; hq.heapify(slots)
    result = {}
    for job in sorted(jobs, key=lambda item: -item.size):
        left, n = hq.heappop(slots)
        if -left < job.size:
            return None  # full
        result[job.name] = n
        hq.heappush(slots, (left + job.size, n))
    return result
# EVOLVE-BLOCK-END
"""

UNRELATED = """\
class Router:
    def __init__(self, graph):
        self.graph = graph

    def distances(self, start):
        known, frontier = {start: 0}, [start]
        while frontier:
            here = frontier.pop(0)
            for there, cost in self.graph[here].items():
                if known[here] + cost < known.get(there, 1e9):
                    known[there] = known[here] + cost
                    frontier.append(there)
        return known
"""


def test_a_renamed_copy_is_found_by_its_tree_and_an_unrelated_program_is_far():
    first, second = nearest(RENAMED, {"router": UNRELATED, "first_fit": FIRST_FIT})
    assert (first.name, second.name) == ("first_fit", "router")
    assert first.tree > 0.95
    assert first.shingles < 0.5
    assert second.largest < 0.1


def test_a_copy_is_at_one_by_both():
    (found,) = nearest(FIRST_FIT, {"it": FIRST_FIT})
    assert (found.shingles, found.tree) == (1.0, 1.0)


def test_another_algorithm_of_the_same_words_is_no_copy_by_its_tree():
    greedy = FIRST_FIT.replace("-m.size", "m.name").replace("room + model.size", "room").replace("-room <", "room >")
    (found,) = nearest(greedy, {"first_fit": FIRST_FIT})
    assert found.tree < 0.6


def test_what_programs_take_from_elsewhere_tells_them_apart():
    (found,) = nearest("x = sorted(a.first(b, c))\n", {"k": "x = max(a.second(b, c))\n"})
    assert found.tree == 0
    (found,) = nearest(
        "def f(a, b): return max(a + b, b * 2, a)\n", {"k": "def g(c, d): return max(c + d, d * 2, c)\n"}
    )
    assert found.tree == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f(a, b, c)", "f(a, *b, c)"),
        ("x = {a: b, **c}", "x = {a: b, c: d}"),
        ("a < b < c", "a < b <= c"),
        ("x = [a, b, 1]", "x = [a, b, 1.0]"),
        ("x = [a, b, c]", "x = (a, b, c)"),
        ("def f(a, b, /, c): return a", "def f(a, b, c): return a"),
        ("def f(*, a, b=1): return a", "def f(*, a=1, b): return a"),
        ("x = a[b:c:d]", "x = a[b:c]"),
        ("x = -a + b * c", "x = ~a + b * c"),
    ],
)
def test_different_statements_are_different_subtrees(one, other):
    (found,) = nearest(one, {"other": other, "same": one}, 2)[1:]
    assert found.name == "other"
    assert found.tree < 1


def test_only_evolve_blocks_count():
    frame = "def score(values):\n    return sum(v * 2 for v in values if v > 0) / len(values)\n\n\n"
    blocked = frame + "# EVOLVE-BLOCK-START\n{}# EVOLVE-BLOCK-END\n"
    (found,) = nearest(blocked.format(FIRST_FIT), {"other": blocked.format(UNRELATED)})
    assert found.largest < 0.1
    (found,) = nearest(blocked.format(FIRST_FIT), {"plain": FIRST_FIT})
    assert (found.shingles, found.tree) == (1.0, 1.0)


def test_programs_that_do_not_parse_are_compared_by_their_words():
    broken = FIRST_FIT + "def :\n"
    (found,) = nearest(broken, {"first_fit": FIRST_FIT})
    assert found.shingles > 0.9
    assert found.tree == 0
    assert nearest(FIRST_FIT, {"broken": broken})[0].tree == 0


def test_broken_markers_make_the_whole_program_one_block():
    (found,) = nearest("# EVOLVE-BLOCK-START\n" + FIRST_FIT, {"first_fit": FIRST_FIT})
    assert (found.shingles, found.tree) == (1.0, 1.0)


@pytest.mark.parametrize(
    "source",
    ["", "\0", "x = '\ud800'", "x=" + "a+" * 900 + "a", "x=" + "-" * 5000 + "1", "x = 0x" + "f" * 5000, "(" * 500],
    ids=["empty", "null", "surrogate", "deep", "deeper", "integer", "parentheses"],
)
def test_odd_programs_are_no_error(source):
    (found,) = nearest(source, {"k": FIRST_FIT})
    assert found.largest < 0.1
    assert nearest(source, {"k": source})[0].shingles == pytest.approx(1)


def test_many_evolve_blocks_cost_no_more_than_their_lines():
    many = "# EVOLVE-BLOCK-START\nx = f(1) + g(2)\n# EVOLVE-BLOCK-END\n" * 1500
    assert nearest(many, {"many": many})[0].tree == 1


def test_the_nearest_come_first_by_the_larger_figure_then_by_name():
    known = {"b": FIRST_FIT, "a": FIRST_FIT, "far": UNRELATED, "renamed": RENAMED}
    assert [found.name for found in nearest(FIRST_FIT, known)] == ["a", "b", "renamed"]
    assert [found.name for found in nearest(FIRST_FIT, known, 1)] == ["a"]
    assert nearest(FIRST_FIT, {}) == ()


snippets = st.lists(
    st.sampled_from([*FIRST_FIT.splitlines(), *UNRELATED.splitlines(), "# EVOLVE-BLOCK-START", "# EVOLVE-BLOCK-END"]),
    max_size=12,
).map("\n".join)


@given(snippets | st.text(max_size=60), snippets | st.text(max_size=60))
def test_nearness_is_symmetric_and_between_nothing_and_a_copy(one, other):
    (there,), (back,) = nearest(one, {"k": other}), nearest(other, {"k": one})
    assert there == back
    assert 0 <= there.shingles <= 1
    assert 0 <= there.tree <= 1


def test_baselines_and_the_users_folder_are_known(tmp_path):
    folder = write_tiny_task(tmp_path)
    (folder / "baselines").mkdir()
    (folder / "baselines" / "plain.py").write_text("def answer(limit):\n    return limit\n")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "plain.py").write_text(FIRST_FIT)
    (tmp_path / "mine" / "notes.txt").write_text("no program")
    task = load_task(folder)
    assert list(known_programs(task, None)) == ["plain"]
    assert known_programs(task, str(tmp_path / "mine"))["known/plain.py"] == FIRST_FIT


def test_a_folder_that_cannot_be_used_is_named_in_one_line(tmp_path):
    task = load_task(write_tiny_task(tmp_path))
    mine = tmp_path / "mine"

    def problem() -> str:
        with pytest.raises(UsageError) as raised:
            known_programs(task, str(mine))
        assert "\n" not in str(raised.value)
        return str(raised.value)

    assert "mine' is no folder" in problem()
    mine.mkdir()
    assert "holds no *.py" in problem()
    (mine / "odd.py").write_bytes(b"\xff\xfe")
    assert "cannot read program" in problem()
    (mine / "odd.py").write_text("x = 1\n" * 20_000)
    assert "odd.py has 120000 characters" in problem()
