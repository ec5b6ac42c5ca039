"""The baseline balancers: time, balance beside its bounds, duplicates; what moves and token splits are worth.

    python -m tests.benchmarks.eplb_baselines [--calls 60] [--windows 4] [--seed 1] [--shape 58x256-288/32/4/8]

One thread, host track: fresh loads on the CPU for each call, all three maps back on the CPU. Baselines take turns, so
that a busy machine slows all of them; the Python loop gets a tenth of the calls, at least three. `CPU ms` is the median
of the thread's CPU time, `best wall ms` the best call; a machine with other work inflates both. Balance is per GPU (sum
of layer means / sum of layer maxima), averaged over windows: `same` on the window that was placed, `next` on the one
after it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gpu_eval.balance import duplicates, gpu_balance
from gpu_eval.bounds import gpu_bound
from gpu_eval.registry import BASELINES, Baseline, place
from gpu_eval.shapes import SHAPES, Shape
from gpu_eval.token_split import lp_split, water_filling
from gpu_eval.workloads import REGIMES, generate

LOADS = ("adrs", "trt", "heavy")
GROUP_GAP = {"adrs": 0.006, "trt": 0.007, "heavy": 0.008}
GLOBAL_BALANCE = {"adrs": 0.994, "trt": 0.994}
HOST_MS, GLOBAL_MS, SPEED_UP = 2.0, 3.0, 100.0
COMPILE = """\
import time, torch, {needs}
start = time.process_time()
from gpu_eval.registry import BASELINES
BASELINES[{name!r}].load()
print(time.process_time() - start)
"""
Windows = NDArray[np.int64]


def call(module: Any, weight: torch.Tensor, shape: Shape) -> tuple[float, float]:
    """CPU and wall seconds of one call."""
    wall, cpu = time.perf_counter(), time.thread_time()
    outputs = module.rebalance_experts(weight, shape.slots, shape.groups, shape.nodes, shape.gpus)
    cpu, wall = time.thread_time() - cpu, time.perf_counter() - wall
    del outputs
    return cpu, wall


def times(modules: dict[str, Any], loads: Windows, shape: Shape, calls: int) -> dict[str, tuple[float, float]]:
    """By baseline the median CPU ms and the best wall ms; no two calls see the same loads."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in modules}
    for number in range(calls):
        weight = torch.from_numpy(loads[number % len(loads)] + number)
        for name, module in modules.items():
            if name != "deepseek" or number < max(3, calls // 10):
                taken[name].append(call(module, weight.clone(), shape))
    return {
        name: (median(cpu for cpu, _ in pairs) * 1e3, min(wall for _, wall in pairs) * 1e3)
        for name, pairs in taken.items()
    }


def balances(name: str, loads: Windows, shape: Shape) -> tuple[float, float, float]:
    """Same window, next window, and duplicates per layer."""
    placed = [place(name, window, shape) for window in loads]
    same = [gpu_balance(phy2log, window, shape.gpus) for phy2log, window in zip(placed, loads, strict=True)]
    later = [gpu_balance(phy2log, window, shape.gpus) for phy2log, window in zip(placed, loads[1:], strict=False)]
    repeated = [duplicates(phy2log, shape.gpus).mean() for phy2log in placed]
    return float(np.mean(same)), float(np.mean(later)), float(np.mean(repeated))


def bound(loads: Windows, shape: Shape, grouped: bool) -> float:
    return float(np.mean([gpu_bound(window, shape, grouped) for window in loads]))


def print_shape(shape: Shape, modules: dict[str, Any], loads: dict[str, Windows], calls: int) -> None:
    """One table of a shape; on the first shape also the targets."""
    print(f"\n### {shape.name}\n")
    print(
        "| baseline | CPU ms "
        + " / ".join(loads)
        + " | best wall ms | "
        + " | ".join(f"{regime} same / next" for regime in loads)
        + " | duplicates a layer |"
    )
    print("|---" * (4 + len(loads)) + "|")
    taken = {regime: times(modules, windows, shape, calls) for regime, windows in loads.items()}
    found = {name: {regime: balances(name, windows, shape) for regime, windows in loads.items()} for name in modules}
    for name in modules:
        cpu = " / ".join(f"{taken[regime][name][0]:.3g}" for regime in loads)
        wall = " / ".join(f"{taken[regime][name][1]:.3g}" for regime in loads)
        cells = " | ".join(f"{found[name][regime][0]:.4f} / {found[name][regime][1]:.4f}" for regime in loads)
        repeated = " / ".join(f"{found[name][regime][2]:.1f}" for regime in loads)
        print(f"| {name} | {cpu} | {wall} | {cells} | {repeated} |")
    edges = {grouped: {r: bound(w, shape, grouped) for r, w in loads.items()} for grouped in (True, False)}
    for grouped, text in ((True, "bound, groups on nodes"), (False, "bound")):
        print(f"| {text} | | | " + " | ".join(f"{edges[grouped][regime]:.4f}" for regime in loads) + " | |")
    if shape == SHAPES[0]:
        print_targets(taken, found, edges[True])


def print_targets(
    taken: dict[str, dict[str, tuple[float, float]]],
    found: dict[str, dict[str, tuple[float, float, float]]],
    grouped_bound: dict[str, float],
) -> None:
    """Whether the baselines are what they are meant to be, on loads where there is a target."""
    print("\n| target | " + " | ".join(taken) + " |\n" + "|---" * (1 + len(taken)) + "|")
    for name in ("heap_lpt", "heap_lpt_c"):
        if name in found and "deepseek" in found:
            cells = []
            for regime in taken:
                ratio = taken[regime]["deepseek"][0] / taken[regime][name][0]
                apart = abs(found["deepseek"][regime][0] - found[name][regime][0])
                cells.append(f"{verdict(ratio >= SPEED_UP and apart < 1e-4)}: {ratio:.0f} times, {apart:.1g} apart")
            print(f"| deepseek / {name} >= {SPEED_UP:g}, equal balance | " + " | ".join(cells) + " |")
    for name in ("heap_lpt", "heap_lpt_c", "heap_swaps"):
        if name in found:
            cells = []
            for regime, gap in GROUP_GAP.items():
                away, cpu = grouped_bound[regime] - found[name][regime][0], taken[regime][name][0]
                cells.append(f"{verdict(away <= gap and cpu <= HOST_MS)}: {away:.4f} (<= {gap}), {cpu:.2f} ms")
            print(f"| {name}: from the group bound, <= {HOST_MS:g} ms | " + " | ".join(cells) + " |")
    for name in ("global_lpt", "global_swaps"):
        if name in found:
            cells = []
            for regime in taken:
                least, balance, cpu = GLOBAL_BALANCE.get(regime), found[name][regime][0], taken[regime][name][0]
                met = least is None or (balance >= least and cpu <= GLOBAL_MS)
                cells.append(f"{verdict(met) if least else 'no target'}: {balance:.4f}, {cpu:.2f} ms")
            print(f"| {name}: same window >= 0.994, <= {GLOBAL_MS:g} ms | " + " | ".join(cells) + " |")


def verdict(met: bool) -> str:
    return "yes" if met else "NO"


def print_moves(loads: dict[str, Windows], shape: Shape) -> None:
    """What a few moves, and the split of tokens, make of the last window's placement."""
    module = BASELINES["incremental"].load()
    print(f"\n### {shape.name}, placed on one window, met by the next: moves and token splits\n")
    print("| | " + " | ".join(loads) + " |\n" + "|---" * (1 + len(loads)) + "|")
    rows: dict[str, list[str]] = {}
    for windows in loads.values():
        old, new = windows[0], windows[1]
        placed = place("global_lpt", old, shape)
        before = gpu_balance(placed, new, shape.gpus)
        rows.setdefault("as it was", []).append(f"{before:.4f}")
        for name, split in (("water filling", water_filling), ("linear program", lp_split)):
            start = time.thread_time()
            after = gpu_balance(placed, new, shape.gpus, split(placed, new, shape.gpus))
            cell = f"{after:.4f} ({(time.thread_time() - start) * 1e3:.0f} ms)"
            rows.setdefault(f"split by {name}", []).append(cell)
        for moves in (4, 16, 64):
            start = time.thread_time()
            moved = module.rebalance(
                torch.from_numpy(new), torch.from_numpy(placed), shape.groups, shape.nodes, shape.gpus, moves
            )[0].numpy()
            took = (time.thread_time() - start) * 1e3
            cell = f"{gpu_balance(moved, new, shape.gpus):.4f} ({(moved != placed).mean():.1%} moved, {took:.0f} ms)"
            rows.setdefault(f"at most {moves} moves a layer", []).append(cell)
        scratch = place("global_lpt", new, shape)
        cell = f"{gpu_balance(scratch, new, shape.gpus):.4f} ({(scratch != placed).mean():.0%} of slots differ)"
        rows.setdefault("from scratch", []).append(cell)
    for name, cells in rows.items():
        print(f"| {name} | " + " | ".join(cells) + " |")


def compile_seconds(baseline: Baseline) -> float:
    """CPU seconds from torch and its other needs to a program that can be called, in a fresh process."""
    needs = ", ".join(need for need in ("numpy", *baseline.needs) if need != "compiler")
    program = COMPILE.format(needs=needs, name=baseline.name)
    return float(subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=60)
    parser.add_argument("--windows", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--shape", choices=[shape.name for shape in SHAPES], help="only this one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    missing = [line for baseline in BASELINES.values() if (line := baseline.missing())]
    usable = {name: baseline for name, baseline in BASELINES.items() if baseline.missing() is None}
    for line in missing:
        print(f"left out: {line}")
    print("| baseline | CPU s to load and compile | source |\n|---|---|---|")
    for name, baseline in usable.items():
        print(f"| {name} | {compile_seconds(baseline):.1f} | {baseline.source} |")
    modules = {name: baseline.load() for name, baseline in usable.items()}
    for shape in SHAPES:
        if options.shape in (None, shape.name):
            loads = {
                regime: generate(REGIMES[regime], shape.layers, shape.experts, options.windows, options.seed).counts
                for regime in LOADS
            }
            print_shape(shape, modules, loads, options.calls)
            if shape == SHAPES[0] and "incremental" in usable:
                print_moves(loads, shape)


if __name__ == "__main__":
    main()
