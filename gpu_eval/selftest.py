"""Every part tried on this machine in about a minute: what holds, what does not, and what was seen.

On a GPU it also says whether the measurements repeat as they should there. On a CPU the same code runs with tiny sizes,
and figures of time are told but not judged.
"""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.balance import gpu_balance
from gpu_eval.bounds import gpu_bound
from gpu_eval.communication import NETWORKS
from gpu_eval.cost_model import PHASES, step_tokens
from gpu_eval.environment import environment
from gpu_eval.invariants import PlacementError, check_placement
from gpu_eval.maps import maps
from gpu_eval.paired import Track
from gpu_eval.registry import BASELINES, place
from gpu_eval.results import Device, Results
from gpu_eval.shapes import EXPERT_SIZES, Shape
from gpu_eval.statistics import spearman
from gpu_eval.workloads import REGIMES, generate

Ints = NDArray[np.int64]
SHAPE = Shape(4, 64, 72, 8, 2, 4)
SPREAD = 0.02
"""Of the device track from run to run, on a GPU."""
STABLE = 0.95
"""Rank correlation of eight placements' steps between two runs, on a GPU."""


class CheckError(Exception):
    """What a check found wrong: one line."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to try; `call` gives what was seen, and raises what is wrong."""

    name: str
    call: Callable[[Device], str]


def run_checks(device: Device, show: Callable[[str], None]) -> bool:
    """Try all, a line each; whether everything held."""
    began, good = time.monotonic(), True
    for check in CHECKS:
        start = time.monotonic()
        try:
            state, seen = "ok", check.call(device)
        except CheckError as error:
            state, seen = "NO", str(error)
        except Exception as error:  # whatever is wrong with a part, the others are tried
            state, seen = "NO", f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            show(traceback.format_exc().rstrip())
        good = good and state == "ok"
        show(f"{state:<3} {check.name:<28} {time.monotonic() - start:5.1f} s  {seen}")
    show(f"{'all parts hold' if good else 'SOMETHING DOES NOT HOLD'} on {device}, {time.monotonic() - began:.0f} s")
    return good


def _loads(seed: int = 0, regime: str = "trt") -> Ints:
    counts: Ints = generate(REGIMES[regime], SHAPE.layers, SHAPE.experts, 1, seed).counts[0]
    return counts


def _machine(device: Device) -> str:
    about = environment(device)
    gpus = ", ".join(f"{gpu['name']} (driver {gpu['driver']})" for gpu in about["gpus"])
    idle = {True: "idle", False: "not idle", None: "idle or not: unknown"}[about["idle"]]
    return f"{gpus or about['cpu']}, torch {about['packages']['torch']}, cuda {about['cuda']}, {idle}"


def _exploits(device: Device) -> str:
    """Both public evaluators of this problem take one of these for a perfect placement."""
    placed = np.tile(np.arange(SHAPE.slots) % SHAPE.experts, (SHAPE.layers, 1))
    inverse, counts = maps(placed, SHAPE.experts)
    every = np.broadcast_to(np.arange(SHAPE.slots), (SHAPE.layers, SHAPE.experts, SHAPE.slots)).copy()
    check_placement(placed, inverse, counts, SHAPE)
    for what, forged in (
        ("every slot for every expert", (placed, every, np.full_like(counts, SHAPE.slots))),
        ("a map of four dimensions", (placed, every[:, :, None, :], counts)),
    ):
        try:
            check_placement(*forged, SHAPE)
        except PlacementError:
            continue
        raise CheckError(f"{what} was taken for a placement")
    return "an honest placement passes, both public forgeries are refused"


def _baselines(device: Device) -> str:
    seen, left_out = [], []
    weight = _loads()
    for name, baseline in BASELINES.items():
        try:
            baseline.load()
        except ValueError as error:
            left_out.append(str(error))
            continue
        placed = place(name, weight, SHAPE)
        check_placement(placed, *maps(placed, SHAPE.experts), SHAPE)
        balance, bound = gpu_balance(placed, weight, SHAPE.gpus), gpu_bound(weight, SHAPE, baseline.grouped)
        if balance > bound + 1e-9:
            raise CheckError(f"{name}: balance {balance:.6f} is above the bound {bound:.6f}")
        seen.append(f"{name} {balance:.3f}")
    return "; ".join([", ".join(seen), *left_out])


def _timing(device: Device) -> str:
    """The same program against itself, twice after a run that warms up: what differs is the clock's."""
    from gpu_eval.timing import time_pairs

    call, track = _zigzag_where_loads_are(), _track(device)
    runs = [time_pairs(call, call, [_loads()], track, device=device, limit_s=3.0, seed=seed) for seed in (1, 2, 3)]
    medians = [run.candidate.median_s for run in runs]
    spread = abs(medians[1] / medians[2] - 1)
    ratios = ", ".join(f"{run.ratio:.3f} +- {run.resolution:.1%}" for run in runs[1:])
    seen = f"{1e3 * medians[1]:.3f} ms, run to run {spread:.1%}, ratio to itself {ratios}"
    if caught := [sentence for run in runs for sentence in run.findings]:
        raise CheckError(f"an honest program was caught at: {caught[0]}; {seen}")
    if device == "cuda" and spread > SPREAD:
        raise CheckError(f"{seen}; expected at most {SPREAD:.0%} from run to run: is the machine idle?")
    return seen


def _track(device: Device) -> Track:
    return "device" if device == "cuda" else "host"


def _zigzag_where_loads_are() -> Callable[[Any], object]:
    """The zigzag baseline without groups, computed where its loads lie: on a GPU some dozens of small kernels."""
    import torch

    module = BASELINES["paper_zigzag"].load()

    def call(weight: torch.Tensor) -> object:
        with torch.device(weight.device):
            load = weight.double()
            item_of, copies = module.replicate(load, SHAPE.slots)
            packed = module.zigzag((load / copies).gather(1, item_of), SHAPE.gpus).flatten(1)
            placed = item_of.gather(1, packed)
            return placed, *module.inverse(placed, SHAPE.experts)

    return call


def _program(device: Device) -> str:
    """In a process of its own; and one whose answer is none."""
    from gpu_eval.program import ProgramError, ProgramProcess

    with ProgramProcess(BASELINES["paper_zigzag"].path, track=_track(device), device=device) as process:
        process.load()
        done = process.call([_loads(), _loads(1)], SHAPE)
    for outputs in done.outputs:
        check_placement(*outputs, SHAPE)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "breaks.py")
        path.write_text("def rebalance_experts(*_):\n    raise RuntimeError('on purpose')\n", encoding="utf-8")
        with ProgramProcess(path, device="cpu") as process:
            process.load()
            try:
                process.call([_loads()], SHAPE)
            except ProgramError as error:
                return f"two valid placements; and: {error}"
    raise CheckError("a program that raises was taken for one that answers")


def _steps(device: Device) -> str:
    """Eight placements, from packed to balanced, played rank by rank, twice."""
    from gpu_eval.moe_layer import Placement as Played
    from gpu_eval.moe_layer import measure_steps, rank_order_stability
    from gpu_eval.moe_ranks import MoeRanks

    size = EXPERT_SIZES["small" if device == "cuda" else "tiny"]
    if device == "cuda":
        ranks = MoeRanks(size, SHAPE.slots_per_gpu, device, "bf16")
    else:
        ranks = MoeRanks(size, SHAPE.slots_per_gpu, device, "fp32", replays=2)
    weight = _loads(regime="heavy")
    tokens = np.rint(step_tokens(weight, PHASES["prefill"], SHAPE, size.top_k)).astype(np.int64)
    if device == "cpu":
        tokens //= 64
    placements = _from_packed_to_balanced(weight)
    played = [Played(each) for each in placements]
    runs = [measure_steps(ranks, played, tokens, SHAPE, NETWORKS["h100"], budget_s=5.0, seed=0) for _ in range(2)]
    if not all(run.complete for run in (*runs[0], *runs[1])):
        fewest = min(len(run.rows) for run in (*runs[0], *runs[1]))
        raise CheckError(f"{ranks.kernel.name}: too slow, {fewest} of {SHAPE.layers} layers were played in time")
    stable = rank_order_stability(*runs)
    loads = [1 / gpu_balance(each, weight, SHAPE.gpus) for each in placements]
    follows = spearman(loads, [run.total_s for run in runs[0]])
    seen = f"{ranks.kernel.name}: between two runs {stable:.3f}, with the largest load {follows:.3f} (rank correlation)"
    if device == "cuda" and min(stable, follows) < STABLE:
        raise CheckError(f"{seen}, expected at least {STABLE}")
    return seen


def _from_packed_to_balanced(weight: Ints) -> list[Ints]:
    """Eight placements: the balanced one, with ever more layers' slots sorted by load, so that one GPU gets the hot."""
    balanced = place("paper_zigzag", weight, SHAPE)
    heat = np.take_along_axis(weight, balanced, axis=1)
    packed = np.take_along_axis(balanced, np.argsort(-heat, axis=1, kind="stable"), axis=1)
    steps = []
    for part in range(8):
        moved = SHAPE.slots * part // 7
        mixed = balanced.copy()
        for layer in range(SHAPE.layers):
            head = packed[layer, :moved]
            rest = list(balanced[layer])
            for expert in head:
                rest.remove(expert)
            mixed[layer] = np.concatenate([head, np.array(rest, np.int64)])
        steps.append(mixed)
    return steps


def _several(device: Device) -> str:
    """Real exchanges and moves, checked bit by bit by those who made them."""
    import torch

    from gpu_eval.multi_gpu import measure_placements
    from gpu_eval.multi_gpu_job import MultiGpuJob

    world = torch.cuda.device_count() if device == "cuda" else 2
    shape = Shape(2, 16, 16 + 2 * world, 2 * world)
    rng = np.random.default_rng(0)
    weight = generate(REGIMES["trt"], shape.layers, shape.experts, 1, 0).counts[0]
    tokens = 8 * world
    choices = np.argsort(rng.random((shape.layers, tokens, shape.experts)), axis=2)[:, :, :4]
    gates = np.full(choices.shape, 0.25, np.float32)
    plain = np.tile(np.arange(shape.slots) % shape.experts, (shape.layers, 1))
    job = MultiGpuJob(
        shape,
        EXPERT_SIZES["tiny"],
        (("plain", plain), ("zigzag", place("paper_zigzag", weight, shape))),
        choices,
        gates,
        precision="fp32" if device == "cpu" else "bf16",
        repeats=3,
        warm_up=1,
    )
    result = measure_placements(job, world, device, timeout_s=60.0 + 10.0 * world)
    moved = result.timings[1].move.slots
    seen = f"{result.backend}, {world} processes: {moved} slots moved, outputs off by {result.output_error:.1e} at most"
    return seen if world > 1 else f"{seen}; one GPU: nothing went from one to another"


def _results(device: Device) -> str:
    from gpu_eval.report import write_results
    from gpu_eval.results import read_results

    results = Results(
        bench="eplb", date="2026-01-01T00:00:00Z", device=device, environment=environment(device), settings={}
    )
    with tempfile.TemporaryDirectory() as folder:
        file, page = write_results(results, Path(folder))
        if read_results(file) != results:
            raise CheckError("results are not read back as they were written")
        return f"written, read back, a page of {page.stat().st_size // 1024} KiB"


CHECKS = (
    Check("machine", _machine),
    Check("public forgeries", _exploits),
    Check("baselines and bounds", _baselines),
    Check("the clock", _timing),
    Check("a program's own process", _program),
    Check("one device plays all ranks", _steps),
    Check("several processes", _several),
    Check("results and page", _results),
)
