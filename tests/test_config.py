import re

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import RunConfig, override, parse_config, read_config, to_yaml
from adrs_ray.errors import UsageError

SERVER = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}


def asking(**model: object) -> dict[str, object]:
    return {"generator": {"kind": "openai"}, "models": {"small": {**SERVER, **model}}}


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
        ({"generator": {"kind": "openai"}}, r"generator.kind openai needs `models`"),
        (asking(weight=0.0), r"models: every weight is 0"),
        ({**asking(), "islands": {"overrides": {0: {"models": []}}}}, r"overrides.0.models \[\] leaves no model"),
        ({**asking(), "islands": {"overrides": {1: {"models": ["strong"]}}}}, r"'strong' is named but not among"),
        (
            {**asking(), "generator": {"kind": "openai", "strong": "big"}},
            r"'big' is named but not among `models` \(small",
        ),
        ({**asking(), "generator": {"kind": "openai", "operators": {"diff": -1}}}, r"weights must not be negative"),
        ({**asking(), "budget": {"max_usd": 1.0}}, r"models.small has no usd_per_mtok_in"),
        ({**asking(), "budget": {"max_gpu_s": 9.0}}, r"budget.max_gpu_s needs models.small.gpus"),
        (asking(usd_per_mtok_in=1.0), r"usd_per_mtok_in and usd_per_mtok_out go together"),
        (asking(max_tokens=9000, context_tokens=8000), r"leave nothing of context_tokens 8000"),
        (asking(base_url="https://me:secret@host/v1"), r"base_url holds a password: .*api_key_env"),
        (asking(base_url="127.0.0.1:8000"), r"models.small.base_url is '127.0.0.1:8000'"),
        ({"pool": {"endpoints": ["https://secret@host/v1"]}}, r"pool.endpoints: address 1 holds a user.*api_key_env"),
        ({"pool": {"endpoints": ["https://me:secret@host/v1"]}}, r"pool.endpoints: address 1 holds"),
        ({"pool": {"endpoints": ["secret@host/v1"]}}, r"pool.endpoints: address 1 holds"),
        ({"pool": {"endpoints": ["https://host/v1?api_key=secret"]}}, r"pool.endpoints: address 1 holds"),
        ({"pool": {"endpoints": ["ftp://a", "http://b/v1#secret"]}}, r"pool.endpoints: address 2 holds"),
        ({"pool": {"endpoints": "https://secret@host/v1"}}, r"pool.endpoints: address 1 holds"),
        ({"pool": {"endpoints": "http://host/v1"}}, r"pool.endpoints is 'http://host/v1': .*valid list"),
        ({"pool": {"endpoints": ["host:8000"]}}, r"'host:8000' is no address, such as http://"),
        ({"pool": {"endpoints": ["http://host:port/v1"]}}, r"'http://host:port/v1' is no address"),
        ({"models": {"mutate": SERVER}}, r"`mutate` is the name of the model-free generator"),
        ({"adaptation": {"shift_after": 10}}, r"asks a strong model"),
        ({"adaptation": {"exploration": [0.5, 0.2]}}, r"expected 0 <= least <= most <= 1"),
        ({"noise": {"min_repeats": 5, "max_repeats": 2}}, r"min_repeats 5 is above max_repeats 2"),
        ({"selector": {"temperature": [0.0, 1.0]}}, r"both must be above 0"),
        (
            {"islands": {"overrides": {1: {"exploration": 0.9}}}},
            r"islands.overrides.1: selector: exploration 0.9 \+ exploitation 0.6 exceed 1",
        ),
        ({"islands": {"overrides": {1: {"operators": {"diff": 0.0}}}}}, r"islands.overrides.1: .*one above 0"),
        ({"islands": {"overrides": {-1: {"archive": "topk"}}}}, r"islands.overrides.-1.*greater than or equal to 0"),
        ({"seeding": {"variants": 2}}, r"variants 2 of no seeds"),
    ],
)
def test_a_wrong_config_is_one_line_that_names_key_value_and_what_is_accepted(data, wanted):
    with pytest.raises(UsageError) as caught:
        parse_config(data, "night.yaml")
    message = str(caught.value)
    assert message.startswith("night.yaml: ")
    assert re.search(wanted, message)
    assert "\n" not in message
    assert "secret" not in message


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


def test_models_and_overrides_are_printed_and_read_back():
    sections = {
        **asking(extra_body={"top_k": 20}, usd_per_mtok_in=0.1, usd_per_mtok_out=0.4),
        "islands": {"overrides": {1: {"archive": "cvt", "temperature": 1.5, "operators": {"rewrite": 1.0}}}},
    }
    config = parse_config(sections, "x")
    assert parse_config(yaml.safe_load(to_yaml(config)), "x") == config
    own = config.for_island(1)
    assert (own.selector.archive, own.models["small"].temperature) == ("cvt", 1.5)
    assert own.generator.operators == {"rewrite": 1.0}
    assert config.for_island(0) == config
