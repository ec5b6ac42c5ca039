"""What is refused before it runs, and which programs repeat another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.bundle import join
from adrs_ray.candidate import Failure, FailureKind
from adrs_ray.generator.screening import NearDuplicates, screen
from adrs_ray.program import shingles, similarity
from adrs_ray.prompt import TaskBrief
from tests.generator.corpus import TYPICAL

SEED = "import math\n# EVOLVE-BLOCK-START\ndef solve(x):\n    return x\n# EVOLVE-BLOCK-END\nLAST = 1\n"


def brief(seed: str = SEED, entry: tuple[str, ...] = ("solve",), banned: tuple[str, ...] = ()) -> TaskBrief:
    return TaskBrief("tiny", "", "", entry, seed, banned_imports=banned)


def refused(source: str, task: TaskBrief, parent: str | None = None) -> tuple[FailureKind, str]:
    failure = screen(source, task, parent)
    assert isinstance(failure, Failure), source
    assert "\n" not in failure.detail
    assert 0 < len(failure.detail) <= 300
    return failure.kind, failure.detail


def test_the_seed_and_a_change_inside_its_block_pass():
    assert screen(SEED, brief(), None) is None
    assert screen(SEED.replace("return x", "return 2 * x"), brief(), SEED) is None


def test_syntax_goes_first():
    assert refused("import os\ndef solve(:\n", brief(banned=("os",))) == (FailureKind.SYNTAX, "line 2: invalid syntax")
    kind, detail = refused("# EVOLVE-BLOCK-START\n", brief())
    assert kind == FailureKind.SYNTAX
    assert "without EVOLVE-BLOCK-END" in detail
    assert refused("x" * 200_000, brief())[0] == FailureKind.SYNTAX


@pytest.mark.parametrize(
    ("source", "told"),
    [
        (SEED.replace("math", "os"), "line 1 lies outside"),
        (SEED.replace("LAST = 1", "LAST = 2"), "line 6 lies outside"),
        (SEED + "more = 1\n", "line 7 lies outside"),
        (SEED.replace("LAST = 1\n", ""), "line 6 lies outside"),
        (SEED + "# EVOLVE-BLOCK-START\n# EVOLVE-BLOCK-END\n", "2 evolve blocks, expected 1"),
        (SEED.replace("\n", "\r\n"), "line 1 lies outside"),
        ("def solve(x):\n    return x\n", "line 1 lies outside"),
    ],
)
def test_what_stands_outside_the_blocks_may_not_change(source, told):
    kind, detail = refused(source, brief())
    assert kind == FailureKind.INTERFACE
    assert told in detail


def test_the_parent_says_what_stands_outside_when_there_is_one():
    warm = SEED.replace("LAST = 1", "LAST = 7")
    assert screen(warm.replace("return x", "return 3"), brief(), warm) is None
    assert refused(SEED, brief(), warm)[1].startswith("line 6 lies outside")
    assert screen(warm, brief(), None) is not None


def test_a_seed_without_markers_leaves_all_open():
    assert screen("def solve(y):\n    return 1\n", brief("def solve(x):\n    return x\n"), None) is None


@pytest.mark.parametrize(
    "source",
    [
        "def solve(x): pass",
        "async def solve(x): pass",
        "class solve: pass",
        "solve = lambda x: x",
        "a, (solve, b) = 1, (2, 3)",
        "solve: object = print",
        "from m import solve",
        "from m import other as solve",
        "import solve.inner",
        "from m import *",
        "if 1:\n    pass\nelse:\n    try:\n        pass\n    except E:\n        def solve(x): pass",
        "with a as solve: pass",
        "for solve in []: pass",
        "match 1:\n    case 2:\n        solve = 3",
        "if (solve := 1): pass",
        "def answer(): pass",
    ],
)
def test_an_entry_may_be_bound_in_any_way(source):
    assert screen(source, brief("", ("solve", "answer")), None) is None


@pytest.mark.parametrize(
    "source",
    [
        "",
        "solve",
        "def f():\n    def solve(): pass",
        "class C:\n    def solve(self): pass",
        "f = lambda: (solve := 1)",
        "from solve import m",
        "x.solve = 1",
    ],
)
def test_a_program_without_the_entry_is_refused(source):
    told = refused(source, brief("", ("solve", "answer")))
    assert told == (FailureKind.INTERFACE, "the program must define solve or answer (a function or class)")
    assert screen(source, brief("", ()), None) is None


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "import sys, os",
        "import os.path as p",
        "from os import path",
        "from os.path import join",
        "from concurrent import futures",
        "from concurrent.futures import wait",
        "import concurrent.futures.thread",
        "__import__('os')",
        "importlib.import_module('os.path')",
        "import_module(name='os')",
        "f = lambda: __import__('os')",
    ],
)
def test_banned_modules_are_found_with_their_line(line):
    source = f"import math\ndef solve():\n    {line}\n"
    kind, detail = refused(source, brief("", banned=("socket", "concurrent.futures", "os")))
    assert kind == FailureKind.INTERFACE
    assert detail.startswith("line 3 imports ")
    assert screen(source, brief(""), None) is None


@pytest.mark.parametrize(
    "line",
    [
        "import oscar",
        "from . import os",
        "from math import os",
        "import concurrent",
        "os = 1",
        "__import__(n)",
        "f('os')",
    ],
)
def test_other_modules_pass(line):
    assert screen(f"def solve():\n    {line}\n", brief("", banned=("os", "concurrent.futures")), None) is None


def test_files_are_screened_one_by_one():
    files = {
        "main.py": "import policy\ndef solve(x):\n    return policy.f(x)\n",
        "policy.py": "def f(x):\n    return x\n",
    }
    seed = join(files)
    task = brief(seed, banned=("os",))
    future = files | {"policy.py": "from __future__ import annotations\ndef f(x):\n    return 2\n"}
    assert screen(seed, task, None) is None
    assert screen(join(future), task, seed) is None
    assert refused(join(files | {"policy.py": "x = = 1\n"}), task) == (
        FailureKind.SYNTAX,
        "policy.py: line 1: invalid syntax",
    )
    assert refused(join(files | {"policy.py": "\nimport os\n"}), task)[1].startswith("policy.py line 2 imports os")
    assert "must define solve" in refused(join({"main.py": "", "policy.py": files["main.py"]}), task)[1]
    told = refused(join(files | {"more.py": ""}), task)[1]
    assert told == "its files are main.py, policy.py, more.py, expected main.py, policy.py"
    assert refused(files["main.py"], task)[1] == "its files are program.py, expected main.py, policy.py"
    assert refused("# ADRS-FILE: ../x.py\n", task)[0] == FailureKind.SYNTAX


@given(st.text(alphabet="#ADRS-FILE: EVOLV-BCKT\nimportsx.py_()'=", max_size=60), st.sampled_from([SEED, "", None]))
def test_no_source_raises(source, parent):
    for text in (source, f"# ADRS-FILE: a.py\n{source}", f"# EVOLVE-BLOCK-START\n{source}\n# EVOLVE-BLOCK-END\n"):
        failure = screen(text, brief(banned=("s",)), parent)
        assert failure is None or failure.kind in (FailureKind.SYNTAX, FailureKind.INTERFACE)


def test_deep_nesting_is_refused_or_passes():
    for text in ("solve = " + "(" * 5000 + ")" * 5000, "solve = " + "-" * 50_000 + "1", "solve = 1\n" + "x = [\n" * 90):
        failure = screen(text, brief(""), None)
        assert failure is None or failure.kind == FailureKind.SYNTAX


# Near duplicates


def test_a_program_is_its_own_nearest():
    known = NearDuplicates(0.9)
    assert known.nearest(TYPICAL) is None
    known.add("a", TYPICAL)
    known.add("b", TYPICAL.replace("1.25", "1.5"))
    assert known.nearest(TYPICAL) == ("a", 1.0)
    assert known.nearest(TYPICAL.replace("1.25", "1.5") + "# a remark\n") == ("b", 1.0)
    assert known.nearest("x = 1\n") is None
    assert len(known) == 2


def test_what_is_forgotten_is_not_found():
    known = NearDuplicates(0.9)
    known.add("a", TYPICAL)
    known.add("b", TYPICAL)
    assert known.nearest(TYPICAL) == ("a", 1.0)
    known.forget("a")
    known.forget("a")
    assert known.nearest(TYPICAL) == ("b", 1.0)


def test_only_what_stands_in_the_blocks_is_compared():
    known = NearDuplicates(0.99)
    known.add("a", SEED)
    assert known.nearest(SEED.replace("LAST = 1", "OTHER = [2, 3, 4, 5]")) == ("a", 1.0)
    assert known.nearest(SEED.replace("return x", "return 1 / x")) is None


def test_broken_markers_resemble_nothing():
    known = NearDuplicates(0.5 + 1e-9)
    known.add("a", "# EVOLVE-BLOCK-START\nx = 1\n")
    assert len(known) == 0
    assert known.nearest("# EVOLVE-BLOCK-START\nx = 1\n") is None


PROGRAMS = st.lists(st.sampled_from(["a = 1\n", "b = a\n", "c(a, b)\n", "a += 2\n"]), max_size=8).map("".join)


@given(st.lists(PROGRAMS, max_size=6), PROGRAMS, st.floats(0.5, 1.0))
def test_the_quick_refusals_lose_nothing(known, source, threshold):
    duplicates = NearDuplicates(threshold)
    for number, text in enumerate(known):
        duplicates.add(str(number), text)
    alike = [similarity(shingles(source), shingles(text)) for text in known]
    best = max(alike, default=0.0)
    wanted = (str(alike.index(best)), best) if alike and best >= threshold else None
    assert duplicates.nearest(source) == wanted
