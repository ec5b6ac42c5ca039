"""The task txn_online in this process: what the candidate is told, what the referee refuses, splits, scores."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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

from . import literal_txn

TASK = load_task("txn_online")
OFFLINE = load_task("txn_offline")
ADAPTER = import_private(TASK.folder, "adapter")
STREAM = import_private(TASK.folder, "stream")
PREFIX = import_private(TASK.folder, "prefix")
Workload = import_private(TASK.folder, "workload").Workload

SHARED = ("bound", "convert", "families", "kernel", "scoring", "splits", "triples", "workload")

SMF_AS_A_CLASS = """
import numpy as np

class Scheduler:
    def __init__(self):
        self.seen = 0

    def choose(self, buffer, state):
        assert self.seen == state.num_scheduled == len(state.schedule)
        self.seen += 1
        costs = np.array([state.cost(txn) for txn in buffer])
        return np.array([txn.id for txn in buffer])[np.argmin(costs)]
"""

SMF_AS_IT_IS_WRITTEN_OFFLINE = """
def choose(buffer, state):
    best_txn = None
    best_cost = float("inf")
    for txn in buffer:
        assert all(op[0] in "rw" and 1 <= op[2] <= op[3] == txn.length for op in txn.ops)
        cost = state.after(txn).makespan
        if cost < best_cost:
            best_txn, best_cost = txn.id, cost
    return best_txn
"""

SMF_FROM_THE_KEYS = """
def end(txn, state):
    start = 1
    for kind, key, position, _length in txn.ops:
        latest = state.last_access(key) if kind == "w" else state.last_write(key)
        if latest:
            start = max(start, latest + 2 - position)
    assert start == state.start(txn)
    return max(state.makespan, start + txn.length - 1)

def choose(buffer, state):
    return min(buffer, key=lambda txn: (end(txn, state), txn.id)).id
"""


def play(source: str, case: Case) -> Mapping[str, Any]:
    """What the referee makes of a program."""
    random.seed(case.seed)
    np.random.seed(case.seed)
    program = ADAPTER.load(source)
    referee = TASK.referee
    assert referee is not None
    game = referee(case)
    observation = next(game)
    while True:
        try:
            observation = game.send(ADAPTER.act(program, observation))
        except StopIteration as end:
            return dict(end.value)


def judged(task: Task, source: str, split: str) -> Combined:
    results = [CaseResult(c.id, task.judge.score(c, play(source, c)), 0.25, 0.5) for c in task.judge.cases(split)]
    return task.judge.combine(results)


def program(name: str | None) -> str:
    return TASK.programs()[str(name)].read_text()


def small_case(*lines: str) -> Case:
    """A case of three equal streams."""
    texts = {f"txn{i}": line for i, line in enumerate(lines)}
    return Case("small", 1, None, import_private(TASK.folder, "triples").reference((texts,) * 3, False))


def answering(expression: str, otherwise: str = "buffer[0].id", at: int = 0) -> str:
    """A program that answers `expression` when `at` transactions are scheduled."""
    return f"def choose(buffer, state):\n    return {expression} if state.num_scheduled == {at} else {otherwise}\n"


tokens = st.one_of(st.just("*"), st.builds("{}-{}".format, st.sampled_from("rw"), st.integers(0, 3)))
workload_texts = st.lists(st.lists(tokens, min_size=1, max_size=9).map(" ".join), min_size=1, max_size=8).map(
    lambda lines: {f"txn{i}": line for i, line in enumerate(lines)}
)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(workload_texts, st.randoms(use_true_random=False))
def test_what_one_more_costs_is_what_the_literal_version_says(texts: Mapping[str, str], rng: random.Random) -> None:
    parts = STREAM.parts(Workload(texts))
    _, arriving = STREAM.read(STREAM.message(True, parts))
    pending = [PREFIX.Transaction(i, length, operations) for i, (length, operations) in enumerate(arriving)]
    assert [txn.length for txn in pending] == [len(line.split()) for line in texts.values()]
    rng.shuffle(pending)
    state = PREFIX.State()
    while pending:
        for txn in pending:
            expected = literal_txn.makespan(texts, [*state.schedule, txn.id])
            assert state.cost(txn) == state.after(txn).makespan == expected
        txn = pending.pop()
        state = state.after(txn)
        assert state.num_scheduled == len(state.schedule)
        assert state.makespan == literal_txn.makespan(texts, state.schedule)


def test_a_state_that_was_looked_beyond_stays_as_it_is() -> None:
    state = PREFIX.State()
    far = PREFIX.Transaction(0, 3, np.array([[5000, 1, 2]]))
    following = state.after(far)
    assert (state.makespan, state.num_scheduled, state.schedule, state.last_write("5000")) == (0, 0, (), 0)
    assert (following.makespan, following.last_write("5000"), following.last_access("5000")) == (3, 2, 2)
    assert following.start(far) == 2
    assert following.last_access("123456") == 0


def test_operations_have_the_form_of_the_offline_task() -> None:
    texts = {"a": "w-17 * r-5", "b": "r-5 w-8"}
    _, arriving = STREAM.read(STREAM.message(False, STREAM.parts(Workload(texts))))
    transactions = [PREFIX.Transaction(i, length, operations) for i, (length, operations) in enumerate(arriving)]
    assert [txn.ops for txn in transactions] == [
        [("w", "0", 1, 3), ("r", "1", 3, 3)],
        [("r", "1", 1, 2), ("w", "2", 2, 2)],
    ]


def test_a_transaction_is_told_when_it_enters_the_buffer_and_not_before() -> None:
    case = TASK.judge.cases("train")[0]
    assert TASK.referee is not None
    game = TASK.referee(case)
    told = 0
    keys = -1
    observation = next(game)
    for step in range(100):
        begins, arriving = STREAM.read(observation)
        assert begins == (step == 0)
        for _length, operations in arriving:
            told += 1
            for key in operations[:, 0]:
                assert key <= keys + 1, "a key's number says nothing of keys that have not been seen"
                keys = max(keys, int(key))
        assert told == min(100, step + STREAM.BUFFER_SIZE)
        observation = game.send(step)
    assert STREAM.read(observation)[0], "the next stream"


def test_three_ways_to_write_smf_are_judged_alike() -> None:
    case = TASK.judge.cases("train")[1]
    expected = play(program("smf"), case)
    for source in (SMF_AS_A_CLASS, SMF_AS_IT_IS_WRITTEN_OFFLINE, SMF_FROM_THE_KEYS):
        assert play(source, case) == expected


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("99", "workload 1, step 1: the choice is 99, expected an id of the buffer: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9"),
        ("10", "the choice is 10, expected an id"),
        ("-1", "the choice is -1, expected an id"),
        ("2 ** 62", "expected an id"),
        ("True", "the choice is True, expected an id"),
        ("__import__('numpy').bool_(False)", "the choice is False, expected an id"),
        ("1.0", r"the choice is 1\.0, expected an id"),
        ("'1'", "the choice is \"str '1'\", expected an id"),
        ("buffer[0]", 'the choice is "Transaction '),
        ("[0]", "the choice is 'list "),
        ("float('nan')", "the choice is 'float nan'"),
    ],
)
def test_what_is_no_id_of_the_buffer_is_invalid(answer: str, message: str) -> None:
    with pytest.raises(InvalidOutput, match=message):
        play(answering(answer), TASK.judge.cases("train")[0])


def test_a_transaction_cannot_be_named_twice() -> None:
    with pytest.raises(InvalidOutput, match="workload 1, step 8: the choice is 0, expected an id of the buffer: 7, 8"):
        play(answering("0", at=7), TASK.judge.cases("train")[0])


def test_no_answer_is_malformed() -> None:
    with pytest.raises(MalformedOutput, match="workload 1, step 1: the choice is a NoneType"):
        play("def choose(buffer, state):\n    pass\n", TASK.judge.cases("train")[0])


@pytest.mark.parametrize("answer", [{}, [3], {"id": 0}, np.zeros(3)])
def test_answers_that_no_adapter_makes_are_malformed(answer: Any) -> None:
    assert TASK.referee is not None
    game = TASK.referee(TASK.judge.cases("train")[0])
    next(game)
    with pytest.raises(MalformedOutput, match="expected the id of a pending transaction"):
        game.send(answer)


@pytest.mark.parametrize("source", ["chose = 3", "choose = 3", "Scheduler = 3"])
def test_a_program_without_entry_says_so(source: str) -> None:
    with pytest.raises(ADAPTER.InterfaceError, match="neither choose"):
        ADAPTER.load(source)


def test_a_class_without_choose_says_so() -> None:
    with pytest.raises(ADAPTER.InterfaceError, match="class Scheduler with choose"):
        play("class Scheduler:\n    pass\n", TASK.judge.cases("train")[0])


def test_streams_of_fewer_transactions_than_the_buffer_holds() -> None:
    case = small_case("w-1 *", "w-1", "r-1")
    assert play(program("arrival_order"), case)["schedules"] == [[0, 1, 2]] * 3
    assert play("def choose(buffer, state):\n    return buffer[-1].id\n", case)["schedules"] == [[2, 1, 0]] * 3


@pytest.mark.parametrize("split", ["train", "validation"])
def test_seeds_stand_between_the_trivial_and_the_best_human(split: str) -> None:
    names = (TASK.spec.trivial, "weak", "medium", "strong", TASK.spec.best_human)
    trivial, weak, medium, strong, human = (judged(TASK, program(name), split).score for name in names)
    assert 0.0 == trivial < weak < medium < strong < human < 1.0


def test_looking_ahead_in_the_buffer_beats_smf() -> None:
    case = TASK.judge.cases("train")[0]
    ahead, smf = (TASK.judge.score(case, play(program(name), case))["improvement"] for name in ("rollout", "smf"))
    assert smf + 0.02 < ahead < 1.0


def test_stress_is_judged_at_all_sizes() -> None:
    weak, smf = (judged(TASK, program(name), "stress").score for name in ("weak", "smf"))
    assert 0.0 < weak < smf < 1.0


def test_makespans_on_the_public_streams() -> None:
    if TASK.split_note("test"):
        pytest.skip("needs txn_workloads.json: set ADRS_DATA_DIR or run `adrs data pull txn_online`")
    smf = judged(TASK, program("smf"), "test").metrics
    assert (smf["makespan"], smf["arrival_makespan"], smf["lower_bound"]) == (344, 537, 185)
    assert smf["leaderboard_coverage"] == 100
    assert judged(TASK, program("arrival_order"), "test").metrics["makespan"] == 452 + 38 + 47


def test_cases_and_bounds_are_those_of_the_offline_task() -> None:
    for split in SPLITS:
        for online, offline in zip(TASK.judge.cases(split), OFFLINE.judge.cases(split), strict=True):
            assert (online.id, online.seed) == (offline.id, offline.seed)
            assert isinstance(online.public, str)
            assert len(online.public) == 64
            assert online.hidden.lower_bound == offline.hidden.lower_bound < online.hidden.arrival


def test_shared_modules_are_the_offline_tasks_own() -> None:
    for name in SHARED:
        assert (TASK.folder / f"{name}.py").read_bytes() == (OFFLINE.folder / f"{name}.py").read_bytes()
        assert (TASK.folder / f"{name}.py").resolve().is_file()


def test_metrics_are_those_of_the_task() -> None:
    combined = judged(TASK, program("arrival_order"), "train")
    assert set(combined.metrics) | {"cpu_growth"} == set(TASK.spec.metrics)
    assert (combined.metrics["score_bound"], combined.metrics["cpu_s"]) == (1.0, 1.0)
    assert all(case.id in combined.artifacts["cases"] for case in TASK.judge.cases("train"))


def test_there_is_no_public_evaluator_to_imitate() -> None:
    with pytest.raises(UsageError, match=r"txn_online has no paper\.py"):
        load_task("txn_online", scoring="paper")


def test_the_untrusted_side_imports_neither_the_judge_nor_the_system() -> None:
    code = (
        "import sys\n"
        f"sys.path.insert(0, {str(repository_root() / 'adrs_ray')!r})\n"
        "from pathlib import Path\n"
        "from private_import import import_private\n"
        f"adapter = import_private(Path({str(TASK.folder)!r}), 'adapter')\n"
        "for part in ('judge', 'splits', 'triples', 'families', 'bound', 'adrs_ray'):\n"
        "    print([m for m in sys.modules if part in m.split('.')], end='')\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]" * 6
