"""What a program may hand back as tensors: plain, finished, its own, and made without touching its input."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu_eval.invariants import IntArray, PlacementError

OUTPUTS = ("physical_to_logical", "logical_to_physical", "expert_count")
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)


def check_tensors(
    outputs: object, weight: Tensor, device: torch.device | str, previous: Sequence[Tensor] | None = None
) -> None:
    """Raise PlacementError unless `outputs` are three plain tensors on `device` in memory of their own.

    Plain: `type(x) is torch.Tensor` (no lazy or wrapped subclass), dense, contiguous, a signed integer type.
    Their own: no storage overlaps that of the input, of another output or of `previous`, the outputs of the call
    before, which the caller must still hold. Kinds: type, dtype, device, contiguity, alias. Extents and values are
    checked by `gpu_eval.invariants.check_placement`.
    """
    if type(outputs) not in (tuple, list) or len(outputs) != len(OUTPUTS):  # type: ignore[arg-type]
        found = f"{len(outputs)} values" if type(outputs) in (tuple, list) else type(outputs).__name__  # type: ignore[arg-type]
        raise PlacementError("type", f"expected a tuple of {', '.join(OUTPUTS)}, found {found}")
    tensors: Sequence[Any] = outputs  # type: ignore[assignment]
    expected = torch.device(device)
    for name, tensor in zip(OUTPUTS, tensors, strict=True):
        _check_plain(name, tensor, expected)
    held = [("the input", weight)]
    held += [(f"the last call's {name}", tensor) for name, tensor in zip(OUTPUTS, previous or (), strict=False)]
    for name, tensor in zip(OUTPUTS, tensors, strict=True):
        for other, owner in held:
            if overlap(tensor, owner):
                raise PlacementError("alias", f"{name} shares memory with {other}, expected memory of its own")
        held.append((name, tensor))


def overlap(a: Tensor, b: Tensor) -> bool:
    """Whether the storages of two tensors on one device have a byte in common."""
    if a.device != b.device:
        return False
    (start, size), (other, length) = _extent(a), _extent(b)
    return bool(size and length) and start < other + length and other < start + size


class InputGuard:
    """Knows what a tensor was, to tell whether it was written to: by its version counter, and by its values.

    The counter sees writes through torch even where they restore the values, the values see writes past torch.
    """

    def __init__(self, weight: Tensor) -> None:
        self._weight = weight
        self._version = weight._version
        self._values = weight.clone()

    def altered(self) -> str | None:
        """One line that says how the tensor was altered, or None."""
        if not same_values(self._weight, self._values):
            return "the input's values were changed"
        if self._weight._version != self._version:
            return f"the input was written to in place {self._weight._version - self._version} times"
        return None

    def check(self) -> None:
        """Raise PlacementError of kind `input` when the tensor was altered."""
        if how := self.altered():
            raise PlacementError("input", f"{how}, expected it untouched")


def same_values(a: Tensor, b: Tensor) -> bool:
    """Equal type, device, shape and values; nan equals nan."""
    if a.dtype != b.dtype or a.shape != b.shape or a.device != b.device:
        return False
    equal = a == b
    if a.is_floating_point():
        equal = equal | (a.isnan() & b.isnan())
    return bool(equal.all())


def check_deterministic(program: Callable[[Tensor], Sequence[Tensor]], weight: Tensor, calls: int = 2) -> None:
    """Raise PlacementError of kind `determinism` unless equal inputs in fresh storage give equal outputs."""
    first = [tensor.clone() for tensor in program(weight.clone())]
    for call in range(1, calls):
        again = program(weight.clone())
        for name, expected, found in zip(OUTPUTS, first, again, strict=True):
            if not same_values(expected, found):
                raise PlacementError("determinism", f"{name} differs in call {call + 1} with an equal input")


def as_arrays(outputs: Sequence[Tensor]) -> tuple[IntArray, IntArray, IntArray]:
    """The three outputs as numpy int64 in memory of their own, for `check_placement`. Call `check_tensors` before."""
    first, second, third = (np.array(tensor.cpu().numpy(), dtype=np.int64) for tensor in outputs)
    return first, second, third


def _check_plain(name: str, tensor: Any, device: torch.device) -> None:
    if type(tensor) is not torch.Tensor:
        raise PlacementError("type", f"{name} is {type(tensor).__name__}, expected a plain torch.Tensor")
    if tensor.layout != torch.strided or tensor.is_quantized:
        raise PlacementError("type", f"{name} is {tensor.layout}, expected a dense tensor")
    if tensor.dtype not in SIGNED:
        raise PlacementError("dtype", f"{name} is {tensor.dtype}, expected a signed integer type")
    if tensor.device.type != device.type or device.index not in (None, tensor.device.index):
        raise PlacementError("device", f"{name} is on {tensor.device}, expected {device}")
    if not tensor.is_contiguous():
        raise PlacementError("contiguity", f"{name} has strides {tuple(tensor.stride())}, expected it contiguous")


def _extent(tensor: Tensor) -> tuple[int, int]:
    storage = tensor.untyped_storage()
    return storage.data_ptr(), storage.nbytes()
