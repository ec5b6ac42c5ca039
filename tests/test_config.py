import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import RunConfig, override, parse_config, read_config, to_yaml
from adrs_ray.errors import UsageError


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        ({"budgets": {}}, r"unknown key 'budgets'.*accepted are adaptation, budget, .*selector"),
        ({"islands": {"cout": 2}}, r"unknown key 'islands.cout'.*accepted are count, in_flight"),
        ({"seed": "one"}, r"seed is 'one': .*integer"),
        ({"seed": 1.5}, r"seed is 1.5: .*integer"),
        ({"islands": {"count": 0}}, r"islands.count is 0: .*greater than or equal to 1"),
        ({"islands": {"count": True}}, r"islands.count is True"),
        ({"generator": {"kind": "oracle"}}, r"generator.kind is 'oracle': .*mutate"),
        ({"selector": {"exploration": 0.9, "exploitation": 0.3}}, r"exploration 0.9 \+ exploitation 0.3 exceed 1"),
        ({"islands": {"count": 8}, "budget": {"max_candidates": 4}}, r"max_candidates 4 is below islands.count 8"),
        ([1, 2], r"expected a mapping of sections, got list"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_key_value_and_what_is_accepted(data, wanted):
    with pytest.raises(UsageError) as caught:
        parse_config(data, "night.yaml")
    message = str(caught.value)
    assert message.startswith("night.yaml: ")
    assert re.search(wanted, message)
    assert "\n" not in message


def test_the_printed_yaml_reads_back_equal_and_explains_every_key():
    config = override(RunConfig(), {"islands.count": 5, "budget.max_wall_s": 3.5, "cluster.address": "auto"})
    text = to_yaml(config)
    assert parse_config(yaml.safe_load(text), "x") == config
    assert all("#" in line for line in text.splitlines() if line)
    assert "None" not in text


def test_a_file_that_is_missing_or_no_yaml_is_one_line(tmp_path):
    with pytest.raises(UsageError, match="cannot read config"):
        read_config(tmp_path / "none.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_text("a: [1, 2\nb: {")
    with pytest.raises(UsageError, match="not YAML") as caught:
        read_config(bad)
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda c: st.dictionaries(
            st.sampled_from(["seed", "budget", "count", "islands", "max_candidates", "x"]), c, max_size=3
        ),
        max_leaves=6,
    )
)
def test_no_input_ends_in_anything_but_a_config_or_one_line(data):
    lines = []
    try:
        parse_config(data, "f")
    except UsageError as error:
        lines = str(error).splitlines()
    assert len(lines) <= 1
