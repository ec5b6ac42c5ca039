"""Bytes of weights and tokens at each precision."""

from __future__ import annotations

from .shapes import ExpertSize

BLOCK = 128
"""fp8 weights carry one float32 scale per 128 x 128 block, fp8 tokens one per 128 values (DeepSeek-V3's recipe)."""
_SCALE_BYTES = 4
_WIDTH = {"fp32": 4, "bf16": 2, "fp8": 1}
PRECISIONS: tuple[str, ...] = tuple(_WIDTH)


def expert_bytes(size: ExpertSize, precision: str) -> int:
    """Bytes of one expert's weights, scales included; ValueError on an unknown `precision`."""
    scales = -(-size.weights // BLOCK**2) * _SCALE_BYTES if precision == "fp8" else 0
    return size.weights * _width(precision) + scales


def token_bytes(hidden: int, precision: str) -> int:
    """Bytes of one token of `hidden` values, scales included; ValueError on an unknown `precision`."""
    scales = -(-hidden // BLOCK) * _SCALE_BYTES if precision == "fp8" else 0
    return hidden * _width(precision) + scales


def _width(precision: str) -> int:
    if precision not in _WIDTH:
        raise ValueError(f"precision {precision!r} is unknown, expected one of {', '.join(_WIDTH)}")
    return _WIDTH[precision]
