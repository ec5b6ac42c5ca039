"""The simulator of txn_offline: recorded figures, the literal version, the lower bounds, wrong input."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from adrs_ray.private_import import import_private
from adrs_ray.task import builtin_tasks, data_file, read_spec

from . import literal_txn

FOLDER = builtin_tasks()["txn_offline"]
Workload = import_private(FOLDER, "workload").Workload
bound = import_private(FOLDER, "bound")


@pytest.fixture(scope="module")
def public() -> list[Mapping[str, str]]:
    path = data_file(read_spec(FOLDER / "task.yaml").data[0])
    if path is None:
        pytest.skip("needs txn_workloads.json: set ADRS_DATA_DIR or run `adrs data pull txn_offline`")
    recorded = json.loads(path.read_text())
    return [recorded[f"WORKLOAD_{i}"] for i in (1, 2, 3)]


def writes_ascending(texts: Mapping[str, str]) -> list[int]:
    counts = [text.count("w-") for text in texts.values()]
    return sorted(range(len(counts)), key=lambda i: (counts[i], i))


def full_greedy(workload) -> list[int]:
    order = [0]
    pending = list(range(1, workload.num_txns))
    while pending:
        order.append(min(pending, key=lambda txn: (workload.get_opt_seq_cost([*order, txn]), txn)))
        pending.remove(order[-1])
    return order


def shuffled() -> list[int]:
    order = list(range(100))
    random.Random(0).shuffle(order)
    return order


FIXED_ORDERS = {
    "0..99": (list(range(100)), (452, 38, 47)),
    "99..0": (list(range(99, -1, -1)), (456, 56, 47)),
    "evens then odds": ([*range(0, 100, 2), *range(1, 100, 2)], (468, 41, 60)),
    "37 k mod 100": ([37 * k % 100 for k in range(100)], (474, 56, 178)),
    "random.Random(0).shuffle": (shuffled(), (460, 53, 185)),
    "only 0..9": (list(range(10)), (57, 23, 12)),
    "only 0, 1": ([0, 1], (17, 21, 9)),
}


@pytest.mark.parametrize("name", FIXED_ORDERS)
def test_recorded_makespans(public: list[Mapping[str, str]], name: str) -> None:
    order, expected = FIXED_ORDERS[name]
    assert tuple(Workload(texts).get_opt_seq_cost(order) for texts in public) == expected


def test_recorded_makespans_of_derived_orders(public: list[Mapping[str, str]]) -> None:
    workloads = [Workload(texts) for texts in public]
    by_writes = [w.get_opt_seq_cost(writes_ascending(t)) for w, t in zip(workloads, public, strict=True)]
    assert by_writes == [418, 38, 47]
    assert [w.get_opt_seq_cost(full_greedy(w)) for w in workloads] == [228, 55, 39]


def test_recorded_spread_of_random_orders(public: list[Mapping[str, str]]) -> None:
    rng = random.Random(1)
    orders = [rng.sample(range(100), 100) for _ in range(200)]
    means = [np.mean([Workload(texts).get_opt_seq_cost(o) for o in orders]) for texts in public]
    assert means == pytest.approx([431, 52.9, 165], rel=0.03)


def test_every_prefix_of_the_public_workloads_equals_the_literal_version(public: list[Mapping[str, str]]) -> None:
    order = shuffled()
    for texts in public:
        workload = Workload(texts)
        for length in range(0, 101, 7):
            assert workload.get_opt_seq_cost(order[:length]) == literal_txn.makespan(texts, order[:length])


tokens = st.one_of(st.just("*"), st.builds("{}-{}".format, st.sampled_from("rw"), st.integers(0, 3)))
workload_texts = st.lists(st.lists(tokens, min_size=1, max_size=9).map(" ".join), min_size=1, max_size=8).map(
    lambda lines: {f"txn{i}": line for i, line in enumerate(lines)}
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(workload_texts, st.randoms(use_true_random=False))
def test_kernel_equals_the_literal_version(texts: Mapping[str, str], rng: random.Random) -> None:
    order = [rng.randrange(len(texts)) for _ in range(rng.randrange(1, 12))]
    assert Workload(texts).get_opt_seq_cost(order) == literal_txn.makespan(texts, order)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(workload_texts.filter(lambda texts: len(texts) <= 5))
def test_no_order_beats_the_lower_bound(texts: Mapping[str, str]) -> None:
    workload = Workload(texts)
    best = min(literal_txn.makespan(texts, order) for order in itertools.permutations(range(len(texts))))
    assert best >= bound.lower_bound(workload) >= workload.longest_txn


def literal_gap(first: str, second: str) -> int:
    """Least start of `second` less that of `first`, placed before it; literal_txn.parse gives the operations."""
    return max(
        (
            p - q + 1
            for kind, key, p in literal_txn.parse(first)[0]
            for other, same, q in literal_txn.parse(second)[0]
            if key == same and "w" in (kind, other)
        ),
        default=bound.FREE,
    )


@settings(max_examples=30, deadline=None, derandomize=True)
@given(workload_texts)
def test_gaps_are_the_literal_ones(texts: Mapping[str, str]) -> None:
    gap, writers = bound.pair_gaps(Workload(texts))
    lines = list(texts.values())
    for i, j in itertools.permutations(range(len(lines)), 2):
        assert gap[i, j] == literal_gap(lines[i], lines[j])
    assert writers.sum() == sum(len({t for t in line.split() if t[0] == "w"}) for line in lines)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_the_assignment_is_a_least_one(size: int, seed: int) -> None:
    cost = np.random.default_rng(seed).integers(-40, 40, (size, size))
    rows, columns = linear_sum_assignment(cost)
    assert bound.least_assignment(cost) == cost[rows, columns].sum()


def test_recorded_bounds(public: list[Mapping[str, str]]) -> None:
    assert [bound.lower_bound(Workload(texts)) for texts in public] == [127, 33, 25]


def test_a_bound_that_needs_more_than_one_key() -> None:
    # crossing pairs: each order of two loses on one of the keys what it gains on the other
    crossing = Workload({f"txn{i}": "w-1 * * w-2" if i % 2 else "w-2 * * w-1" for i in range(6)})
    best = min(crossing.get_opt_seq_cost(order) for order in itertools.permutations(range(6)))
    writes_of_one_key = 6
    assert best >= bound.lower_bound(crossing) > writes_of_one_key


def test_lower_bound_is_reached_by_writes_of_one_key() -> None:
    workload = Workload({f"txn{i}": "* w-1 *" for i in range(7)})
    assert bound.lower_bound(workload) == workload.get_opt_seq_cost(range(7)) == 9


def test_gap_before_an_earlier_access_is_not_filled() -> None:
    late_write_first = Workload({"a": "* * * * w-1", "b": "w-1"})
    assert late_write_first.get_opt_seq_cost([0, 1]) == 6
    assert late_write_first.get_opt_seq_cost([1, 0]) == 5


def test_accesses_of_one_transaction_do_not_hinder_each_other() -> None:
    assert Workload({"a": "r-1 w-1 w-1 r-1"}).get_opt_seq_cost([0]) == 4


def test_txns_in_the_public_form() -> None:
    workload = Workload({"txn0": "w-17 * r-5", "txn1": "*"})
    assert workload.num_txns == 2
    assert workload.txns == [[("w", "17", 1, 3), ("r", "5", 3, 3)], []]
    assert workload.get_opt_seq_cost([0, 1]) == Workload('{"txn0": "w-17 * r-5", "txn1": "*"}').get_opt_seq_cost([0, 1])


def test_sequences_that_are_accepted() -> None:
    workload = Workload({"a": "w-1 *", "b": "r-1", "c": "r-2 r-1"})
    expected = workload.get_opt_seq_cost([2, 0])
    for same in (
        (2, 0),
        np.array([2, 0]),
        np.array([2, 0], dtype=np.int32),
        range(2, -1, -2),
        np.array([2, 9, 0])[::2],
    ):
        assert workload.get_opt_seq_cost(same) == expected
    assert workload.get_opt_seq_cost([]) == workload.get_opt_seq_cost(()) == 0


@pytest.mark.parametrize(
    ("sequence", "message"),
    [
        ([0, 3], r"sequence\[1\] is 3, expected an id in 0\.\.2"),
        ([-1], r"sequence\[0\] is -1, expected an id"),
        ([0.0, 1.0], "list of transaction ids"),
        (["0"], "list of transaction ids"),
        ([True, False], "list of transaction ids"),
        ([[0, 1], [0]], "inhomogeneous"),
        ([[0, 1]], "list of transaction ids"),
        ([10**30], "list of transaction ids"),
        (0, "list of transaction ids"),
        (None, "list of transaction ids"),
    ],
)
def test_sequences_that_are_refused(sequence: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Workload({"a": "w-1", "b": "r-1", "c": "*"}).get_opt_seq_cost(sequence)


@pytest.mark.parametrize("token", ["x-1", "w1", "w-", "w", "**"])
def test_a_wrong_token_is_named(token: str) -> None:
    with pytest.raises(ValueError, match=r"txn7.*position 2"):
        Workload({"txn7": f"r-1 {token}"})
