"""Doctor and pull on a cluster of several nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.cli.command import adrs
from tests.cluster.nodes import SmallCluster
from tests.fake_hub import COMMIT, FakeHub, model_files, serving

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[SmallCluster, FakeHub, Path]]:
    """Two nodes of two GPUs and a head without any; the nodes find the hub in their environment."""
    folder = tmp_path_factory.mktemp("cluster")
    with serving(FakeHub({"tiny/model": model_files()})) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(folder / "hf"))
        with SmallCluster(((2, 0), (2, 2), (2, 2))) as cluster:
            yield cluster, hub, folder


def config(folder: Path, replicas: int) -> Path:
    data = {
        "generator": {"kind": "openai"},
        "models": {"strong": {"model": "strong"}},
        "pool": {"models": {"strong": {"source": "tiny/model", "tensor_parallel": 2, "replicas": replicas, "cpus": 1}}},
        "mirror": {"url": str(folder / "mirror")},
    }
    path = folder / f"night-{replicas}.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def test_doctor_tells_nodes_split_and_the_binding_constraint(place):
    cluster, _, folder = place
    arguments = ("doctor", "--cluster", "--address", cluster.address, "--out", folder / "runs", "--json")
    done = adrs(*arguments, "--config", config(folder, 2))
    rows = json.loads(done.stdout.splitlines()[-1])
    said = [(row["state"], row["name"].strip(), row["detail"]) for row in rows]
    assert ("ok", "fit", "2 x strong, 4 evaluators on CPUs") in said
    assert ("info", "more", "a third strong replica lacks 2 GPUs on one node: none is free") in said
    assert len([row for row in said if row[1] == "versions" and row[0] == "ok"]) == 3
    assert len([row for row in said if row[1] == "adrs-ray" and row[0] == "ok"]) == 3
    assert len([row for row in said if row[1] == "jail" and row[0] == "ok"]) == 3
    assert ("ok", "mirror", f"{folder / 'mirror'} can be written") in said
    # The nodes have no vLLM: a run would fail.
    assert len([row for row in said if row[1] == "engine" and row[0] == "NO"]) == 2
    assert done.returncode == 1

    refused = adrs(*arguments, "--config", config(folder, 3))
    assert "needs 3 x strong (2 GPUs on one node each); the cluster has 4 GPUs on 2 nodes (2 + 2)" in refused.stdout


def test_models_are_pulled_and_checked_on_every_gpu_node(place):
    cluster, hub, folder = place
    night = config(folder, 2)
    pulled = adrs("models", "pull", "--config", night, "--address", cluster.address)
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.count(f"tiny/model@{COMMIT}: ") == 2
    # Both nodes lie on one disk here: what one has fetched the other finds.
    assert hub.downloads.count("model-00001-of-00002.safetensors") <= 2
    checked = adrs("models", "check", "--config", night, "--address", cluster.address)
    assert checked.returncode == 0, checked.stdout
    assert checked.stdout.count(", whole") == 2
