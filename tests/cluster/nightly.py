"""The job that the kill tests and the chaos run kill: two models on three engines, two islands, two slots."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.nodes import SmallCluster
from tests.fake_engine import write_interpreter
from tests.processes import wait_gone
from tests.runs import start

PARTS = ("IslandActor", "EvaluatorActor", "LedgerActor", "ReplicaActor", "ControlActor", "fake_engine")
"""What a run may leave behind when it should not: parts of command lines."""


def write_config(folder: Path, latency_s: float = 0.1, **sections: Any) -> Path:
    """A config whose engines are fake ones that hold a GPU each."""
    model = {"max_tokens": 2000, "timeout_s": 60}
    engine = {"cpus": 0.1, "env": {"ADRS_FAKE": json.dumps({"latency_s": latency_s})}}
    config = {
        "islands": {"count": 2, "in_flight": 4, "migration_interval": 5},
        "generator": {"kind": "openai", "summarize_every": None},
        "models": {"small": {"model": "fake-small", **model}, "strong": {"model": "fake-strong", **model}},
        "pool": {
            "python": write_interpreter(folder),
            "models": {"small": {**engine, "replicas": 2}, "strong": engine},
        },
        "evaluator": {"slots": 2},
        "finish": {"top_k": 1},
        **sections,
    }
    path = folder / "night.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def job(
    nodes: SmallCluster, task: Path, config: Path, folder: Path, candidates: int, *more: str
) -> subprocess.Popen[bytes]:
    """`adrs job`, which starts the run `night` in `folder`/out or goes on with it."""
    return start(
        *("job", task, "--config", config, "--name", "night", "--out", folder / "out", "--json"),
        *("--address", nodes.address, "--set", f"budget.max_candidates={candidates}", "--no-baselines", *more),
        log=folder / "log",
    )


def left_of_run(nodes: SmallCluster, seconds: float = 5) -> dict[int, str]:
    """Processes of the run that are still there after so long."""
    return wait_gone({pid for part in PARTS for pid in nodes.pids(part)}, seconds)
