"""Generated workloads: families of transaction mixes in the text form of the public ones.

The public triple has one workload of each shape below; `train` and `validation` are made of the same shapes with
other parameters and seeds, so that what is learned on them carries over. Everything comes from
`numpy.random.default_rng(seed)`; a test holds the digests of the texts, so that a numpy that draws differently is seen.

- `ycsb`: n distinct keys per transaction, popularity by Zipf, each read or written (YCSB, Cooper et al., SoCC 2010:
  transactions over a Zipf-popular key space, 50 % updates in workload A). Keys are visited in nearly one global
  order, as programs that avoid deadlocks do. Public workload 1: 100 transactions of 16 keys, 55 % writes, four keys
  in each of them; `theta` and `disorder` give its popularity of keys and its makespans of random orders (370 to 490).
- `tpcc`: new-order reads a warehouse, reads and writes one of its districts and then inserts order lines (ticks
  without a conflict); payment reads and writes both (TPC-C 5.11, sections 2.4 and 2.5: 10 districts per warehouse, 5 to
  15 lines). Public workload 2: 50 of each, 4 warehouses, grouped by type on arrival.
- `edges`: reads an object on one side, writes one on the other after some work, and the same back (the trust and
  review updates of Epinions in OLTP-Bench, Difallah et al., VLDB 2013; association writes of TAOBench, Cheng et al.,
  VLDB 2022). Public workload 3: 5 + 5 objects, 9 ticks, grouped by direction on arrival.
- `smallbank`: the six transactions of SmallBank (Alomari et al., ICDE 2008) on checking and savings rows, most
  of them on a few hot accounts.
- `taobench`: many short reads of Zipf-popular objects and a few writes of an object with an association.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

Texts: TypeAlias = dict[str, str]
"""{"txn0": "w-17 r-5 *", ...}, ids in arrival order."""


def named(transactions: Sequence[Sequence[str]]) -> Texts:
    """The text form of transactions given as lists of tokens."""
    return {f"txn{i}": " ".join(tokens) for i, tokens in enumerate(transactions)}


def ycsb(
    seed: int,
    txns: int = 100,
    ops: int = 16,
    keys: int = 800,
    theta: float = 1.55,
    writes: float = 0.55,
    disorder: float = 0.1,
) -> Texts:
    """`ops` distinct keys per transaction, P(key k) ~ k ** -theta, each written with probability `writes`.

    A key's place in a transaction is its rank in one global order of 0..1, off by a normal error of `disorder`.
    """
    rng = np.random.default_rng(seed)
    popularity = _zipf(keys, theta)
    place = rng.permutation(keys) / keys
    transactions = []
    for _ in range(txns):
        chosen = rng.choice(keys, size=ops, replace=False, p=popularity)
        chosen = chosen[np.argsort(place[chosen] + rng.normal(0.0, disorder, ops))]
        transactions.append([f"{'w' if rng.random() < writes else 'r'}-{key + 1}" for key in chosen])
    return named(transactions)


def tpcc(seed: int, txns: int = 100, warehouses: int = 4, lines: int = 18, payments: float = 0.5) -> Texts:
    """New-order transactions (3 operations, then `lines` ticks), followed by a share of payments (5 ticks)."""
    rng = np.random.default_rng(seed)
    transactions = []
    paying = round(txns * payments)
    for i in range(txns):
        home = int(rng.integers(1, warehouses + 1))
        district = warehouses + 10 * (home - 1) + int(rng.integers(1, 11))
        if i < txns - paying:
            transactions.append([f"r-{home}", f"r-{district}", f"w-{district}", *["*"] * lines])
        else:
            transactions.append([f"r-{home}", f"w-{home}", f"r-{district}", f"w-{district}", "*"])
    return named(transactions)


def edges(seed: int, txns: int = 100, side: int = 5, work: int = 7, grouped: bool = True) -> Texts:
    """Read one of `side` objects, work, write one of the other side; half of the batch in each direction."""
    rng = np.random.default_rng(seed)
    transactions = []
    for i in range(txns):
        back = i >= txns // 2
        source, target = (int(v) for v in rng.integers(1, side + 1, size=2))
        transactions.append([f"r-{source + side * back}", *["*"] * work, f"w-{target + side * (not back)}"])
    if not grouped:
        transactions = [transactions[i] for i in rng.permutation(txns)]
    return named(transactions)


def smallbank(seed: int, txns: int = 100, accounts: int = 100, hot: int = 5, hot_share: float = 0.6) -> Texts:
    """Six transactions with equal shares; a `hot_share` of accounts drawn comes from the `hot` first ones."""
    rng = np.random.default_rng(seed)

    def account(other: int = -1) -> int:
        while True:
            drawn = int(rng.integers(0, hot)) if rng.random() < hot_share else int(rng.integers(hot, accounts))
            if drawn != other:
                return drawn

    transactions = []
    for _ in range(txns):
        one = account()
        two = account(one)
        checking, savings, to = f"c{one}", f"s{one}", f"c{two}"
        kinds = [
            [f"r-{savings}", f"r-{checking}"],  # balance
            [f"r-{checking}", f"w-{checking}"],  # deposit checking
            [f"r-{savings}", f"w-{savings}"],  # transact savings
            [f"r-{savings}", f"w-{savings}", f"r-{checking}", f"w-{checking}", f"r-{to}", f"w-{to}"],  # amalgamate
            [f"r-{savings}", f"r-{checking}", f"w-{checking}"],  # write check
            [f"r-{checking}", f"r-{to}", f"w-{checking}", f"w-{to}"],  # send payment
        ]
        transactions.append(kinds[int(rng.integers(0, len(kinds)))])
    return named(transactions)


def taobench(seed: int, txns: int = 100, objects: int = 200, theta: float = 1.2, writes: float = 0.3) -> Texts:
    """Reads of 2 to 10 objects; a share `writes` of transactions writes an object and its association instead."""
    rng = np.random.default_rng(seed)
    popularity = _zipf(objects, theta)
    transactions = []
    for _ in range(txns):
        count = int(rng.integers(2, 11))
        chosen = [int(key) + 1 for key in rng.choice(objects, size=count, replace=False, p=popularity)]
        if rng.random() < writes:
            transactions.append([f"r-{chosen[0]}", *["*"] * count, f"w-{chosen[0]}", f"w-a{chosen[0]}-{chosen[1]}"])
        else:
            transactions.append([f"r-{key}" for key in chosen])
    return named(transactions)


def _zipf(keys: int, theta: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    weight = np.arange(1, keys + 1, dtype=np.float64) ** -theta
    share: np.ndarray[tuple[int], np.dtype[np.float64]] = weight / weight.sum()
    return share
