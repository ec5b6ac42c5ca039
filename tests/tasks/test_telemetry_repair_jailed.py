"""The task telemetry_repair through the evaluator: the figures of this process, hacks, programs as users bring them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from adrs_ray.candidate import Evaluation, Failure, FailureKind, Verdict
from adrs_ray.config import EvaluatorConfig
from adrs_ray.errors import UsageError
from adrs_ray.evaluator import EvaluationJob
from adrs_ray.evaluator.doctor import evaluate_once
from adrs_ray.evaluator.local import LocalEvaluator
from adrs_ray.task import load_task

from .test_telemetry_repair import HANDS_BACK, TASK, changing, judged
from .test_telemetry_repair_public import GOLDEN, NOTHING, ONE_INTERFACE, PAPER, TUPLES

TYPED_STYLE = '''
from typing import Any, Dict, List, Tuple
import math
import random

def run_repair(telemetry: Dict[str, Dict[str, Any]], topology: Dict[str, List[str]]) -> Dict[str, Dict[str, Tuple]]:
    """Repair network telemetry."""
    result = {}
    for interface_id, data in telemetry.items():
        peer = telemetry.get(data.get("connected_to"), {})
        repaired = {}
        for own, other in (("rx_rate", "tx_rate"), ("tx_rate", "rx_rate")):
            value, peer_value = data.get(own, 0.0), peer.get(other, 0.0)
            close = math.isclose(value, peer_value, rel_tol=0.05)
            repaired[own] = (value, value if close else max(value, peer_value), 1.0 if close else 0.6)
        status = data.get("interface_status", "unknown")
        repaired["interface_status"] = (status, status, 1.0)
        repaired["connected_to"] = data["connected_to"]
        repaired["local_router"] = data["local_router"]
        repaired["remote_router"] = data["remote_router"]
        result[interface_id] = repaired
    return result

if __name__ == "__main__":
    raise SystemExit(run_repair({}, {}))
'''
IN_PLACE_STYLE = """
def run_repair(telemetry, topology):
    for router, interfaces in topology.items():
        for interface in interfaces:
            data = telemetry[interface]
            peer = telemetry[data["connected_to"]]
            if data["rx_rate"] == 0:
                data["rx_rate"] = peer["tx_rate"]
            if data["tx_rate"] == 0:
                data["tx_rate"] = peer["rx_rate"]
    return telemetry
"""
GRAPH_STYLE = """
import networkx as nx
import numpy as np

class Repairer:
    def __init__(self, telemetry, topology):
        self.telemetry = telemetry
        self.graph = nx.Graph((d["local_router"], d["remote_router"]) for d in telemetry.values())

    def repair(self):
        assert set(self.graph) and nx.is_connected(self.graph)
        out = {}
        for name, d in self.telemetry.items():
            p = self.telemetry[d["connected_to"]]
            pairs = np.array([[d["rx_rate"], p["tx_rate"]], [d["tx_rate"], p["rx_rate"]]])
            rx, tx = np.where((pairs == 0).any(axis=1), pairs.max(axis=1), pairs[:, 0])
            out[name] = {"rx_rate": (d["rx_rate"], rx, np.float32(0.5)), "tx_rate": (d["tx_rate"], tx, 0.5),
                         "interface_status": (d["interface_status"], "up", 0.9)}
        return out

def run_repair(telemetry, topology):
    return Repairer(telemetry, topology).repair()
"""

LOOKS_FOR_THE_TRUTH = f"""
import gc, sys

def run_repair(telemetry, topology):
    hidden = [key for fields in telemetry.values() for key in fields if "truth" in key or key.startswith("_")]
    hidden += [name for name in sys.modules if name.rpartition(".")[2] in ("judge", "paper", "splits", "traffic")]
    hidden += [o for o in gc.get_objects() if isinstance(o, dict) and "truth" in o and "corrupted" in o]
    for name in ("judge.py", "splits.py", "task.yaml", "baselines/likelihood.py"):
        try:
            hidden.append(open({str(TASK.folder)!r} + "/" + name).read())
        except OSError:
            pass
    return {{}} if hidden else telemetry
"""
TOUCHES_RANDOM = """
import random
import numpy as np

random.seed(0)
np.random.seed(0)

def run_repair(telemetry, topology):
    random.seed(7)
    [random.random() for _ in range(1000)]
    random.random = lambda: 0.99
    np.random.seed(3)
    return telemetry
"""
TAMPERS_WITH_THE_ADAPTER = """
import sys
import numpy as np

def run_repair(telemetry, topology):
    adapter = next(m for name, m in sys.modules.items() if name.endswith("adapter") and hasattr(m, "_collect"))
    def forged(answer, index, answers, row):
        answers["given"][...] = 2
        answers["values"][...] = 1e9
        answers["confidence"][...] = 1.0
        answers["status"][...] = 1
        answers.update(improvement=1.0, score=1.0, metrics={"improvement": 1.0})
    adapter._collect = forged
    return telemetry
"""
FORGES_SHAPES = TAMPERS_WITH_THE_ADAPTER.replace(
    'answers["given"][...] = 2', 'answers["given"] = np.ones((1, 1, 2), np.int8)'
)


def verdicts(sources: Sequence[str]) -> list[Verdict]:
    """Verdicts on train, from one slot."""

    async def judge() -> list[Verdict]:
        evaluator = LocalEvaluator(TASK, EvaluatorConfig(slots=1))
        try:
            await evaluator.start()
        except UsageError as error:
            pytest.skip(f"no jail on this machine: {error}")
        try:
            return [await evaluator.evaluate(EvaluationJob(f"c{i}", source)) for i, source in enumerate(sources)]
        finally:
            await evaluator.close()

    return asyncio.run(judge())


def test_scores_are_those_of_this_process() -> None:
    sources = [
        TYPED_STYLE,
        IN_PLACE_STYLE,
        GRAPH_STYLE,
        TASK.seed_source,
    ]
    for source, verdict in zip(sources, verdicts(sources), strict=True):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == judged(TASK, source, "train").score > 0.3
        assert verdict.trust == "verified"
        assert 0 < verdict.metrics["cpu_s"] == sum(case.cpu_s for case in verdict.cases)
        assert "train-0" in verdict.artifacts["cases"]


def test_hacks_do_not_raise_the_score() -> None:
    hands_back, looks, touches, one, nothing, tampers = verdicts(
        [HANDS_BACK, LOOKS_FOR_THE_TRUTH, TOUCHES_RANDOM, ONE_INTERFACE, NOTHING, TAMPERS_WITH_THE_ADAPTER]
    )
    for verdict in (hands_back, looks, touches):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score == 0.0
    for verdict in (one, nothing, tampers):
        assert isinstance(verdict, Evaluation), verdict
        assert verdict.score < -1.0


def test_failures_have_the_right_kind() -> None:
    expected = {
        changing("fields['rx_rate'] = float('nan')"): FailureKind.OUTPUT,
        changing("fields['rx_rate'] = 'up'"): FailureKind.OUTPUT,
        changing("fields['rx_rate'] = -1.0"): FailureKind.INVALID,
        changing("fields['rx_rate'] = (1.0, 1.0, 2.0)"): FailureKind.INVALID,
        changing("telemetry['extra'] = fields"): FailureKind.INVALID,
        FORGES_SHAPES: FailureKind.OUTPUT,
        changing("return [1]"): FailureKind.OUTPUT,
        changing("raise KeyError(name)"): FailureKind.CRASH,
        "def repair(telemetry, topology):\n    return telemetry\n": FailureKind.INTERFACE,
        "def run_repair(:": FailureKind.SYNTAX,
    }
    for (source, kind), verdict in zip(expected.items(), verdicts(list(expected)), strict=True):
        assert isinstance(verdict, Failure), source
        assert verdict.kind is kind, (source, verdict.detail)


def test_public_scores_come_out_of_the_jail() -> None:
    if TASK.split_note("test"):
        pytest.skip("needs evaluation_rows_30.csv.gz: set ADRS_DATA_DIR or run `adrs data pull telemetry_repair`")
    try:
        verdict = evaluate_once(PAPER, TUPLES, "test", EvaluatorConfig(slots=1))
    except UsageError as error:
        pytest.skip(f"no jail on this machine: {error}")
    assert isinstance(verdict, Evaluation), verdict
    assert verdict.score == pytest.approx(GOLDEN["tuples"][1], abs=1e-9)
    assert load_task("telemetry_repair").judge is not PAPER.judge
