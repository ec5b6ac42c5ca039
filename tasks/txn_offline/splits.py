"""The generated splits: fixed triples of workloads by name.

A triple has the make-up of the public one: long transactions over hot keys, typed transactions with payments, and
short ones that cross. `train` and `validation` share families and differ in seeds and parameters; `test_stand_in` takes
the place of the public triple when that is not there; `stress` leaves the ranges of the others.
"""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import numpy as np

from .families import Texts, edges, named, smallbank, taobench, tpcc, ycsb

Triple: TypeAlias = tuple[Texts, Texts, Texts]


@cache
def train() -> dict[str, Triple]:
    """Four triples for the search."""
    return {
        "train-0": (ycsb(100), tpcc(101), edges(102)),
        "train-1": (ycsb(110, ops=12, disorder=0.15), smallbank(111), edges(112, side=4, grouped=False)),
        "train-2": (ycsb(120, theta=1.4, writes=0.45), tpcc(121, warehouses=3, lines=12, payments=0.6), taobench(122)),
        "train-3": (ycsb(130, ops=20, disorder=0.12), tpcc(131, payments=0.4), edges(132, side=6, work=5)),
    }


@cache
def validation() -> dict[str, Triple]:
    """Five other triples for the choice of a champion, one of them with 300 transactions per workload."""
    return {
        "validation-0": (ycsb(200), tpcc(201), edges(202)),
        "validation-1": (ycsb(210, ops=14, disorder=0.12), smallbank(211, hot=4), edges(212, side=6, grouped=False)),
        "validation-2": (ycsb(220, theta=1.45, writes=0.65), tpcc(221, warehouses=5, lines=15), taobench(222)),
        "validation-3": (ycsb(230, ops=18), tpcc(231, warehouses=2, payments=0.3), edges(232, side=4, work=9)),
        "validation-300": (
            ycsb(240, txns=300, ops=8, theta=1.45),
            smallbank(241, txns=300, accounts=200),
            edges(242, txns=300, side=7, grouped=False),
        ),
    }


@cache
def test_stand_in() -> dict[str, Triple]:
    """One triple shaped like the public one, with seeds of its own."""
    return {"test-generated": (ycsb(300), tpcc(301), edges(302))}


@cache
def stress() -> dict[str, Triple]:
    """Larger, degenerate and adversarial mixes."""
    return {
        "stress-one-key": (
            _one_hot_key(400),
            named([[f"w-{i % 7}", f"w-{i % 5}", f"w-{i % 3}"] for i in range(100)]),
            named([[f"r-{i % 4}", f"r-{i % 6}", "*"] for i in range(100)]),
        ),
        "stress-degenerate": (
            named([["w-1", "r-2", "*"]]),
            _repeated_keys(410),
            named([["r-1", "w-2"], ["w-1", "r-2"]]),
        ),
        "stress-400": (
            ycsb(420, txns=400, ops=8),
            tpcc(421, txns=400, warehouses=8),
            edges(422, txns=400, side=8),
        ),
        "stress-long": (
            ycsb(430, txns=60, ops=120, disorder=0.05),
            _mixed_lengths(431),
            smallbank(432, txns=200, hot=2, hot_share=0.9),
        ),
        "stress-1000": (
            ycsb(440, txns=300, ops=24, theta=1.4),
            smallbank(441, txns=1000, accounts=1000, hot=20),
            edges(442, txns=500, side=12, grouped=False),
        ),
    }


def _one_hot_key(seed: int) -> Texts:
    """Every transaction writes the same key, at any place among reads of keys of its own."""
    rng = np.random.default_rng(seed)
    transactions = []
    for i in range(100):
        length = int(rng.integers(1, 21))
        tokens = [f"r-{i}-{j}" for j in range(length)]
        tokens[int(rng.integers(0, length))] = "w-hot"
        transactions.append(tokens)
    return named(transactions)


def _repeated_keys(seed: int) -> Texts:
    """Transactions that access one key up to five times."""
    rng = np.random.default_rng(seed)
    transactions = []
    for _ in range(100):
        keys = rng.integers(0, 12, size=2)
        tokens = [f"{'rw'[int(rng.integers(0, 2))]}-{keys[int(rng.integers(0, 2))]}" for _ in range(5)]
        transactions.append(tokens)
    return named(transactions)


def _mixed_lengths(seed: int) -> Texts:
    """Lengths from 1 to 200 ticks, mostly idle, over eight keys."""
    rng = np.random.default_rng(seed)
    transactions = []
    for _ in range(120):
        length = int(np.exp(rng.uniform(0.0, np.log(200.0))))
        tokens = [
            f"{'rw'[int(rng.integers(0, 2))]}-{int(rng.integers(0, 8))}" if rng.random() < 0.2 else "*"
            for _ in range(length)
        ]
        tokens[int(rng.integers(0, length))] = f"w-{int(rng.integers(0, 8))}"
        transactions.append(tokens)
    return named(transactions)
