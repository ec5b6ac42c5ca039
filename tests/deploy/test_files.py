"""Scripts, the image, the dashboard, and every config that the documents show."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import ray
import yaml

from adrs_ray.config import parse_config, read_config
from cluster.metrics import METRICS
from cluster.presets import expand

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted(DEPLOY.rglob("*.md"))]
_BLOCK = re.compile(r"^```ya?ml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_METRIC = re.compile(r"\bray_(adrs_[a-z_]+)\b")


def blocks():
    return [
        pytest.param(text, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, text in enumerate(_BLOCK.findall(page.read_text()))
    ]


def instructions():
    """The Dockerfile's instructions, continued lines joined, as (name, arguments)."""
    text = re.sub(r"^\s*#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    return [tuple(line.split(maxsplit=1)) for line in lines if line.strip()]


@pytest.mark.parametrize("text", blocks())
def test_every_config_in_the_documents_loads(text):
    """Manifests and parts of task.yaml are not configs: they name what they are with their first key."""
    for data in yaml.safe_load_all(text):
        if not isinstance(data, dict) or data.keys() & {"apiVersion", "name", "entry", "stages", "summary"}:
            continue
        expand(parse_config(data, "documents"))


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_configs_of_a_night_load_and_ask_models(path):
    config = expand(read_config(path))
    assert config.generator.kind == "openai"
    assert set(config.models) == {"small", "strong"}
    servers = sum(engine.replicas for engine in config.pool.models.values())
    at_once = config.islands.count * config.islands.in_flight
    assert 0.5 <= at_once / (servers * config.pool.max_in_flight) <= 1.0


@pytest.mark.parametrize("script", sorted(DEPLOY.rglob("*.sbatch")), ids=lambda path: path.name)
def test_scripts_are_bash(script):
    assert subprocess.run(["bash", "-n", script], capture_output=True, text=True).stderr == ""
    text = script.read_text()
    assert text.startswith("#!/bin/bash\n")
    assert "set -euo pipefail" in text
    options = set(re.findall(r"^#SBATCH (--[a-z-]+)", text, re.MULTILINE))
    assert {"--requeue", "--signal", "--nodes", "--time", "--gpus-per-node"} <= options


def test_a_slurm_job_drains_before_its_grace_ends():
    text = (DEPLOY / "slurm" / "adrs.sbatch").read_text()
    notice_s = int(re.search(r"--signal=B:TERM@(\d+)", text)[1])
    assert notice_s > read_config(DEPLOY / "overnight-4x8.yaml").cluster.drain_s + 60


def test_the_image_is_pinned_and_ends_without_root():
    given = instructions()
    defaults = dict(argument.split("=", 1) for name, argument in given if name == "ARG")
    for name, argument in given:
        if name == "FROM":
            image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], argument.split()[0])
            assert re.search(r":[^:/]*\d", image), image
            assert not image.endswith(":latest")
    users = [argument for name, argument in given if name == "USER"]
    assert users
    assert not users[-1].startswith(("0", "root"))
    assert given.index(("USER", users[-1])) > max(n for n, each in enumerate(given) if each[0] in ("RUN", "COPY"))
    assert defaults["RAY_VERSION"] == ray.__version__


def test_the_image_installs_without_leftovers_and_copies_what_is_there():
    for name, argument in instructions():
        assert name in {"ARG", "FROM", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}, name
        if name == "RUN" and "apt-get install" in argument:
            assert "apt-get update" in argument
            assert "--no-install-recommends" in argument
            assert "rm -rf /var/lib/apt/lists/*" in argument
        if name == "RUN" and "pip install" in argument:
            assert "--no-cache" in argument
        if name == "WORKDIR":
            assert argument.startswith("/")
        if name in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(argument), list)
        if name == "COPY" and "--from" not in argument:
            *sources, _ = argument.split()
            assert all((ROOT / source).exists() for source in sources), argument


def test_engines_of_the_image_are_those_of_the_configs():
    created = {argument for name, argument in instructions() if name == "RUN" and "/opt/vllm" in argument}
    assert len(created) == 1
    assert all(read_config(path).pool.python == "/opt/vllm/bin/python" for path in DEPLOY.glob("*.yaml"))


def test_the_dashboard_shows_every_metric_and_no_other():
    panels = json.loads((DEPLOY / "grafana" / "adrs.json").read_text())["panels"]
    shown = {
        name for panel in panels for target in panel.get("targets", ()) for name in _METRIC.findall(target["expr"])
    }
    exported = {f"{metric.name}_total" if metric.kind == "counter" else metric.name for metric in METRICS}
    assert shown == exported


def test_the_dashboard_asks_for_tags_that_metrics_have():
    tags = {metric.name: {"run", *metric.tags} for metric in METRICS}
    panels = json.loads((DEPLOY / "grafana" / "adrs.json").read_text())["panels"]
    for panel in panels:
        for target in panel.get("targets", ()):
            names = {name.removesuffix("_total") for name in _METRIC.findall(target["expr"])}
            known = set().union(*(tags[name] for name in names))
            grouped = {
                tag.strip() for group in re.findall(r"by \(([^)]*)\)", target["expr"]) for tag in group.split(",")
            }
            assert grouped <= known, target["expr"]
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= known, target["expr"]


def test_panels_have_places_and_ids_of_their_own():
    panels = json.loads((DEPLOY / "grafana" / "adrs.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
