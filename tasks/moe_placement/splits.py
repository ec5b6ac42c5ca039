"""The cases of each split: regimes, shapes and phases, each with a seed of its own.

Layers are independent in the generator, in the cost model and in copies, so most cases serve some layers of a model
only: they tell the same in a fraction of the time.
"""

from __future__ import annotations

from dataclasses import replace

from adrs_ray.task import Split
from gpu_eval.shapes import SHAPES, Shape

from .scenario import Scenario

V3_FOUR, V3_EIGHT, QWEN3, NEXT, FEW = (replace(shape, layers=16) for shape in SHAPES)
ONE_NODE = Shape(16, 256, 288, 16, 1, 8)

PREFILL_STEPS, DECODE_STEPS = 50, 200
"""A window lasts some 10 s in prefill and 2 to 5 s in decode. Public balancers wait longer (vLLM 3,000 steps, SGLang
1,000); with so many, moves weigh nothing and the next window's balance is all there is."""


def _prefill(
    id: str, regime: str, shape: Shape, windows: int, seed: int, size: str = "deepseek_v3", steps: int = PREFILL_STEPS
) -> Scenario:
    return Scenario(id, regime, shape, "prefill", windows, steps, seed, size)


def _decode(
    id: str, regime: str, shape: Shape, windows: int, seed: int, size: str = "deepseek_v3", steps: int = DECODE_STEPS
) -> Scenario:
    return Scenario(id, regime, shape, "decode", windows, steps, seed, size)


_TRAIN = (
    _prefill("train-prefill-steady", "steady", V3_FOUR, 32, 1100),
    _prefill("train-prefill-trt", "trt", QWEN3, 32, 1101, "qwen3_235b"),
    _decode("train-decode-trt", "trt", V3_FOUR, 32, 1102),
    _decode("train-decode-heavy", "heavy", QWEN3, 32, 1103, "qwen3_235b"),
)
_VALIDATION = (
    _prefill("validation-prefill-adrs", "adrs", V3_FOUR, 40, 1200),
    _prefill("validation-prefill-trt", "trt", V3_EIGHT, 40, 1201),
    _prefill("validation-prefill-heavy", "heavy", ONE_NODE, 40, 1202, "qwen3_235b"),
    _decode("validation-decode-steady", "steady", QWEN3, 40, 1203, "qwen3_235b"),
    _decode("validation-decode-decode", "decode", V3_FOUR, 40, 1204),
    _decode("validation-decode-trt", "trt", replace(V3_FOUR, layers=58), 24, 1205),
)
_TEST = (
    _prefill("test-prefill-steady", "steady", V3_FOUR, 200, 1300),
    _prefill("test-prefill-adrs", "adrs", NEXT, 60, 1301, "small"),
    _prefill("test-prefill-trt", "trt", replace(V3_FOUR, layers=58), 40, 1302),
    _prefill("test-prefill-heavy", "heavy", Shape(16, 160, 168, 12, 2, 8), 60, 1303, "qwen3_235b"),
    _decode("test-decode-steady", "steady", V3_EIGHT, 60, 1304),
    _decode("test-decode-trt", "trt", V3_FOUR, 200, 1305),
    _decode("test-decode-decode", "decode", QWEN3, 60, 1306, "qwen3_235b"),
    _decode("test-decode-heavy", "heavy", FEW, 60, 1307),
)
_STRESS = (
    replace(_prefill("stress-reversed", "trt", V3_FOUR, 24, 1400), change="reversed"),
    replace(_decode("stress-silent", "trt", QWEN3, 24, 1401, "qwen3_235b"), change="silent"),
    replace(_prefill("stress-one-hot", "adrs", QWEN3, 24, 1402, "qwen3_235b"), change="one_hot"),
    replace(_prefill("stress-plain-start", "steady", V3_FOUR, 8, 1403), layout="plain"),
    _prefill("stress-no-redundancy", "trt", Shape(16, 128, 128, 16, 2, 8), 24, 1404, "qwen3_235b"),
    _prefill("stress-one-slot-per-gpu", "heavy", Shape(16, 60, 64, 64, 8, 1), 24, 1405, "small"),
    _decode("stress-one-gpu", "trt", Shape(16, 64, 72, 1, 1, 1), 12, 1406, "small"),
    _prefill("stress-tiny", "heavy", Shape(3, 5, 6, 2, 1, 1), 40, 1407, "small"),
    _decode("stress-one-window", "trt", V3_FOUR, 2, 1408),
    replace(_decode("stress-many-samples", "decode", V3_FOUR, 12, 1409), samples=8),
    _decode("stress-short-windows", "steady", V3_EIGHT, 24, 1410, steps=8),
)
SCENARIOS: dict[Split, tuple[Scenario, ...]] = {
    "train": _TRAIN,
    "validation": _VALIDATION,
    "test": _TEST,
    "stress": _STRESS,
}
