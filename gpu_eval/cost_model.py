"""Seconds of a rank, a layer and a step, from the tokens that each slot gets.

A rank runs the experts of its slots on their tokens n_1 .. n_S. It streams the weights of every slot that has any, and
multiplies in tiles of rows, so that 129 tokens cost as 256 where a tile has 128:

    seconds = launch + token * sum n + (memory^p + compute^p)^(1/p)
    memory  = active slots * seconds per slot's weights
    compute = sum ceil(n / tile) * seconds per tile

p = inf is the roofline's max; a smaller p rounds its corner. Decode (about 114 tokens a slot for DeepSeek-V3) is bound
by memory and hardly feels balance; prefill is bound by compute and follows the fullest rank. A layer waits for its
slowest rank, dispatch and combine included; a step is the sum of its layers.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .balance import slot_loads
from .communication import Network, Traffic, exchange_seconds, expected_traffic
from .shapes import ExpertSize, Shape

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64] | Floats


@dataclass(frozen=True, slots=True)
class Phase:
    """A kind of step: how many tokens every GPU brings to it."""

    name: str
    tokens_per_gpu: int


PHASES: dict[str, Phase] = {phase.name: phase for phase in (Phase("prefill", 4096), Phase("decode", 128))}


@dataclass(frozen=True, slots=True)
class CostModel:
    """Fitted or computed constants of one device, expert size and precision; the module's docstring has the formula."""

    device: str
    size: ExpertSize
    precision: str
    """bf16, fp8 or fp32."""
    launch_s: float
    token_s: float
    active_s: float
    """Seconds to stream the weights of one slot."""
    tile: int
    """Rows of a tile."""
    tile_s: float
    sharpness: float
    """p of the formula; inf: max."""
    origin: str
    """Measured when and on what, or computed from what."""
    residual: float | None = None
    """Root mean square of relative errors on the samples fitted; None: not fitted."""

    def rank_seconds(self, tokens_per_slot: Counts) -> Floats:
        """Seconds of ranks, [...], from the tokens of their slots [..., slots per GPU]. Fractions are expectations."""
        tokens = np.asarray(tokens_per_slot, dtype=np.float64)
        active = np.minimum(tokens, 1.0).sum(axis=-1)
        tiles = np.ceil(tokens / self.tile).sum(axis=-1)
        seconds: Floats = (
            self.launch_s
            + self.token_s * tokens.sum(axis=-1)
            + corner(active * self.active_s, tiles * self.tile_s, self.sharpness)
        )
        return seconds

    def to_json(self) -> dict[str, Any]:
        """Plain values; `from_json` reads them back. An infinite sharpness is written as null."""
        return {**asdict(self), "sharpness": None if math.isinf(self.sharpness) else self.sharpness}

    @classmethod
    def from_json(cls, data: object) -> CostModel:
        """ValueError, one line, on what `to_json` would not have written."""
        if not isinstance(data, dict) or set(data) != {field.name for field in fields(cls)}:
            raise ValueError(f"a cost model has exactly the keys {', '.join(field.name for field in fields(cls))}")
        size = _size(data["size"])
        sharpness = math.inf if data["sharpness"] is None else data["sharpness"]
        for name in ("device", "precision", "origin"):
            if not isinstance(data[name], str):
                raise ValueError(f"cost model: {name} is {data[name]!r}, expected a text")
        for name in ("launch_s", "token_s", "active_s", "tile_s"):
            if not _is_number(data[name]) or not 0 <= data[name] < math.inf:
                raise ValueError(f"cost model: {name} is {data[name]!r}, expected a number of at least 0")
        if not _is_number(sharpness) or not sharpness >= 1:
            raise ValueError(f"cost model: sharpness is {sharpness!r}, expected a number of at least 1, or null")
        if type(data["tile"]) is not int or data["tile"] < 1:
            raise ValueError(f"cost model: tile is {data['tile']!r}, expected a whole number of at least 1")
        if data["residual"] is not None and not _is_number(data["residual"]):
            raise ValueError(f"cost model: residual is {data['residual']!r}, expected a number or null")
        return cls(**{**data, "size": size, "sharpness": sharpness})


def _size(data: object) -> ExpertSize:
    wanted = {field.name: int for field in fields(ExpertSize)} | {"name": str}
    if not isinstance(data, dict) or {name: type(value) for name, value in data.items()} != wanted:
        raise ValueError("cost model: size has a text name and the whole numbers hidden, intermediate and top_k")
    return ExpertSize(**data)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def corner(memory: Floats, compute: Floats, sharpness: float) -> Floats:
    """(memory^p + compute^p)^(1/p) without overflow; p = inf: the larger."""
    larger, smaller = np.maximum(memory, compute), np.minimum(memory, compute)
    if math.isinf(sharpness):
        return larger
    ratio = np.divide(smaller, larger, out=np.zeros_like(larger), where=larger > 0)
    seconds: Floats = larger * (1.0 + ratio**sharpness) ** (1.0 / sharpness)
    return seconds


def save_models(models: list[CostModel], path: Path) -> None:
    """Write models for `read_models`."""
    path.write_text(json.dumps({"models": [model.to_json() for model in models]}, indent=1) + "\n")


def read_models(path: Path) -> list[CostModel]:
    """The models of a file as `save_models` writes it; ValueError, one line, naming the file, on anything else."""
    try:
        data = json.loads(path.read_text())
        return [CostModel.from_json(model) for model in data["models"]]
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{path}: no file of cost models: {error}") from None


def constants(device: str = "h100", size: str = "deepseek_v3", precision: str = "bf16") -> CostModel:
    """A model of `constants/DEVICE.json`; its `origin` tells whether it was measured. ValueError if there is none."""
    folder = Path(__file__).parent / "constants"
    names = sorted(path.stem for path in folder.glob("*.json"))
    if device not in names:
        raise ValueError(f"no constants for device {device!r}, expected one of {', '.join(names)}")
    models = read_models(folder / f"{device}.json")
    for model in models:
        if (model.size.name, model.precision) == (size, precision):
            return model
    known = ", ".join(f"{model.size.name} {model.precision}" for model in models)
    raise ValueError(f"constants/{device}.json has no {size} in {precision}, expected one of {known}")


def step_tokens(
    counts: Counts, phase: Phase, shape: Shape, top_k: int, rng: np.random.Generator | None = None
) -> Counts:
    """Tokens [L, E] of one step in which every GPU brings `phase.tokens_per_gpu`, spread over experts as `counts` are.

    Without `rng` the expectation (float64); with it one multinomial draw (int64), which keeps the noise that a window's
    sum averages away. A layer without counts gets none.
    """
    weight = np.asarray(counts, dtype=np.float64)
    routed = phase.tokens_per_gpu * shape.gpus * top_k
    total = weight.sum(axis=1, keepdims=True)
    share = np.divide(weight, total, out=np.zeros_like(weight), where=total > 0)
    if rng is None:
        expected: Floats = share * routed
        return expected
    drawn = [rng.multinomial(routed if any_load else 0, row) for row, any_load in zip(share, total > 0, strict=True)]
    return np.array(drawn, dtype=np.int64).reshape(weight.shape)


@dataclass(frozen=True, slots=True)
class StepLatency:
    """Seconds of a step: each rank's dispatch, experts and combine [L, G], each layer's slowest rank [L], their sum."""

    layer_s: Floats
    rank_s: Floats
    total_s: float


def step_seconds(
    model: CostModel,
    network: Network,
    phy2log: npt.NDArray[np.int64],
    tokens: Counts,
    shape: Shape,
    split: Floats | None = None,
    traffic: Traffic | None = None,
) -> StepLatency:
    """Latency of one step with placement `phy2log` [L, P] and `tokens` [L, E] routed to each expert in it.

    `split` [L, P] deals an expert's tokens among its slots (None: equally). `traffic` is what `exact_traffic` found for
    the step's tokens; without it the expectation from `tokens` serves. Layers are independent and L is the arrays':
    many windows at once are windows stacked as layers.
    """
    slots = slot_loads(phy2log, tokens, split)
    experts_s = model.rank_seconds(slots.reshape(len(slots), shape.gpus, -1))
    if traffic is None:
        traffic = expected_traffic(phy2log, slots, shape, model.size.top_k)
    return slowest(experts_s + exchange_seconds(traffic, shape, model.size, network))


def slowest(rank_s: Floats) -> StepLatency:
    """The step whose ranks take `rank_s` [L, G]."""
    layer_s: Floats = rank_s.max(axis=1)
    return StepLatency(layer_s, rank_s, float(layer_s.sum()))
