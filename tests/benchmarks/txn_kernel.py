"""How much faster the kernel of txn_offline is than the literal simulator: `python -m tests.benchmarks.txn_kernel`.

Prints microseconds per call of `get_opt_seq_cost` on whole orders given as an array and as a list (which it converts),
of the literal simulator, and the ratios; medians over repeats, on the recorded workloads when they are here, else on
generated ones.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable

import numpy as np

from adrs_ray.private_import import import_private
from adrs_ray.task import load_task

from ..tasks import literal_txn


def median_us(call: Callable[[], object], calls: int, repeats: int = 7) -> float:
    """Median over `repeats` of the mean time per call, in microseconds."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        times.append((time.perf_counter() - begin) / calls * 1e6)
    return statistics.median(times)


def main() -> None:
    task = load_task("txn_offline")
    workload_type = import_private(task.folder, "workload").Workload
    print(task.split_note("test") or "the public workloads")
    print("| workload | operations | array us | list us | literal us | ratio, array | ratio, list |")
    print("|---|---|---|---|---|---|---|")
    for number, texts in enumerate(task.judge.cases("test")[0].public["workloads"], start=1):
        workload = workload_type(texts)
        order = random.Random(number).sample(range(workload.num_txns), workload.num_txns)
        ids = np.array(order)
        assert workload.get_opt_seq_cost(order) == literal_txn.makespan(texts, order)
        array_us = median_us(lambda w=workload, o=ids: w.get_opt_seq_cost(o), calls=2000)
        list_us = median_us(lambda w=workload, o=order: w.get_opt_seq_cost(o), calls=2000)
        literal_us = median_us(lambda t=texts, o=order: literal_txn.makespan(t, o), calls=5)
        operations = sum(len(txn) for txn in workload.txns)
        print(
            f"| {number} | {operations} | {array_us:.1f} | {list_us:.1f} | {literal_us:.0f}"
            f" | {literal_us / array_us:.0f} | {literal_us / list_us:.0f} |"
        )


if __name__ == "__main__":
    main()
