"""Interfaces found in folders, and the cheats made from them."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import numpy as np

from adrs_ray.attack.battery import Family, Maker, Probe
from adrs_ray.attack.interface import Interface, appended, interface_of
from adrs_ray.attack.runtime import shapes
from adrs_ray.task import load_task
from tests.attack.folders import write_folder
from tests.tiny import write_tiny_task


def ideas(answer: Any, sizes: tuple[int, ...] = (3, 9), interactive: bool = False) -> dict[Family, list[str]]:
    probe = Probe(shapes.describe(answer, 0), sizes, (), interactive)
    maker = Maker("def solve():\n    return 1\n", Interface(("solve",), ("score",)), traced=True)
    found: dict[Family, list[str]] = {}
    for cheat in maker.battery(probe, 1000, np.random.default_rng(0)):
        ast.parse(cheat.source)
        found.setdefault(cheat.family, []).append(cheat.idea)
    return found


def test_entries_are_what_the_evaluator_calls(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "spot", "printed")
    task = load_task(folder)
    assert interface_of(task, task.seed_source).entries == ("Policy",)
    assert "mean" in interface_of(task, task.seed_source).labels
    native = load_task(write_tiny_task(tmp_path))
    assert interface_of(native, native.seed_source).entries == ("answer",)


def test_where_nobody_names_an_entry_it_is_what_the_program_does_not_call(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, "scheduling", "blind")
    source = "def helper(x):\n    return x\n\n\ndef main():\n    return helper(1)\n"
    assert interface_of(load_task(folder), source).entries == ("main",)


def test_a_program_that_runs_itself_is_taken_over_before_it_does() -> None:
    source = "def f():\n    return 1\n\nif __name__ == '__main__':\n    print(f())\n"
    assert appended(source, "TAKEN = 1\n") == source.replace("if __name__", "TAKEN = 1\nif __name__")
    assert appended("x = 1", "y = 2\n") == "x = 1\ny = 2\n"


def test_every_family_is_tried_on_a_plan_with_a_figure() -> None:
    found = ideas((9, [0, 1, 0]))
    assert found.keys() == set(Family) - {Family.INCONSISTENT, Family.MUTANT}
    assert any("answer[0] = -1e+09" in idea for idea in found[Family.METRIC])
    assert any(idea.startswith("answer[1]: the first half") for idea in found[Family.COVERAGE])


def test_containers_side_by_side_may_be_made_inconsistent() -> None:
    assert Family.INCONSISTENT in ideas(([0, 1], [1, 1]))


def test_moves_of_a_game_are_no_constants_to_complain_about() -> None:
    moves = ideas(1, interactive=True)
    assert not any("every number" in idea for idea in moves[Family.CONSTANT])
    assert not any("= 0" in idea for idea in moves[Family.METRIC])


def test_named_figures_further_inside_are_forged() -> None:
    found = ideas({"a": [[0, 1, {"cost": 3.0, "note": "x"}]], "b": [[1, 2, {"cost": 1.0, "note": "y"}]]})
    assert any("every cost" in idea for idea in found[Family.METRIC])


def test_a_smaller_battery_still_tries_every_family_and_is_the_same_again() -> None:
    probe = Probe(shapes.describe((9, [0, 1, 0]), 0), (3, 9), (), False)
    maker = Maker("def solve():\n    return 1\n", Interface(("solve",), ("score",)), traced=True)
    batteries = [[c.idea for c in maker.battery(probe, 20, np.random.default_rng(seed))] for seed in (1, 1, 2)]
    assert batteries[0] == batteries[1] != batteries[2]
    few = maker.battery(probe, 20, np.random.default_rng(1))
    assert len(few) == 20
    assert {cheat.family for cheat in few} == set(Family) - {Family.INCONSISTENT, Family.MUTANT}
