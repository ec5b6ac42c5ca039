"""Outputs are plain tensors in memory of their own, and inputs stay as they were."""

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from gpu_eval.invariants import PlacementError, check_placement  # noqa: E402
from gpu_eval.shapes import Shape  # noqa: E402
from gpu_eval.tensors import (  # noqa: E402
    InputGuard,
    as_arrays,
    check_deterministic,
    check_tensors,
    overlap,
    same_values,
)

SHAPE = Shape(2, 3, 4, 2)


def weight() -> Any:
    return torch.ones(2, 3, dtype=torch.int64)


def outputs() -> list[Any]:
    phy2log = torch.tensor([[0, 1, 2, 0], [0, 1, 2, 1]])
    log2phy = torch.tensor([[[0, 3], [1, -1], [2, -1]], [[0, -1], [3, 1], [2, -1]]])
    return [phy2log, log2phy, torch.tensor([[2, 1, 1], [1, 2, 1]])]


class Lazy(torch.Tensor):
    pass


def test_plain_outputs_pass_and_become_arrays() -> None:
    check_tensors(tuple(outputs()), weight(), "cpu", previous=outputs())
    check_placement(*as_arrays(outputs()), SHAPE)
    narrow = [tensor.to(torch.int16) for tensor in outputs()]
    check_tensors(narrow, weight(), torch.device("cpu"))
    assert all(array.dtype == np.int64 for array in as_arrays(narrow))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("type", lambda p, i, c: (p, i)),
        ("type", lambda p, i, c: None),
        ("type", lambda p, i, c: p),
        ("type", lambda p, i, c: {"p": p, "i": i, "c": c}),
        ("type", lambda p, i, c: (p.numpy(), i, c)),
        ("type", lambda p, i, c: (p, i.as_subclass(Lazy), c)),
        ("type", lambda p, i, c: (torch.nn.Parameter(p, requires_grad=False), i, c)),
        ("type", lambda p, i, c: (p.to_sparse(), i, c)),
        ("dtype", lambda p, i, c: (p, i, c.float())),
        ("dtype", lambda p, i, c: (p, i.to(torch.uint8), c)),
        ("device", lambda p, i, c: (p, i, c.to("meta"))),
        ("contiguity", lambda p, i, c: (p.t().contiguous().t(), i, c)),
        ("contiguity", lambda p, i, c: (p, i, c[:1].expand(2, 3))),
        ("alias", lambda p, i, c: (p, i, i.view(-1)[:6].view(2, 3))),
    ],
)
def test_anything_else_is_refused(kind: str, change: Any) -> None:
    changed = change(*outputs())
    with pytest.raises(PlacementError) as raised:
        check_tensors(changed, weight(), "cpu")
    assert raised.value.kind == kind
    assert "\n" not in str(raised.value)


def test_memory_of_input_or_of_the_last_call_is_refused() -> None:
    given = weight()
    phy2log, log2phy, _ = outputs()
    with pytest.raises(PlacementError, match="expert_count shares memory with the input"):
        check_tensors((phy2log, log2phy, given), given, "cpu")
    buffer = np.zeros(100, dtype=np.int64)
    first = (phy2log, log2phy, torch.from_numpy(buffer[:6].reshape(2, 3)))
    second = (*outputs()[:2], torch.from_numpy(buffer[3:9].reshape(2, 3)))
    check_tensors(first, given, "cpu")
    with pytest.raises(PlacementError, match="expert_count shares memory with the last call's expert_count"):
        check_tensors(second, given, "cpu", previous=first)
    apart = (*outputs()[:2], torch.from_numpy(buffer[6:12].reshape(2, 3)))
    check_tensors(apart, given, "cpu", previous=first)


def test_tensors_without_memory_overlap_nothing() -> None:
    assert not overlap(torch.zeros(0), torch.zeros(0))
    given = weight()
    assert overlap(given, given[1:])


@pytest.mark.parametrize(
    ("change", "how"),
    [
        (lambda w: w.add_(1), "values were changed"),
        (lambda w: w.add_(0), "in place 1 times"),
        (lambda w: w.data.mul_(2), "values were changed"),
        (lambda w: w.numpy().fill(7), "values were changed"),
        (lambda w: w.sub_(1).add_(1), "in place 2 times"),
    ],
)
def test_a_touched_input_is_seen(change: Any, how: str) -> None:
    given = weight()
    guard = InputGuard(given)
    guard.check()
    change(given)
    with pytest.raises(PlacementError, match=how) as raised:
        guard.check()
    assert raised.value.kind == "input"


def test_nan_is_no_change() -> None:
    given = torch.tensor([[float("nan"), float("inf")]])
    guard = InputGuard(given)
    assert guard.altered() is None
    assert not same_values(given, given.double())
    assert not same_values(given, torch.tensor([[float("nan"), float("nan")]]))


def test_equal_inputs_must_give_equal_outputs() -> None:
    check_deterministic(lambda w: outputs(), weight())
    calls: list[int] = []

    def moody(w: Any) -> list[Any]:
        calls.append(0)
        maps = outputs()
        maps[0][0, 3] = 0 if len(calls) < 3 else 1
        return maps

    check_deterministic(moody, weight(), calls=2)
    calls.clear()
    with pytest.raises(PlacementError, match="physical_to_logical differs in call 3"):
        check_deterministic(moody, weight(), calls=3)
    buffer = outputs()

    def reused(w: Any) -> list[Any]:
        buffer[2] += 1
        return buffer

    with pytest.raises(PlacementError, match="expert_count differs in call 2"):
        check_deterministic(reused, weight())
