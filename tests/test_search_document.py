"""docs/search.md keeps up with the code: its tables of knobs, its names."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from adrs_ray.cli.steer import steer
from adrs_ray.config import parse_config
from adrs_ray.prompt.render import OPERATORS
from adrs_ray.selector.archives import ARCHIVES
from adrs_ray.selector.parents import PARENT_RULES
from adrs_ray.supervision.interventions import ESCALATION
from tests.benchmarks.knobs import tables

DOCUMENT = (Path(__file__).parents[1] / "docs" / "search.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- knobs: begin -->", "<!-- knobs: end -->"


def test_the_tables_of_knobs_are_those_of_the_config():
    shown = DOCUMENT.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == tables().strip(), "run `python -m tests.benchmarks.knobs` and put its output between the markers"


def test_every_operator_archive_rule_intervention_and_command_is_named():
    words = set(re.findall(r"`(?:--)?([a-z_]+)", DOCUMENT))
    assert words >= set(OPERATORS) | set(ARCHIVES) | set(PARENT_RULES) | set(ESCALATION)
    others = {"run", "return", "island", "context", "address"}
    options = {name.replace("go_on", "continue") for name in steer.__annotations__} - others
    assert words >= options


def test_the_configs_it_shows_are_valid():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert blocks
    for block in blocks:
        parse_config(yaml.safe_load(block), "docs/search.md")
