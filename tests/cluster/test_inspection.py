"""What doctor says of a cluster, from what its nodes told."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.task_spec import Stage
from cluster.fit import NodeRoom
from cluster.inspection import (
    NodeReport,
    Row,
    Versions,
    cluster_rows,
    engine_version,
    fit_rows,
    journal_row,
    mirror_row,
    with_memory,
)
from cluster.nodes import last_line, parse_gpus, rooms
from cluster.presets import expand, footprints

HERE = Versions("3.11.7", "2.60.0", "0.1.0", "abc")
HELD = (("strict", True, "landlock + seccomp"), ("unix socket", True, "denied"))
NODE = NodeRoom("f" * 56, 96, 8, None, 1000, "H100")
GPUS = (("NVIDIA H100 80GB HBM3", 79.6),) * 8
REPORT = NodeReport("gpu-1", HERE, HELD, GPUS, "0.29.0", 100.0)


def night(**pool: object) -> RunConfig:
    return expand(parse_config({"pool": {"preset": "8x80gb", **pool}}, "test"))


def said(config: RunConfig, report: NodeReport | str) -> dict[str, Row]:
    return {row.name.strip(): row for row in cluster_rows([NODE], {NODE.node_id: report}, config, HERE)}


def test_a_node_as_it_should_be_has_nothing_against_it():
    rows = said(night(), REPORT)
    assert {row.state for row in rows.values()} == {"ok"}
    assert rows["jail"].detail == "landlock + seccomp"
    assert rows["GPUs"].detail == "NVIDIA H100 80GB HBM3 80 GiB"


@pytest.mark.parametrize(
    ("change", "name", "detail"),
    [
        ({"versions": replace(HERE, ray="2.49.0")}, "versions", "Python 3.11.7, Ray 2.49.0; here 3.11.7, 2.60.0"),
        ({"versions": replace(HERE, source="def")}, "adrs-ray", "0.1.0 (def); here 0.1.0 (abc)"),
        ({"engine": None}, "engine", "no vllm in the node's own Python: set pool.python"),
        ({"disk_gib": 0.2}, "disk", "0.2 GiB free"),
        ({"jail": (*HELD, ("new process", False, "NOT denied"))}, "jail", "not denied: new process"),
        ({"jail": (("strict", False, "no Landlock"),)}, "jail", "no Landlock"),
    ],
)
def test_what_would_make_a_run_fail_is_said(change, name, detail):
    row = said(night(), replace(REPORT, **change))[name]
    assert row.state == "NO"
    assert detail in row.detail


def test_a_node_that_cannot_run_us_is_said_with_its_reason():
    row = said(night(), "ModuleNotFoundError: No module named 'cluster'")["adrs-ray there"]
    assert row == Row("NO", "  adrs-ray there", "does not run: ModuleNotFoundError: No module named 'cluster'")


def test_a_run_without_a_jail_or_without_engines_does_not_need_them():
    hole = replace(REPORT, jail=(("strict", False, "no Landlock"),), engine=None)
    config = parse_config({"evaluator": {"sandbox": "unsafe"}}, "test")
    rows = said(config, hole)
    assert rows["jail"].state == ""
    assert "engine" not in rows


def test_memory_that_a_node_measures_counts_more_than_its_name():
    assert with_memory([NODE], {NODE.node_id: REPORT})[0].gpu_memory_gib == 79.6
    assert with_memory([NODE], {NODE.node_id: "lost"}) == [NODE]


def test_the_split_is_followed_by_what_keeps_it_from_more():
    config = night(models={"small": {"replicas": 1}, "strong": {"tensor_parallel": 4}})
    stages = [Stage(name="simulated"), Stage(name="measured", gpus=1)]
    nodes = [replace(NODE, gpus=9, gpu_memory_gib=79.6)]
    rows = fit_rows(nodes, config.model_copy(update={"evaluator": config.evaluator}), stages[:1], footprints(config))
    assert rows[0] == Row("ok", "fit", "1 x small, 2 x strong, 90 evaluators on CPUs")
    assert [row.detail for row in rows if row.name == "more"] == [
        "a second small replica lacks 1 GPU: none is free",
        "a third strong replica lacks 4 GPUs on one node: none is free",
    ]
    refused = fit_rows([NodeRoom("a", 8, 1)], config, stages, footprints(config))
    assert [row.state for row in refused] == ["NO"]


def test_journals_lie_on_disks_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert journal_row(tmp_path / "runs").detail.startswith(f"{tmp_path / 'runs'}: local disk")
    monkeypatch.setattr("cluster.inspection.os.access", lambda *_: False)
    assert journal_row(tmp_path / "runs").state == "NO"


def test_a_mirror_is_tried_and_left_as_it_was(tmp_path: Path):
    assert mirror_row(str(tmp_path / "mirror")).state == "ok"
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    (tmp_path / "file").write_text("")
    assert mirror_row(str(tmp_path / "file" / "mirror")).state == "NO"
    assert mirror_row("nosuch://bucket/runs").state == "NO"


def test_an_interpreter_without_vllm_or_none_at_all_has_no_engine(tmp_path: Path):
    assert engine_version(str(tmp_path / "python")) is None
    package = tmp_path / "vllm-9.9.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 9.9\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexport PYTHONPATH={tmp_path}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    assert engine_version(str(python)) == "9.9"


def test_nodes_are_read_from_what_ray_tells():
    told = {"NodeID": "a", "Alive": True, "Resources": {"CPU": 8.0, "GPU": 2.0, "memory": 2.0**34}}
    kind = {"accelerator_type:H100": 1.0}
    assert rooms([told, {**told, "Alive": False}]) == [NodeRoom("a", 8, 2, None, 16)]
    assert rooms([{**told, "Resources": {**told["Resources"], **kind}}])[0].gpu_memory_gib == 79.5


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("NVIDIA H100 80GB HBM3, 81920\n", [("NVIDIA H100 80GB HBM3", 80.0)]),
        ("NVIDIA-SMI has failed\n", []),
        ("A, B, [N/A]\n, \n", []),
    ],
)
def test_gpus_are_read_from_what_the_driver_prints(text, found):
    assert parse_gpus(text) == found


def test_an_error_of_a_task_comes_to_its_last_line():
    assert last_line(ValueError("first\n  at x\nValueError: last\n\n")) == "ValueError: last"
    assert last_line(ValueError()) == "ValueError"
