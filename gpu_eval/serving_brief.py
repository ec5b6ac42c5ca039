"""What a program that places experts over time is told of the trace to come: everything but the loads."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from gpu_eval.serving_costs import ModelCosts
from gpu_eval.serving_rules import ServingConfig


def brief(config: ServingConfig, costs: ModelCosts, windows: int, samples: int) -> dict[str, Any]:
    """Shape, steps, bytes, rates and constants, as plain JSON values; `windows` are those that count."""
    return {
        **asdict(config.shape),
        "phase": config.phase,
        "windows": windows,
        "window_steps": config.window_steps,
        "samples": samples,
        "tokens_per_gpu": config.tokens_per_gpu,
        "top_k": config.size.top_k,
        "hidden": config.size.hidden,
        "intermediate": config.size.intermediate,
        "bytes_per_expert": config.bytes_per_expert,
        "overlap": config.overlap,
        "stall_cap": config.stall_cap,
        "nvlink_gb_s": costs.network.nvlink_gb_s,
        "ib_gb_s": costs.network.ib_gb_s,
        "exchange_s": costs.network.fixed_us * 1e-6,
        "tile": costs.model.tile,
        "tile_s": costs.model.tile_s,
        "active_s": costs.model.active_s,
        "token_s": costs.model.token_s,
        "launch_s": costs.model.launch_s,
    }
