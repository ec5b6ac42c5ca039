"""What steps and copies of a served trace take by the cost model, and the least that any placements could take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bounds import gpu_load_bounds
from .communication import MovePlan, Network, plan_moves
from .cost_model import CostModel, corner, step_seconds
from .precision import token_bytes
from .serving import ServingConfig
from .shapes import Shape

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class ModelCosts:
    """`serving.Costs` by a cost model of one device and a network.

    Raises ValueError where the model is of another expert or precision than what is served.
    """

    model: CostModel
    network: Network
    config: ServingConfig

    def __post_init__(self) -> None:
        served = (self.config.size, self.config.precision)
        if (self.model.size, self.model.precision) != served:
            raise ValueError(
                f"the cost model is of {self.model.size.name} in {self.model.precision}, "
                f"served is {served[0].name} in {served[1]}"
            )

    def layer_seconds(self, placement: Ints, split: Floats | None, tokens: Ints) -> Floats:
        """Seconds [S, L] of the layers in steps with `tokens` [S, L, E]: the slowest rank, dispatch and combine in."""
        samples, layers, experts = tokens.shape
        stacked = np.tile(placement, (samples, 1))
        shares = None if split is None else np.tile(split, (samples, 1))
        step = step_seconds(
            self.model, self.network, stacked, tokens.reshape(-1, experts), self.config.shape, split=shares
        )
        return step.layer_s.reshape(samples, layers)

    def copying(self, old: Ints, new: Ints) -> tuple[Floats, Ints]:
        """Seconds [L] of copying each layer by itself, and experts that GPUs fetch [L]."""
        plan = plan_moves(old, new, self.config.shape, layer_by_layer=True)
        return copy_seconds(plan, self.config.shape, self.config.bytes_per_expert, self.network)


def copy_seconds(plan: MovePlan, shape: Shape, bytes_per_expert: int, network: Network) -> tuple[Floats, Ints]:
    """Seconds [L] of a plan's copies when layers are copied one after the other, and fetches [L].

    A layer takes what its busiest end takes, in or out, NVLink and InfiniBand at the same time, and the fixed time of
    an exchange; a layer without fetches takes nothing.
    """
    fetched = np.bincount(plan.layer, minlength=shape.layers)
    near = plan.source // shape.gpus_per_node == plan.target // shape.gpus_per_node
    seconds = np.zeros(shape.layers)
    for link, rate in ((near, network.nvlink_gb_s), (~near, network.ib_gb_s)):
        for end in (plan.source, plan.target):
            ends = np.bincount(plan.layer[link] * shape.gpus + end[link], minlength=shape.layers * shape.gpus)
            busiest = ends.reshape(shape.layers, shape.gpus).max(axis=1)
            seconds = np.maximum(seconds, busiest * bytes_per_expert / (rate * 1e9))
    return np.where(fetched > 0, seconds + network.fixed_us * 1e-6, 0.0), fetched


def least_seconds(tokens: Ints, model: CostModel, network: Network, shape: Shape) -> Floats:
    """What a layer takes at least with `tokens` [..., L, E], under any placement and split: [..., L].

    Let T be the tokens of a layer (the sum of its counts / top_k) and f(s) = 1 - exp(-s). A GPU whose slots carry s T
    token-expert pairs receives at least f(s) T tokens, as 1 - prod (1 - p) >= 1 - exp(-sum p); a node likewise. The
    slowest rank takes at least each of:

    Fullest GPU. It carries at least the load M of `bounds.gpu_load_bounds`: its time with M in its slots, at M / tile
    tiles and no weights to stream, and with f(M / T) T tokens received by NVLink, or as its node's share by InfiniBand.

    Fullest node. It carries at least 1/nodes of all and receives f(top_k / nodes) T tokens; its fullest GPU carries at
    least the mean load.

    Mean of all ranks. An expert with tokens is active in some slot, and n of its tokens take at least ceil(n / tile)
    tiles, however they are split. The tokens that cross are fewest when experts sit together, the hottest first: k
    owners of c slots each carry no more than the k c hottest experts have, so what owners carry is majorised by that
    filling, and the sum of a concave f is least there. A mean of larger-of-two is at least the larger mean.
    """
    loads = np.asarray(tokens, np.float64)
    flat = loads.reshape(-1, loads.shape[-1])
    total = flat.sum(axis=1) / model.size.top_k
    mean = flat.sum(axis=1) / shape.gpus
    fullest = gpu_load_bounds(flat, shape, grouped=False)
    reach = _reach(fullest, total)
    node_reach = _reach(mean * shape.gpus_per_node, total)
    by_gpu = _ranks(model, fullest) + _exchange(reach, reach, shape, model, network)
    by_node = _ranks(model, mean) + _exchange(_reach(mean, total), node_reach, shape, model, network)
    crossing = [_gathered(flat, total, owners, shape.slots // owners) / owners for owners in (shape.gpus, shape.nodes)]
    memory = np.minimum(flat, 1.0).sum(axis=1) / shape.gpus * model.active_s
    compute = np.ceil(flat / model.tile).sum(axis=1) / shape.gpus * model.tile_s
    on_average = (
        model.launch_s
        + model.token_s * mean
        + corner(memory, compute, model.sharpness)
        + _exchange(crossing[0], crossing[1], shape, model, network)
    )
    least: Floats = np.maximum(np.maximum(by_gpu, by_node), on_average)
    return least.reshape(loads.shape[:-1])


def _ranks(model: CostModel, load: Floats) -> Floats:
    return model.launch_s + load * (model.token_s + model.tile_s / model.tile)


def _reach(load: Floats, total: Floats) -> Floats:
    """Tokens that an owner receives at least whose slots carry `load` pairs."""
    share = np.divide(load, total, out=np.zeros_like(load), where=total > 0)
    return -np.expm1(-share) * total


def _gathered(loads: Floats, total: Floats, owners: int, slots: int) -> Floats:
    """The fewest tokens that owners of `slots` slots receive, all together."""
    width = owners * slots
    hottest = np.zeros((len(loads), width))
    hottest[:, : loads.shape[1]] = -np.sort(-loads, axis=1)
    carried = hottest.reshape(len(loads), owners, slots).sum(axis=2)
    received = _reach(carried, np.repeat(total[:, None], owners, axis=1))
    return np.asarray(received.sum(axis=1), np.float64)


def _exchange(at_gpu: Floats, at_node: Floats, shape: Shape, model: CostModel, network: Network) -> Floats:
    """Dispatch and combine of a GPU that receives `at_gpu` tokens, on a node that receives `at_node`."""
    local = shape.gpus_per_node
    both = token_bytes(model.size.hidden, "fp8") + token_bytes(model.size.hidden, "bf16")
    nvlink = at_gpu * (1 - 1 / local) / (network.nvlink_gb_s * 1e9)
    ib = at_node / local * (1 - 1 / shape.nodes) / (network.ib_gb_s * 1e9)
    fixed = 2 * network.fixed_us * 1e-6 if shape.gpus > 1 else 0.0
    return np.asarray(np.maximum(nvlink, ib) * both + fixed, np.float64)
