"""docs/models.md keeps up with the code: its tables, its configs, its figures."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from adrs_ray.config import parse_config
from cluster import estimate, fit
from cluster.model_tables import markdown
from cluster.presets import catalogue, expand

DOCUMENT = (Path(__file__).parents[1] / "docs" / "models.md").read_text(encoding="utf-8")
BEGIN, END = "<!-- models: begin -->", "<!-- models: end -->"


def test_the_tables_are_those_of_the_catalogue():
    shown = DOCUMENT.partition(BEGIN)[2].partition(END)[0].strip()
    assert shown == markdown(catalogue()).strip(), "put what `adrs models list --markdown` prints between the markers"


def test_the_configs_it_shows_expand():
    blocks = re.findall(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        assert expand(parse_config(yaml.safe_load(block), "docs/models.md")).pool.models


def test_the_assumptions_it_states_are_those_of_the_code():
    text = DOCUMENT.replace(",", "")
    for figure in (
        f"{estimate.TOKENS_PER_S:g} tokens/s per request",
        f"answers of {estimate.ANSWER_TOKENS:g} tokens",
        f"prompts of {estimate.PROMPT_TOKENS:g} tokens",
        f"{fit.RESERVE_GIB:g} GiB of",
    ):
        assert figure in text, figure
