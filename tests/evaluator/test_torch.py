"""Candidates that use torch, in the jail."""

from __future__ import annotations

from pathlib import Path

import pytest

from adrs_ray.candidate import Evaluation, Failure
from adrs_ray.config import EvaluatorConfig
from adrs_ray.evaluator.doctor import evaluate_once
from tests.evaluator.tiny_task import write_task

pytestmark = pytest.mark.torch

PRELOADED = "preload: [numpy, torch]"


def test_a_torch_candidate_computes_in_the_strict_jail(tmp_path: Path) -> None:
    source = """
import torch


def solve(x):
    rows = torch.from_numpy(x).repeat(64, 1) @ torch.ones(10, 1, dtype=torch.float64)
    layer = torch.nn.Linear(10, 1, bias=False).double()
    with torch.no_grad():
        layer.weight.fill_(1.0)
    loss = layer(torch.from_numpy(x)).sum()
    loss.backward()
    assert layer.weight.grad is not None
    return float(rows.mean())
"""
    task = write_task(tmp_path, extra=PRELOADED, timeout_s=30)
    verdict = evaluate_once(task, source, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == 0.0
    assert verdict.trust == "verified"


def test_a_tensor_as_an_answer_is_malformed_output(tmp_path: Path) -> None:
    source = "import torch\n\n\ndef solve(x):\n    return torch.from_numpy(x).sum()\n"
    task = write_task(tmp_path, extra=PRELOADED, timeout_s=30)
    verdict = evaluate_once(task, source, "train", EvaluatorConfig(slots=1))
    assert isinstance(verdict, Failure)
    assert verdict.kind == "output"
    assert "Tensor" in verdict.detail
