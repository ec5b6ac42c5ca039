"""Results of both benches, small and complete, with a program whose name is an attack."""

from __future__ import annotations

from dataclasses import replace

from gpu_eval.results import (
    EplbRow,
    Fidelity,
    Interval,
    MoePlacementRow,
    MultiGpuRow,
    RankLatency,
    Results,
    Source,
)

HOSTILE = "</script><script>alert(1)</script>|*x*\x1b[31m\n<img src=x onerror=alert(2)>"
ENVIRONMENT = {
    "device": "cpu",
    "gpus": [],
    "cpu": "some CPU",
    "cores": 2,
    "idle": False,
    "packages": {"numpy": "2.4", "torch": None},
    "python": "3.11",
}


def eplb_row(program: str, source: Source = "generated", regime: str = "trt") -> EplbRow:
    return EplbRow(
        program=program,
        kind="baseline",
        source=source,
        regime=regime,
        shape="58x256-288/32/4/8",
        grouped=True,
        same_balance=0.9229,
        next_balance=0.7801,
        paper_balancedness=0.3247,
        gpu_bound=0.929,
        next_bound=0.931,
        slot_bound=0.377,
        duplicates=12,
        group_violations=0,
        host_ms=Interval(1.3, 1.2, 1.5),
        findings=("cached results",),
    )


def eplb_results() -> Results:
    rows = (
        eplb_row("deepseek"),
        replace(eplb_row("heap_lpt"), grouped=False, device_ms=Interval(0.1, 0.1, 0.2)),
        replace(eplb_row(HOSTILE), kind="program", regime=HOSTILE),
        EplbRow(
            program="numba_only",
            kind="baseline",
            source="generated",
            regime="trt",
            shape="58x256-288/32/4/8",
            grouped=True,
            status="numba is not installed",
        ),
        eplb_row("deepseek", "recorded", "my traffic"),
    )
    return Results(
        bench="eplb",
        date="2026-01-02T03:04:05Z",
        device="cpu",
        environment=ENVIRONMENT,
        settings={"seed": 1},
        eplb=rows,
    )


def moe_row(program: str, moved: float, ratio: float) -> MoePlacementRow:
    return MoePlacementRow(
        program=program,
        kind="baseline",
        source="generated",
        regime="steady",
        shape="58x256-288/32/4/8",
        phase="prefill",
        stage="model",
        network="h100",
        total_s=100 * ratio,
        steps_s=90 * ratio,
        decisions_s=1.0,
        moves_s=9.0,
        moved_gib_per_gpu=moved,
        p99_step_s=0.3,
        ratio_never=ratio,
        ratio_deepseek_every=1.2,
        ratio_oracle=1.4,
    )


def moe_results() -> Results:
    latency = RankLatency(
        program=HOSTILE,
        source="generated",
        regime="steady",
        shape="58x256-288/32/4/8",
        phase="prefill",
        stage="measured",
        seconds=((0.001, 0.002), (0.003, 0.004)),
    )
    return Results(
        bench="moe_placement",
        date="2026-01-02T03:04:05Z",
        device="cuda",
        environment=ENVIRONMENT | {"gpus": [{"name": "H200", "driver": "580", "power_limit_w": None}]},
        settings={},
        moe_placement=(moe_row("never", 0.0, 1.0), moe_row(HOSTILE, 20.4, 0.9)),
        rank_latencies=(latency, replace(latency, program="never")),
        fidelity=(
            Fidelity(
                cheap="cost model",
                dear="one GPU",
                source="generated",
                regime="steady",
                phase="prefill",
                pairs=8,
                spearman=0.97,
                median_error=0.05,
            ),
        ),
        multi_gpu=(
            MultiGpuRow(
                program="never",
                source="generated",
                regime="steady",
                phase="prefill",
                backend="gloo",
                world=2,
                virtual_ranks=2,
                step_s=Interval(0.01, 0.009, 0.011),
                notes=("unproven",),
            ),
        ),
    )
