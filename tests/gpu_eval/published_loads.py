"""The generator beside published figures of real traffic; run as a script it prints the comparison.

Table 1 of "Scaling Expert Parallelism in TensorRT-LLM (Part 1)" (blog 4): DeepSeek-R1 on 32 GPUs, translation, 58
layers of 256 experts, 32,768 routed tokens per layer and iteration. Imbalance there is (max - mean) / mean; all figures
are means over layers. Experts are placed on a window of the regime `steady` and met one window later.
"""

from __future__ import annotations

from heapq import heapify, heapreplace

import numpy as np
from numpy.typing import NDArray

from gpu_eval.balance import gpu_loads, slot_balance, slot_loads
from gpu_eval.workloads import REGIMES, generate, popularity

TABLE_ONE = {
    "rank imbalance": 1.564,
    "rank std": 491.6,
    "expert imbalance": 10.9,
    "expert std": 164.1,
    "EP32 rank imbalance": 0.109,
    "EP32 rank std": 52.0,
    "EP32 slot imbalance": 1.79,
    "EP32 slot std": 77.8,
    "EP36 rank imbalance": 0.115,
    "EP36 rank std": 53.9,
}


def place(weight: NDArray[np.int64], slots: int, gpus: int) -> NDArray[np.int64]:
    """Greedy replication, then the heaviest copy first to the lightest GPU with a free slot; groups ignored."""
    return np.stack([_place_layer(row, slots, gpus) for row in weight])


def _place_layer(row: NDArray[np.int64], slots: int, gpus: int) -> NDArray[np.int64]:
    heap = [(-float(load), expert, 1) for expert, load in enumerate(row)]
    heapify(heap)
    for _ in range(slots - len(row)):
        _, expert, copies = heap[0]
        heapreplace(heap, (-float(row[expert]) / (copies + 1), expert, copies + 1))
    held: list[list[int]] = [[] for _ in range(gpus)]
    loads = np.zeros(gpus)
    for load, expert in sorted((load, expert) for load, expert, copies in heap for _ in range(copies)):
        gpu = int(loads.argmin())
        held[gpu].append(expert)
        loads[gpu] = loads[gpu] - load if len(held[gpu]) < slots // gpus else np.inf
    return np.array(held, np.int64).ravel()


def table_one(seed: int) -> dict[str, float]:
    """Our figures for TABLE_ONE."""
    steady = REGIMES["steady"]
    window = generate(steady, 58, 256, 1, seed).counts[0]
    later = popularity(steady, 58, 256, 2, seed).p[1]
    iteration = np.random.default_rng(seed).multinomial(32_768, later)
    figures: dict[str, float] = {}

    def add(what: str, loads: NDArray[np.generic]) -> None:
        mean = loads.mean(axis=1)
        figures[f"{what} imbalance"] = float((loads.max(axis=1) / mean - 1).mean())
        figures[f"{what} std"] = float(loads.std(axis=1).mean())

    add("rank", iteration.reshape(58, 32, 8).sum(axis=2))
    add("expert", iteration)
    for gpus in (32, 36):
        phy2log = place(window, 288, gpus)
        add(f"EP{gpus} rank", gpu_loads(phy2log, iteration, gpus))
        add(f"EP{gpus} slot", slot_loads(phy2log, iteration))
    return {name: figures[name] for name in TABLE_ONE}


def paper_balancedness(seed: int) -> float:
    """Slot balance of 256 experts in 288 slots under the regime `adrs`; the paper: 0.66."""
    window = generate(REGIMES["adrs"], 58, 256, 1, seed).counts[0]
    return slot_balance(place(window, 288, 32), window)


if __name__ == "__main__":
    tables = [table_one(seed) for seed in range(8)]
    for name, published in TABLE_ONE.items():
        values = np.array([table[name] for table in tables])
        print(f"{name:22} published {published:7.3f}  ours {values.mean():7.3f} +- {values.std():.3f}")
    slots = np.array([paper_balancedness(seed) for seed in range(8)])
    print(f"{'paper balancedness':22} published   0.660  ours {slots.mean():7.3f} +- {slots.std():.3f}")
