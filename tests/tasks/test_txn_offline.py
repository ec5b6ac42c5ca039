"""The task txn_offline in this process: programs of both styles, what the judge refuses, splits, scores."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrs_ray.private_import import import_private
from adrs_ray.task import (
    SPLITS,
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    Task,
    UsageError,
    load_task,
    repository_root,
)

TASK = load_task("txn_offline")
PAPER = load_task("txn_offline", scoring="paper")
ADAPTER = import_private(TASK.folder, "adapter")

GENERATED_TEXTS = {
    "train": "1c4b45097a48a394",
    "validation": "ef6f45d3ec894d08",
    "test_stand_in": "826df66bc40a7aea",
    "stress": "705a960a7805e195",
}
"""Digests of the generated splits."""

PUBLIC_STYLE = """
import time
from txn_simulator import Workload
from workloads import WORKLOAD_1, WORKLOAD_2, WORKLOAD_3

SIZES = [Workload(w).num_txns for w in (WORKLOAD_1, WORKLOAD_2, WORKLOAD_3)]

def get_random_costs():
    start = time.time()
    costs, schedules = [], []
    for workload in (Workload(WORKLOAD_1), Workload(WORKLOAD_2), Workload(WORKLOAD_3)):
        schedule = list(reversed(range(workload.num_txns)))
        costs.append(workload.get_opt_seq_cost(schedule))
        schedules.append(schedule)
    assert SIZES == [len(s) for s in schedules]
    return sum(costs), schedules, time.time() - start
"""


PUBLIC_STYLE_WITH_BOTH = """
import random
import time

from txn_simulator import Workload
from workloads import WORKLOAD_1, WORKLOAD_2, WORKLOAD_3


def get_best_schedule(workload, num_seqs):
    def cost(order):
        return workload.get_opt_seq_cost(order)

    order = sorted(range(workload.num_txns), key=lambda i: -i)
    return cost(order), order


def get_random_costs():
    start_time = time.time()
    workload_size = 100
    workload = Workload(WORKLOAD_1)
    makespan1, schedule1 = get_best_schedule(workload, 10)
    cost1 = workload.get_opt_seq_cost(schedule1)
    workload2 = Workload(WORKLOAD_2)
    makespan2, schedule2 = get_best_schedule(workload2, 10)
    workload3 = Workload(WORKLOAD_3)
    makespan3, schedule3 = get_best_schedule(workload3, 10)
    print(cost1, makespan2, makespan3)
    return cost1 + makespan2 + makespan3, [schedule1, schedule2, schedule3], time.time() - start_time


if __name__ == "__main__":
    makespan, schedule, seconds = get_random_costs()
    print(f"Makespan: {makespan}, Time: {seconds}")
"""

PUBLIC_STYLE_WITH_CLASS = """
import json
import numpy as np
import txn_simulator
import workloads

class Backwards(txn_simulator.Workload):
    def schedule(self):
        writes = [sum(op[0] == "w" and op[2] <= op[3] for op in txn) for txn in self.txns]
        assert len(writes) == self.num_txns
        return np.arange(self.num_txns)[::-1]

def get_random_costs():
    batches = [Backwards(json.dumps(getattr(workloads, f"WORKLOAD_{i}"))) for i in (1, 2, 3)]
    schedules = [batch.schedule() for batch in batches]
    costs = [batch.get_opt_seq_cost(list(schedule)) for batch, schedule in zip(batches, schedules)]
    return np.sum(costs), schedules, 0.0
"""


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "adrs-ray" / "data"


def run(source: str, case: Case) -> dict[str, Any]:
    random.seed(case.seed)
    np.random.seed(case.seed)
    return ADAPTER.run(ADAPTER.load(source), case.public)


def judged(task: Task, source: str, split: str) -> Combined:
    results = [CaseResult(c.id, task.judge.score(c, run(source, c)), 0.25, 0.5) for c in task.judge.cases(split)]
    return task.judge.combine(results)


def answering(expression: str) -> str:
    """A program whose schedule is `expression` of n."""
    return f"def get_best_schedule(workload, num_seqs):\n    n = workload.num_txns\n    return 0, {expression}\n"


@pytest.mark.parametrize("split", ["train", "validation"])
def test_seeds_stand_between_the_trivial_and_the_best_human(split: str) -> None:
    names = (TASK.spec.trivial, "weak", "medium", "strong", TASK.spec.best_human)
    trivial, weak, medium, strong, human = (score_of(name, split) for name in names)
    assert 0.0 == trivial < weak < medium < strong < human < 1.0
    assert human - strong > 0.05
    assert score_of("random_best_of_k", split) < 0.0


def score_of(name: str | None, split: str) -> float:
    return judged(TASK, TASK.programs()[str(name)].read_text(), split).score


def test_stress_is_judged_at_all_sizes() -> None:
    assert score_of("arrival_order", "stress") == 0.0 < score_of("weak", "stress") < 1.0


def test_names_of_the_task_are_those_of_its_programs() -> None:
    assert set(TASK.baselines()) == {"arrival_order", "full_greedy", "paper_offline", "random_best_of_k", "smf"}
    assert TASK.seed_source == TASK.seeds()["medium"].read_text() == TASK.baselines()["smf"].read_text()
    assert set(TASK.hints()) == {"weak", "medium", "strong"}


def test_public_baselines_have_the_recorded_scores() -> None:
    needs_the_public_workloads()
    greedy = judged(TASK, TASK.baselines()["full_greedy"].read_text(), "test")
    names = ("makespan_1", "makespan_2", "makespan_3", "makespan", "arrival_makespan", "leaderboard_coverage")
    assert [greedy.metrics[name] for name in names] == [228, 55, 39, 322, 537, 100]
    assert greedy.metrics["lower_bound"] == 127 + 33 + 25
    assert greedy.metrics["leaderboard_formula"] == pytest.approx(100 * (537 - 322) / (537 - (46 + 0.1 * (537 - 46))))


def needs_the_public_workloads() -> None:
    if TASK.split_note("test"):
        pytest.skip("needs txn_workloads.json: set ADRS_DATA_DIR or run `adrs data pull txn_offline`")


def test_a_tenth_of_the_papers_search_beats_smf() -> None:
    case = TASK.judge.cases("test")[0]
    program = TASK.baselines()["paper_offline"].read_text()
    shorter = program.replace("PLACED = 40_000_000", "PLACED = 4_000_000")
    assert shorter != program
    searched = TASK.judge.score(case, run(shorter, case))
    greedy = TASK.judge.score(case, run(TASK.baselines()["full_greedy"].read_text(), case))
    assert searched["lower_bound"] <= searched["makespan"] < 0.9 * greedy["makespan"]


def test_public_scores_are_the_recorded_ones() -> None:
    needs_the_public_workloads()
    greedy = judged(PAPER, TASK.baselines()["full_greedy"].read_text(), "test")
    assert greedy.score == pytest.approx(3095.98, abs=0.005)
    assert greedy.metrics["validity"] == 1.0
    arrival = judged(PAPER, TASK.baselines()["arrival_order"].read_text(), "test")
    assert arrival.score == pytest.approx(1e6 / (1 + 452 + 38 + 47))


@pytest.mark.parametrize(
    ("source", "score", "validity"),
    [
        ("def get_random_costs():\n    return 0, [[0]], 0.0", 1e6, 1.0),
        ("def get_random_costs():\n    return 99, [list(range(100))] * 3, 0.0", 1e4, 1.0),
        ("def get_random_costs():\n    return 99, [list(range(50)), [], [7]], 0.0", 1e4, 1.0),
        ("def get_random_costs():\n    return 99.0, [[0, 0]], 0.0", 1e4, 0.0),
        ("def get_random_costs():\n    return 99, [[100]], 0.0", 1e4, 0.0),
        ("def get_random_costs():\n    return 99, ['all'], 0.0", 1e4, 0.0),
        (PUBLIC_STYLE.replace("sum(costs)", "-5"), -250000.0, 1.0),
        ("def get_best_schedule(workload, num_seqs):\n    return 33, [5]", 1e4, 1.0),
    ],
)
def test_the_public_rules_believe_what_is_reported(source: str, score: float, validity: float) -> None:
    public = judged(PAPER, source, "test")
    assert public.score == pytest.approx(score)
    assert public.metrics["validity"] == validity
    assert "score_bound" not in public.metrics


@pytest.mark.parametrize(
    ("reported", "message"), [("'0'", "expected a number"), ("float('nan')", "expected a number"), ("-1", "no value")]
)
def test_the_public_rules_need_a_number(reported: str, message: str) -> None:
    with pytest.raises(MalformedOutput, match=message):
        judged(PAPER, f"def get_random_costs():\n    return {reported}, [[0]], 0.0", "test")


def test_the_public_rules_have_one_split() -> None:
    with pytest.raises(UsageError, match="split test only, not train"):
        PAPER.judge.cases("train")


def test_public_style_programs_run_unchanged() -> None:
    for case in TASK.judge.cases("train")[:2]:
        schedules = run(answering("list(reversed(range(n)))"), case)["schedules"]
        for program in (PUBLIC_STYLE, PUBLIC_STYLE_WITH_BOTH, PUBLIC_STYLE_WITH_CLASS):
            answer = run(program, case)
            assert answer["schedules"] == schedules
            makespans = (w.get_opt_seq_cost(s) for w, s in zip(case.hidden.workloads, schedules, strict=True))
            assert answer["reported"] == sum(makespans)
    assert "txn_simulator" not in sys.modules
    assert "workloads" not in sys.modules


def test_a_program_with_both_entries_is_run_as_the_public_evaluator_does() -> None:
    case = TASK.judge.cases("train")[0]
    assert run(PUBLIC_STYLE + answering("[0]"), case) == run(PUBLIC_STYLE, case)


def test_a_program_without_entry_says_so() -> None:
    with pytest.raises(ADAPTER.InterfaceError, match="get_best_schedule"):
        run("get_best_schedule = 3", TASK.judge.cases("train")[0])


def test_a_syntax_error_comes_from_load() -> None:
    with pytest.raises(SyntaxError):
        ADAPTER.load("def f(:")


def test_what_a_candidate_does_to_its_workload_changes_no_cost() -> None:
    source = (
        "def get_best_schedule(workload, num_seqs):\n"
        "    before = workload.get_opt_seq_cost(range(workload.num_txns))\n"
        "    workload.txns.clear()\n"
        "    assert before == workload.get_opt_seq_cost(range(100))\n"
        "    return 0, list(range(100))\n"
    )
    case = TASK.judge.cases("train")[0]
    assert TASK.judge.score(case, run(source, case))["improvement"] == 0.0


@pytest.mark.parametrize(
    "expression", ["tuple(range(n))", "range(n)", "__import__('numpy').arange(n)", "[*__import__('numpy').arange(n)]"]
)
def test_schedules_that_are_accepted(expression: str) -> None:
    case = TASK.judge.cases("train")[0]
    assert TASK.judge.score(case, run(answering(expression), case))["improvement"] == 0.0


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("list(range(n - 1))", "workload 1: 99 of 100 transactions scheduled, 99 is missing"),
        ("[]", "workload 1: 0 of 100 transactions scheduled, 0 is missing"),
        ("[*range(n - 1), 0]", r"workload 1: schedule\[99\] names transaction 0 a second time"),
        ("[*range(n), 5]", r"schedule\[100\] names transaction 5 a second time"),
        ("[*range(n), n]", r"schedule\[100\] is 100, expected an id in 0\.\.99"),
        ("[-1, *range(1, n)]", r"schedule\[0\] is -1, expected an id"),
        ("[False, True, *range(2, n)]", r"schedule\[0\] is False \(bool\), expected an int"),
        ("[float(i) for i in range(n)]", r"schedule\[0\] is 0\.0 \(float\), expected an int"),
        ("__import__('numpy').arange(n) * 1.0", r"is 0\.0 \(float\), expected an int"),
        ("[str(i) for i in range(n)]", "expected an int"),
        ("[float('nan')] * n", "expected an int"),
        ("[[i] for i in range(n)]", "expected an int"),
    ],
)
def test_schedules_that_are_no_permutation_are_invalid(expression: str, message: str) -> None:
    case = TASK.judge.cases("train")[0]
    with pytest.raises(InvalidOutput, match=message):
        TASK.judge.score(case, run(answering(expression), case))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (answering("None"), "workload 1: the schedule is NoneType None, expected a list"),
        (answering("{i: i for i in range(n)}"), "the schedule is dict"),
        (answering("__import__('numpy').zeros((n, 1))"), "the schedule is ndarray"),
        ("def get_best_schedule(w, n):\n    return list(range(w.num_txns))", r"expected \(makespan, schedule\)"),
        ("def get_best_schedule(w, n):\n    pass", "returned NoneType None"),
        ("def get_random_costs():\n    return 0, [[0]], 0.0", "expected 3 schedules, one per workload, got 1"),
        ("def get_random_costs():\n    return 0", "expected 3 schedules, one per workload, got 1"),
    ],
)
def test_answers_of_another_shape_are_malformed(source: str, message: str) -> None:
    case = TASK.judge.cases("train")[0]
    with pytest.raises(MalformedOutput, match=message):
        TASK.judge.score(case, run(source, case))


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"schedules": None}, {"schedules": {}}, {"schedules": 3}, {"schedules": [1, 2, 3]}]
)
def test_raw_outputs_that_no_adapter_makes_are_malformed(raw: Any) -> None:
    with pytest.raises(MalformedOutput):
        TASK.judge.score(TASK.judge.cases("train")[0], raw)


def test_a_program_may_look_where_its_file_is() -> None:
    """`__file__` is there in the public evaluator, and in txn_online."""
    source = "import os\nimport sys\nsys.path.append(os.path.dirname(os.path.abspath(__file__)))\n"
    case = TASK.judge.cases("train")[0]
    before = list(sys.path)
    try:
        assert TASK.judge.score(case, run(source + answering("range(n)"), case))["improvement"] == 0.0
    finally:
        sys.path[:] = before


def test_reported_makespans_do_not_count() -> None:
    case = TASK.judge.cases("train")[0]
    honest = TASK.judge.score(case, run(answering("list(range(n))"), case))
    assert honest["improvement"] == 0.0
    liar = answering("list(range(n))").replace("return 0,", "return float('-inf'),")
    assert TASK.judge.score(case, run(liar, case)) == honest


def test_splits_are_the_same_every_time_and_differ_from_each_other() -> None:
    texts = {split: [case.public["workloads"] for case in TASK.judge.cases(split)] for split in SPLITS}
    assert texts == {split: [case.public["workloads"] for case in TASK.judge.cases(split)] for split in SPLITS}
    every = [str(workload) for split in SPLITS for triple in texts[split] for workload in triple]
    assert len(set(every)) == len(every)
    cases = [case for split in SPLITS for case in TASK.judge.cases(split)]
    assert len({case.id for case in cases}) == len({case.seed for case in cases}) == len(cases)


def test_generated_texts_have_not_changed() -> None:
    """Scores of different machines and releases are comparable only on equal texts."""
    splits = import_private(TASK.folder, "splits")
    found = {
        name: hashlib.sha256(json.dumps(getattr(splits, name)()).encode()).hexdigest()[:16] for name in GENERATED_TEXTS
    }
    assert found == GENERATED_TEXTS


def test_every_case_leaves_something_to_gain() -> None:
    for split in SPLITS:
        for case in TASK.judge.cases(split):
            assert case.hidden.longest <= case.hidden.lower_bound < case.hidden.arrival, case.id


def test_combine_means_metrics_and_sums_cpu_time() -> None:
    results = [
        CaseResult(case.id, TASK.judge.score(case, run(answering(order), case)), 0.25, 0.5)
        for case, order in zip(TASK.judge.cases("train"), ["list(range(n))", "list(range(n))[::-1]"], strict=False)
    ]
    combined = TASK.judge.combine(results)
    assert (combined.metrics["cpu_s"], combined.metrics["cpu_s_per_case"]) == (0.5, 0.25)
    assert combined.metrics["worst_decile"] == min(r.metrics["improvement"] for r in results)
    assert combined.metrics["makespan"] == sum(r.metrics["makespan"] for r in results) / 2
    assert combined.score == sum(r.metrics["improvement"] for r in results) / 2
    assert combined.metrics["score_bound"] == combined.metrics["correctness"] == 1.0
    assert set(combined.metrics) == set(TASK.spec.metrics) - {"cpu_growth"}  # two cases of two times fix no exponent
    assert all(result.case in combined.artifacts["cases"] for result in results)


def test_leaderboard_formula_is_clipped_at_both_ends() -> None:
    formula = import_private(TASK.folder, "scoring").leaderboard_formula
    assert [formula(m, 537, 46) for m in (600, 537, 95.1, 50)] == pytest.approx([0, 0, 100, 100])


def test_without_the_recorded_file_the_test_split_is_generated_and_says_so(without_data: Path) -> None:
    assert "generated" in (TASK.split_note("test") or "")
    assert TASK.split_note("train") is None
    (case,) = TASK.judge.cases("test")
    assert not case.hidden.recorded
    assert judged(TASK, TASK.seed_source, "test").metrics["leaderboard_coverage"] == 0.0


def test_a_wrong_recorded_file_is_refused(without_data: Path) -> None:
    without_data.mkdir(parents=True)
    (without_data / "txn_workloads.json").write_text("{}")
    with pytest.raises(UsageError, match="is not the expected file: sha256"):
        TASK.judge.cases("test")


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system(tmp_path: Path) -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"adapter = import_private(Path({str(TASK.folder)!r}), 'adapter')\n"
        "print([m for m in sys.modules if 'judge' in m or 'splits' in m or m.startswith('adrs_ray')])\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_task_folder_that_was_moved_still_loads(tmp_path: Path) -> None:
    """Numba's cache names the module that wrote it; under another name it once raised ModuleNotFoundError."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    for name in ("compiled.py", "kernel.py", "workload.py"):
        (here / name).write_bytes((TASK.folder / name).read_bytes())
    code = (
        "import sys\nfrom pathlib import Path\nfrom adrs_ray.private_import import import_private\n"
        "workload = import_private(Path(sys.argv[1]), 'workload').Workload({'a': 'w-1', 'b': 'w-1 *'})\n"
        "print(workload.get_opt_seq_cost([0, 1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root())}
    for folder in (here, there):
        if folder is there:
            here.rename(there)
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
        assert list(folder.glob("__pycache__/kernel.*.nbi")), "nothing was cached: the test would prove nothing"


def test_the_kernel_compiles_where_no_cache_can_be_written() -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom numba.core import caching\n"
        "implementation = getattr(caching, 'CacheImpl', None) or caching._CacheImpl\n"
        "implementation._locator_classes = []\n"
        "from adrs_ray.private_import import import_private\n"
        "workload = import_private(Path(sys.argv[1]), 'workload').Workload({'a': 'w-1', 'b': 'w-1 *'})\n"
        "print(workload.get_opt_seq_cost([0, 1]))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(repository_root())}
    command = [sys.executable, "-c", code, TASK.folder]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
