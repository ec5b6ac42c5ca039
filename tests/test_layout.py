"""The house: who may import whom, beyond what import-linter's contracts can say."""

import re
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph("adrs_ray", "cluster", "gpu_eval", "tasks", include_external_packages=True)


def test_every_task_folder_on_disk_is_analysed(graph):
    on_disk = {path.parent.name for path in (ROOT / "tasks").glob("*/task.yaml")}
    assert on_disk
    for name in on_disk:
        assert {f"tasks.{name}", f"tasks.{name}.judge", f"tasks.{name}.adapter"} <= graph.modules


def test_tasks_import_nothing_of_ours_but_adrs_ray_task(graph):
    for module in graph.modules:
        if module.startswith("tasks."):
            found = graph.find_modules_directly_imported_by(module)
            assert {m for m in found if m.split(".")[0] in ("adrs_ray", "cluster")} <= {"adrs_ray.task"}, module
            measured_on_gpus = module.split(".")[1] in ("eplb", "moe_placement")
            assert measured_on_gpus or not {m for m in found if m.startswith("gpu_eval")}, module


def test_what_a_candidate_runs_beside_imports_nothing_of_ours(graph):
    """Adapters run in the jail, where our package is out of reach."""
    for module in graph.modules:
        if module.endswith(".adapter") and module.startswith("tasks."):
            reached = graph.find_upstream_modules(module)
            assert not {m for m in reached if m.split(".")[0] in ("adrs_ray", "cluster", "gpu_eval")}, module


def test_the_loop_imports_no_ray_torch_or_vllm(graph):
    """Seeds, and adapters beside them, may import what programs are given."""
    for module in graph.modules:
        if module.startswith(("adrs_ray", "tasks")):
            allowed = {"torch"} if module.endswith((".adapter", ".seed")) else set()
            assert not graph.find_modules_directly_imported_by(module) & {"ray", "torch", "vllm"} - allowed, module


def test_only_commands_import_cluster(graph):
    for module in graph.modules:
        if module.startswith("adrs_ray"):
            ours = {m for m in graph.find_modules_directly_imported_by(module) if m.startswith("cluster")}
            assert not ours or module.startswith("adrs_ray.cli."), module


def test_the_wheel_holds_every_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert set(packages) == {p for p in ("adrs_ray", "cluster", "tasks", "gpu_eval") if (ROOT / p).is_dir()}


def test_the_documents_name_files_that_exist():
    for document in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for name in re.findall(r"`((?:docs|tests|tasks|adrs_ray|cluster)/[\w/.]+)`", document.read_text()):
            assert (ROOT / name).exists(), f"{document.name} names {name}"
