"""What a candidate answered, checked: the arrays that the adapter hands out, none of which is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from adrs_ray.task import MalformedOutput

from .network import Floats
from .perturbation import Bools

MISSING, PLAIN, WITH_CONFIDENCE = 0, 1, 2
STATUS_MISSING, STATUS_UP = 0, 1
_HUGE = 1e100
"""Larger figures are taken for this one, which is as wrong, so that no formula overflows."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Repaired counters of all snapshots of a case; values and confidences are finite, 0 where none are given."""

    given: npt.NDArray[np.int8]
    """MISSING, PLAIN or WITH_CONFIDENCE; rows x interfaces x (rx, tx)."""
    values: Floats
    confidence: Floats
    status: npt.NDArray[np.int8]
    """STATUS_MISSING, STATUS_UP, 2 for down, 3 for another text; rows x interfaces."""
    unknown: tuple[str, ...]
    """Some of the interfaces that were named but do not exist."""

    @property
    def present(self) -> Bools:
        """Which counters have a value."""
        present: Bools = self.given != MISSING
        return present


def read(raw: Any, shape: tuple[int, int, int]) -> Answer:
    """`raw` as an Answer of `shape`. Raises MalformedOutput for what is no answer, or not finite."""
    if not isinstance(raw, Mapping):
        raise MalformedOutput(f"expected the arrays of the adapter, got {type(raw).__name__}")
    malformed, unknown = raw.get("malformed"), raw.get("unknown")
    if not isinstance(malformed, str) or not isinstance(unknown, list):
        raise MalformedOutput("malformed, unknown: expected a text and a list of names")
    if malformed:
        raise MalformedOutput(malformed[:400])
    given = _array(raw, "given", shape, np.int8)
    return Answer(
        given=given,
        values=_figures(raw, "values", "a counter", given != MISSING),
        confidence=_figures(raw, "confidence", "a confidence", given == WITH_CONFIDENCE),
        status=_array(raw, "status", shape[:2], np.int8),
        unknown=tuple(name[:100] if isinstance(name, str) else type(name).__name__ for name in unknown[:3]),
    )


def place(where: tuple[int, ...]) -> str:
    """Words for an index (row, interface, direction)."""
    row, interface, direction = where
    return f"snapshot {row}, interface number {interface}, {('rx_rate', 'tx_rate')[direction]}"


def _figures(raw: Mapping[str, Any], name: str, what: str, stated: Bools) -> Floats:
    """Those that are stated, and 0 elsewhere."""
    array = _array(raw, name, stated.shape, np.float64)
    wrong = stated & ~np.isfinite(array)
    if wrong.any():
        where = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise MalformedOutput(f"{place(where)}: {what} is {array[where]}, expected a finite number")
    figures: Floats = np.clip(np.where(stated, array, 0.0), -_HUGE, _HUGE)
    return figures


def _array(raw: Mapping[str, Any], name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> npt.NDArray[Any]:
    array = raw.get(name)
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != dtype:
        raise MalformedOutput(f"{name}: expected an array of {np.dtype(dtype)} with shape {shape}")
    return array
