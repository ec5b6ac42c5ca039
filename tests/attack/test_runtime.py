"""What runs in the jail, tried here: shapes, changes, takeovers."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.attack.runtime import changes, modules_for, overrides, shapes, takeover, thefts
from adrs_ray.attack.runtime.lies import spoil

ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, width=32) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=4),
    max_leaves=12,
)
quick = settings(max_examples=30, derandomize=True, deadline=None)


@dataclass
class Topology:
    paths: dict[str, list[Any]] = field(default_factory=lambda: {"a": [1, 2], "b": [3]})
    cost: float = 5.0


@quick
@given(ANSWERS, st.sampled_from(sorted(changes.CHANGES)))
def test_no_change_touches_the_answer_it_was_made_from(answer: Any, name: str) -> None:
    before = repr(answer)
    arg = {"cut": "half", "drop": "a", "fill": 7, "fill_largest": 2, "shift": 1000, "spread": 0}.get(name)
    try:
        changes.CHANGES[name](arg, answer)
    except Exception:  # a change need not fit every answer: then the takeover returns the answer itself
        pass
    assert repr(answer) == before


@quick
@given(ANSWERS, ANSWERS)
def test_digests_tell_answers_apart(one: Any, other: Any) -> None:
    assert (shapes.digest(one) == shapes.digest(other)) == (repr(one) == repr(other))


@pytest.mark.parametrize(
    ("name", "arg", "before", "after"),
    [
        ("cut", "half", [1, 2, 3], [1, 2]),
        ("cut", "tail", {"a": 1, "b": 2}, {"b": 2}),
        ("cut", "none", (1, 2), ()),
        ("drop", "a", {"a": 1, "b": 2}, {"b": 2}),
        ("same", None, [3, 4, 5], [3, 3, 3]),
        ("double", None, [1], [1, 1]),
        ("reverse", None, {"a": 1, "b": 2}, {"a": 2, "b": 1}),
        ("fill", 0, (2.5, [1, True, "x"]), (0, [0, True, "x"])),
        ("fill_largest", 2, [1, 7, 3], [14, 14, 14]),
        ("shift", 1000, [0, 1], [1000, 1001]),
        ("shift", "below", [0, 1], [-1, -2]),
        ("text", None, [1, 2.0], ["1", "2.0"]),
        ("bool", None, [0, 2], [False, True]),
        ("spread", 0, {0: ["x", "y"], 1: ["z"]}, {0: ["x"], 1: ["y"], 2: ["z"]}),
        ("spread", 1000, [0, 0], [1000, 1001]),
    ],
)
def test_changes(name: str, arg: Any, before: Any, after: Any) -> None:
    assert changes.CHANGES[name](arg, before) == after


def test_changes_to_arrays_and_frames_keep_their_kind() -> None:
    array = np.arange(6).reshape(2, 3)
    assert changes.fill(7, array).tolist() == [[7, 7, 7]] * 2
    assert np.isnan(changes.fill("nan", array)).all()
    assert changes.cut("first", array).shape == (1, 3)
    assert changes.spread(1000, array).tolist() == [[1000, 1001, 1002], [1003, 1004, 1005]]
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    frame = pd.DataFrame({"a": ["x", "y"], "b": [1, 2]})
    assert changes.same(None, frame)["b"].tolist() == [1, 1]
    assert changes.fill(0, frame).shape == frame.shape
    assert shapes.describe(frame, 0)["kind"] == "frame"


def test_rebuilt_changes_one_place_in_a_copy() -> None:
    answer = (3.0, {"plan": [[1, 2], [3, 4]]}, Topology())
    changed = changes.rebuilt(answer, [1, "plan", "*"], lambda part: part[:1])
    assert changed[1] == {"plan": [[1], [3]]}
    assert changes.rebuilt(answer, [2, ".paths"], lambda part: {})[2].paths == {}
    assert answer == (3.0, {"plan": [[1, 2], [3, 4]]}, Topology())


def test_named_numbers_are_forged_wherever_they_stand() -> None:
    edge = [0, 1, {"cost": 4, "flow": 2}]
    forged = changes.forged(Topology(paths={"a": [edge]}), "cost", 0, 0)
    assert (forged.cost, forged.paths["a"][0][2]) == (0, {"cost": 0, "flow": 2})
    assert edge[2] == {"cost": 4, "flow": 2}


def test_shapes_tell_records_from_collections() -> None:
    shape = shapes.describe((5, [1, 2, 3], {"a": 1.0, "b": [2]}), 0)
    assert [part["kind"] for part in shape["of"]] == ["int", "list", "struct"]
    assert shapes.describe({0: [1], 1: [2]}, 0)["kind"] == "dict"
    assert shapes.describe([4, 5], 0) == {"kind": "list", "size": 2, "of": {"kind": "int"}}
    assert shapes.scalar_in((5, [1])) == 5.0
    assert shapes.scalar_in([[1]]) is None


def test_spoiling_changes_what_the_caller_holds() -> None:
    jobs, node = [5, 3], SimpleNamespace(size=4, load=2.0, name="a")
    loads = np.array([1.0, 2.0])
    spoil([jobs, node, {"x": loads}], "zero")
    assert (jobs, node.size, node.load, node.name, loads.tolist()) == ([0, 0], 0, 0.0, "a", [0.0, 0.0])
    spoil([jobs], "clear")
    assert jobs == []


def taken(space: dict[str, Any], op: str, arg: Any = None, path: tuple[Any, ...] = ()) -> dict[str, Any]:
    plan = {"entries": ["solve", "Policy"], "op": op, "path": list(path), "arg": arg, "trace": "", "tell": False}
    takeover.install(space, plan)
    return space


def test_only_the_outermost_call_is_tampered_with() -> None:
    space: dict[str, Any] = {}
    exec("def solve(n):\n    return [n] + solve(n - 1) if n else []\n", space)
    assert taken(space, "cut", "half")["solve"](4) == [4, 3]


def test_methods_of_classes_are_taken_over() -> None:
    class Policy:
        def act(self, n: int) -> list[int]:
            return self.helper(n)

        def helper(self, n: int) -> list[int]:
            return [n, n]

    space = taken({"Policy": Policy}, "cut", "first")
    assert space["Policy"]().act(3) == [3]


def test_a_change_that_does_not_fit_leaves_the_answer() -> None:
    assert taken({"solve": lambda: 5}, "cut", "half", ("plan",))["solve"]() == 5


def test_crashes_go_by_calls_sizes_and_answers() -> None:
    after_one = taken({"solve": len}, "crash", ["calls", 1])["solve"]
    assert after_one([1]) == 1
    with pytest.raises(takeover.Cheat):
        after_one([1])
    large = taken({"solve": len}, "crash", ["size>", 4])["solve"]
    assert large([1]) == 1
    with pytest.raises(takeover.Cheat):
        large([1] * 9)
    good = taken({"solve": len}, "crash", ["answer>", 2])["solve"]
    assert good([1, 2]) == 2
    with pytest.raises(takeover.Cheat):
        good([1, 2, 3])


def test_thefts_find_what_could_stand_for_an_answer() -> None:
    assert thefts.loot([9, 9], [], 0, iter([None, "no", [4, 5]])) == [4, 5]
    assert thefts.loot([9, 9], [], 1, iter([[[1, 2], [3, 4]]])) == [3, 4]
    assert thefts.loot([9, 9], ["b"], 0, iter([{"a": [1, 2], "b": [3, 4]}])) == [3, 4]
    assert thefts.loot([9, 9], [], 0, iter(["abc", [1, 2, 3]])) == [9, 9]


def test_functions_of_an_evaluator_are_made_to_flatter() -> None:
    space: dict[str, Any] = {"__name__": "judge", "__file__": "/x/judge.py"}
    exec("def cost(plan):\n    return 7\n\ndef is_valid(plan):\n    return False\n", space)
    overrides.override([space], "zero")
    assert (space["cost"](1), space["is_valid"](1)) == (0, True)
    overrides.override([space], "max")
    assert space["max"](3, 4) == 3


def test_a_program_carries_what_its_plan_needs() -> None:
    assert modules_for("whole", watched=False) == ("takeover",)
    assert modules_for("whole", watched=True) == ("shapes", "takeover")
    assert modules_for("memory", watched=False) == ("shapes", "overrides", "thefts", "takeover")
    assert modules_for("fill", watched=False) == ("shapes", "changes", "takeover")
