"""The bench of placement over time: policies and given programs, served over traces, by the cost model and measured.

Every row is one program over one trace (`gpu_eval.serving`): wall time of all steps with decisions and moves in it, and
its ratios to never rebalancing, to DeepSeek's rule after every window, and to a clairvoyant whose moves are free. The
cost model's constants say where they come from. On a GPU the model is fitted to it first, and steps of the placements
that were in force are measured there, on the same windows and layers for all: `Fidelity` says how well both agree.
On a CPU the same measurement runs with tiny experts, so that the path is tried; its seconds mean nothing for a GPU.
Interrupted, a run gives the rows that it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_eval.batched_lpt import without_groups
from gpu_eval.bench_several import several
from gpu_eval.calibration import calibrate
from gpu_eval.communication import NETWORKS
from gpu_eval.cost_model import PHASES, CostModel, constants
from gpu_eval.environment import environment
from gpu_eval.error_text import one_line, typed_line
from gpu_eval.moe_policies import POLICIES, Policy
from gpu_eval.moe_ranks import MoeRanks
from gpu_eval.moe_rows import Measured, measure_rows
from gpu_eval.recorded import fitted, load_recorded
from gpu_eval.results import Device, Fidelity, MoePlacementRow, MultiGpuRow, Phase, RankLatency, Results
from gpu_eval.row_budget import Rows
from gpu_eval.serving import ServingConfig, ServingResult, driven, serve
from gpu_eval.serving_costs import ModelCosts
from gpu_eval.serving_reference import Reference, reference
from gpu_eval.shapes import EXPERT_SIZES, SHAPES, Shape
from gpu_eval.statistics import median, spearman
from gpu_eval.workloads import REGIMES, LoadTrace, generate, regime_named

Ints = NDArray[np.int64]
Told = Callable[[str], None]
GIB = 2.0**30
GPU_ROWS = Rows(windows=4, layers=4, budget_s=60.0)
QUICK_ROWS = Rows(windows=2, layers=2, budget_s=5.0)
CPU_ROWS = Rows(windows=1, layers=1, budget_s=1.0)
"""What is measured of each trace and phase; on a CPU one row, which takes as long as it takes."""
CPU_REPLAYS = 2


@dataclass(frozen=True, slots=True)
class MoeOptions:
    """What to measure. `loads`: a recorded series in place of the regimes."""

    device: Device = "cpu"
    regimes: tuple[str, ...] = tuple(REGIMES)
    shapes: tuple[Shape, ...] = SHAPES[:1]
    phases: tuple[Phase, ...] = ("prefill", "decode")
    policies: tuple[str, ...] = tuple(POLICIES)
    programs: tuple[Path, ...] = ()
    loads: Path | None = None
    entries_per_window: int | None = None
    constants: str = "h100"
    """Whose cost model counts: a file of `gpu_eval/constants`. On a GPU the model is fitted instead."""
    windows: int = 24
    """Of generated traces, the first one included, which is shown and does not count."""
    window_steps: int = 100
    seed: int = 0
    launcher: tuple[str, ...] = ()
    """The command that starts a program's process; empty: plain Python, without a jail."""
    gpu_rows: Rows = GPU_ROWS
    """What is measured of each trace and phase on a GPU."""


@dataclass(frozen=True, slots=True)
class Served:
    """One trace under one configuration, and what its rows are held against."""

    trace: LoadTrace
    config: ServingConfig
    costs: ModelCosts
    reference: Reference


def run(options: MoeOptions, told: Told = lambda line: None) -> Results:
    """Measure all. `told` hears a line per row. Raises ValueError, one line, for options that name nothing."""
    about = environment(options.device)
    policies = chosen_policies(options)
    traces = list(_traces(options))
    bench = _Bench(options, told)
    interrupted = False
    try:
        for trace, shape in traces:
            for phase in options.phases:
                bench.serve(trace, shape, phase, policies)
    except KeyboardInterrupt:
        if not bench.rows:
            raise
        interrupted = True
    return Results(
        bench="moe_placement",
        date=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device=options.device,
        environment=about,
        settings={
            "seed": options.seed,
            "windows": ", ".join(map(str, sorted({trace.windows for trace, _ in traces}))),
            "steps per window": options.window_steps,
            "cost model": "; ".join(sorted(bench.origins)),
            "steps measured": "tiny experts on this CPU" if options.device == "cpu" else "the experts served",
            "programs": "none" if not options.programs else "in a jail" if options.launcher else "without a jail",
        }
        | ({"interrupted": f"after {len(bench.rows)} rows"} if interrupted else {})
        | ({"not measured": "; ".join(bench.unmeasured)} if bench.unmeasured else {}),
        moe_placement=tuple(bench.rows),
        rank_latencies=tuple(bench.latencies),
        fidelity=tuple(bench.fidelity),
        multi_gpu=bench.multi_gpu,
    )


def chosen_policies(options: MoeOptions) -> list[Policy]:
    """What is compared. Raises ValueError, one line, for a policy that is unknown."""
    from gpu_eval.placement_process import LAUNCHER, ProgramPolicy

    for name in options.policies:
        if name not in POLICIES:
            raise ValueError(f"no policy {name!r}, expected one of {', '.join(POLICIES)}")
    made: list[Policy] = [POLICIES[name] for name in options.policies]
    return [*made, *(ProgramPolicy(path, options.launcher or LAUNCHER) for path in options.programs)]


def _traces(options: MoeOptions) -> Iterator[tuple[LoadTrace, Shape]]:
    if options.loads is None:
        for shape in options.shapes:
            for name in options.regimes:
                made = generate(
                    regime_named(name), shape.layers, shape.experts, options.windows, options.seed, samples=2
                )
                yield made, shape
        return
    for trace in load_recorded(options.loads, options.entries_per_window):
        if trace.windows < 2:
            raise ValueError(f"{options.loads}: {trace.name} is one window, a trace needs at least two in a row")
        for shape in fitted(options.shapes, trace, options.loads):
            yield trace, shape


class _Bench:
    """Rows as they are gathered; one device model and one set of weights for all of them."""

    def __init__(self, options: MoeOptions, told: Told) -> None:
        self._options, self._told = options, told
        self._size = EXPERT_SIZES["deepseek_v3"]
        self._ranks: dict[int, MoeRanks] = {}
        self._models: dict[int, CostModel] = {}
        self.origins: set[str] = set()
        self.rows: list[MoePlacementRow] = []
        self.latencies: list[RankLatency] = []
        self.fidelity: list[Fidelity] = []
        self.multi_gpu: tuple[MultiGpuRow, ...] = ()
        self.unmeasured: list[str] = []

    def serve(self, trace: LoadTrace, shape: Shape, phase: Phase, policies: Sequence[Policy]) -> None:
        """All rows of one trace and phase: by the model, then measured."""
        config = ServingConfig(
            shape, self._size, phase, PHASES[phase].tokens_per_gpu, self._options.window_steps, precision="bf16"
        )
        costs = ModelCosts(self._model(shape), NETWORKS["h100"], config)
        served = Served(trace, config, costs, reference(trace, config, costs, _initial(trace, config)))
        results: list[tuple[Policy, ServingResult]] = []
        for policy in policies:
            try:
                result = _play(served, policy)
            except ValueError as error:
                self._add(_row(served, policy, status=one_line(error)))
                continue
            results.append((policy, result))
            self._add(_row(served, policy, **_figures(served, result)))
        if not results:
            return
        try:
            self._measure(served, results)
        except Exception as error:  # what a device does wrong costs no row that the model gave
            self.unmeasured.append(f"{trace.name} {phase}: {typed_line(error)}")
            self._told(f"not measured: {self.unmeasured[-1]}")

    def _measure(self, served: Served, results: Sequence[tuple[Policy, ServingResult]]) -> None:
        trace, config = served.trace, served.config
        rows = self._options.gpu_rows if self._options.device == "cuda" else CPU_ROWS
        measured = measure_rows(
            trace,
            [result for _, result in results],
            served.costs,
            self._ranks_of(config.shape),
            rows,
            self._options.seed,
        )
        for (policy, _), found in zip(results, measured, strict=True):
            self.latencies.append(_latency(served, policy, found))
        self.fidelity.append(_fidelity(served, measured, other=self._options.device == "cpu"))
        self._told(
            f"{trace.name} {config.phase}: measured {len(measured[0].rank_s)} rows of {len(results)} programs, "
            f"rank correlation with the model {_shown(self.fidelity[-1].spearman)}"
        )
        if config.phase == "prefill" and len(results) > 1 and not self.multi_gpu:
            self._measure_several(served, results)

    def _measure_several(self, served: Served, results: Sequence[tuple[Policy, ServingResult]]) -> None:
        """What was in force at the end of the trace."""
        placements = [(policy.name, result.placements[-1].astype(np.int64)) for policy, result in results]
        trace, costs, options = served.trace, served.costs, self._options
        found = several(
            trace, served.config.shape, placements, costs.model, costs.network, options.device, options.seed
        )
        if found is not None:
            self.multi_gpu = found.rows
            self.fidelity.append(found.fidelity)
            self._told(f"{trace.name} prefill: {found.rows[0].world} processes measured {len(found.rows)} placements")

    def _model(self, shape: Shape) -> CostModel:
        """Fitted to the GPU, or the constants of the one that the options name."""
        slots = shape.slots_per_gpu
        if slots not in self._models:
            if self._options.device == "cuda":
                self._models[slots] = calibrate(self._ranks_of(shape), seed=self._options.seed)
            else:
                self._models[slots] = constants(self._options.constants, self._size.name, "bf16")
            self.origins.add(self._models[slots].origin)
        return self._models[slots]

    def _ranks_of(self, shape: Shape) -> MoeRanks:
        slots = shape.slots_per_gpu
        if slots not in self._ranks:
            self._ranks.clear()  # weights of one shape at a time
            seed = self._options.seed
            if self._options.device == "cuda":
                self._ranks[slots] = MoeRanks(self._size, slots, "cuda", "bf16", seed=seed)
            else:
                tiny = EXPERT_SIZES["tiny"]
                self._ranks[slots] = MoeRanks(tiny, slots, "cpu", "fp32", replays=CPU_REPLAYS, seed=seed)
        return self._ranks[slots]

    def _add(self, row: MoePlacementRow) -> None:
        self.rows.append(row)
        where = f"{row.program} on {row.regime} {row.phase}"
        if row.total_s is None:
            self._told(f"{where}: {row.status}")
        else:
            self._told(
                f"{where}: {row.total_s:.4g} s, {row.ratio_never:.3f} of never, {row.ratio_oracle:.3f} of oracle"
            )


def _initial(trace: LoadTrace, config: ServingConfig) -> Ints:
    """Balanced for the first window, which does not count."""
    return without_groups(trace.counts[0], config.shape)


def _play(served: Served, policy: Policy) -> ServingResult:
    from gpu_eval.serving_brief import brief

    trace, config = served.trace, served.config
    with policy.deciding(config, brief(config, served.costs, trace.windows - 1, trace.samples.shape[1])) as ask:
        return driven(serve(trace, config, served.costs, _initial(trace, config)), ask)


def _figures(served: Served, result: ServingResult) -> dict[str, Any]:
    moved = result.fetched * served.config.bytes_per_expert / served.config.shape.gpus / GIB
    return {
        "total_s": result.seconds,
        "steps_s": float(result.step_seconds.sum()) - result.stall_seconds,
        "decisions_s": float(result.decision_seconds.sum()),
        "moves_s": result.stall_seconds,
        "moved_gib_per_gpu": moved,
        "p99_step_s": result.p99_step_seconds,
        "ratio_never": result.seconds / served.reference.never.seconds,
        "ratio_deepseek_every": result.seconds / served.reference.deepseek_s,
        "ratio_oracle": result.seconds / served.reference.oracle_s,
    }


def _row(served: Served, policy: Policy, **figures: Any) -> MoePlacementRow:
    return MoePlacementRow(
        program=policy.name,
        kind=policy.kind,
        source=served.trace.source,
        regime=served.trace.name,
        shape=served.config.shape.name,
        phase=served.config.phase,
        stage="model",
        network=served.costs.network.name,
        **figures,
    )


def _latency(served: Served, policy: Policy, found: Measured) -> RankLatency:
    return RankLatency(
        program=policy.name,
        source=served.trace.source,
        regime=served.trace.name,
        shape=served.config.shape.name,
        phase=served.config.phase,
        stage="measured",
        seconds=tuple(tuple(value or 0.0 for value in row) for row in found.rank_s),
    )


def _fidelity(served: Served, measured: Sequence[Measured], other: bool) -> Fidelity:
    """`other`: what was measured were other experts than the model's, so that seconds cannot be compared."""
    model, dear = [found.model_s for found in measured], [found.measured_s for found in measured]
    varied = len(measured) > 1 and len(set(model)) > 1 and len(set(dear)) > 1
    return Fidelity(
        cheap="cost model",
        dear="tiny experts on a CPU" if other else "one GPU, measured",
        source=served.trace.source,
        regime=served.trace.name,
        phase=served.config.phase,
        pairs=len(measured),
        spearman=spearman(model, dear) if varied else None,
        median_error=None if other else median([abs(a / b - 1) for a, b in zip(model, dear, strict=True) if b > 0]),
    )


def _shown(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"
