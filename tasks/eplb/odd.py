"""Odd inputs, for the stress split: loads that break programs, types and layouts, and what no placement exists for.

The policy: loads are finite and at least 0, and sizes divide (slots by GPUs, GPUs by nodes, experts by groups, no fewer
slots than experts); for anything else a program must raise an exception. Silence is worse than a crash there: it
hides a fault of whoever counted, and one public balancer loses experts on infinite loads without a word.

An input is worth the balance of its own window relative to the bound; one that must raise, and does, 1; one that
raises where it should not, or does not where it should, 0. Maps that are no placement fail the program as anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adrs_ray.task import MalformedOutput, shown
from gpu_eval.balance import gpu_balance
from gpu_eval.bounds import gpu_bound
from gpu_eval.shapes import Shape

from .game import Game, Played, verified
from .problems import Problem

Weight = NDArray[np.int64] | NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Odd:
    """One call. `shape` None: it must raise."""

    name: str
    weight: Weight
    sizes: tuple[int, int, int, int]
    """Slots, groups, nodes, GPUs."""
    shape: Shape | None
    dtype: str = "int64"
    """Of the tensor that the program gets, by torch's name."""
    strided: bool = False
    """Whether it is a view that is not contiguous."""


def odd_inputs() -> tuple[Odd, ...]:
    """All of them, in a fixed order."""
    return (*_loads(), *_types(), *_refused())


_SHAPE = Shape(3, 64, 72, 8, 2, 4)


def _loads() -> Iterator[Odd]:
    shape = _SHAPE
    size = (shape.layers, shape.experts)
    ramp = np.arange(shape.experts, dtype=np.int64) * np.ones(size, np.int64)
    hot = np.zeros(size, np.int64)
    hot[:, 5] = 1_000_000
    zero_layer = ramp.copy()
    zero_layer[1] = 0
    yield _valid("all zero", np.zeros(size, np.int64))
    yield _valid("a layer of zeros", zero_layer)
    yield _valid("one hot expert", hot)
    yield _valid("all equal", np.full(size, 1000))
    yield _valid("a ramp", ramp)
    yield _valid("half of them ten times hotter", np.where(ramp % 2 == 0, 1000, 100))
    yield _valid("equal after rounding to float32", 10**15 + ramp)
    yield _valid("half of what int64 holds", np.full(size, np.iinfo(np.int64).max // 2))
    yield _valid("counts of 0 and 1", ramp % 2)
    yield _valid("one group has all", np.where(ramp < 16, 500 + ramp, 0))
    one = Shape(1, 12, 12, 1)
    yield Odd("one GPU", np.arange(12)[None] + 0, (12, 1, 1, 1), one)
    yield Odd("one expert", np.array([[7]]), (4, 1, 1, 4), Shape(1, 1, 4, 4))
    flat = Shape(2, 16, 16, 16, 4, 4)
    yield Odd("a slot per GPU", np.arange(32).reshape(2, 16), (16, 4, 4, 16), flat)
    loose = Shape(2, 30, 36, 6, 2, 3)
    yield Odd("groups that do not divide over nodes", np.arange(60).reshape(2, 30), (36, 3, 2, 6), loose)


def _types() -> Iterator[Odd]:
    small = np.arange(192, dtype=np.int64).reshape(3, 64) % 200  # exact in all of these types
    for dtype in ("int32", "float32", "float64", "bfloat16", "float16"):
        yield _valid(dtype, small.astype(np.float64) if "float" in dtype else small, dtype=dtype)
    yield _valid("not contiguous", small, strided=True)
    yield _valid("not contiguous float32", small.astype(np.float64), dtype="float32", strided=True)


def _refused() -> Iterator[Odd]:
    ramp = np.arange(192, dtype=np.float64).reshape(3, 64)
    for name, value in (("nan", np.nan), ("inf", np.inf), ("negative", -1.0)):
        weight = ramp.copy()
        weight[1, 7] = value
        yield Odd(f"a load that is {name}", weight, _sizes(_SHAPE), None, "float32")
    yield Odd("float16 counts that overflow", np.where(ramp == 70, 1e6, ramp), _sizes(_SHAPE), None, "float16")
    yield Odd("a negative count", ramp.astype(np.int64) - 1, _sizes(_SHAPE), None)
    counts = ramp.astype(np.int64)
    yield Odd("slots that do not divide over GPUs", counts, (75, 4, 2, 8), None)
    yield Odd("GPUs that do not divide over nodes", counts, (72, 1, 3, 8), None)
    yield Odd("experts that do not divide over groups", counts, (72, 3, 1, 8), None)
    yield Odd("fewer slots than experts", counts, (56, 4, 2, 8), None)


def _valid(name: str, weight: Weight, dtype: str = "int64", strided: bool = False) -> Odd:
    return Odd(name, weight, _sizes(_SHAPE), _SHAPE, dtype, strided)


def _sizes(shape: Shape) -> tuple[int, int, int, int]:
    return (shape.slots, shape.groups, shape.nodes, shape.gpus)


def play_odd(inputs: tuple[Odd, ...], device: str) -> Game:
    """The game of all odd inputs: what each is worth. Raises InvalidOutput, MalformedOutput."""
    played = Played()
    yield {"op": "load"}
    for each in inputs:
        reply = yield {
            "op": "odd",
            "weight": each.weight,
            "dtype": each.dtype,
            "strided": each.strided,
            "sizes": list(each.sizes),
            "device": device,
        }
        played.odd[each.name] = _worth(each, reply)
    return played.plain()


def _worth(each: Odd, reply: Any) -> float:
    if not isinstance(reply, Mapping) or not reply.keys() & {"raised", "answer"}:
        raise MalformedOutput(f"{each.name}: expected maps or an exception, got {shown(reply)}")
    if "raised" in reply or each.shape is None:
        return float(each.shape is None and "raised" in reply)
    problem = Problem(each.name, each.shape, ())
    placed = verified(reply["answer"], problem, "odd input")
    balance = gpu_balance(placed, each.weight, each.shape.gpus)
    return balance / gpu_bound(each.weight, each.shape, problem.grouped)
