"""Presets: what they fill in, what wins over them, and that what they hold together is possible."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from adrs_ray.config import RunConfig, override, parse_config, to_yaml
from adrs_ray.errors import UsageError
from adrs_ray.task_spec import Stage
from cluster.engine import engine_specs
from cluster.fit import NodeRoom, fit
from cluster.model_lock import Lock, Locked, read_lock, write_lock
from cluster.presets import catalogue, expand, footprints, is_commit

PRESETS = sorted(catalogue().presets)
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def with_preset(name: str = "8x80gb", **sections: object) -> RunConfig:
    pool = sections.pop("pool", {})
    return parse_config({"pool": {"preset": name, **pool}, **sections}, "test")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_becomes_a_valid_config_that_run_yaml_can_hold(name):
    expanded = expand(with_preset(name))
    assert expanded.generator.kind == "openai"
    assert list(expanded.models) == ["small", "strong"]
    assert expanded.pool.preset is None
    assert expand(expanded) == expanded
    assert parse_config(yaml.safe_load(to_yaml(expanded)), "run.yaml") == expanded
    assert engine_specs(expanded, "night")


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_fits_on_the_gpus_that_it_names_beside_a_gpu_stage(name):
    preset = catalogue().presets[name]
    nodes = [NodeRoom(str(n), 96, preset.gpus_per_node, preset.gpu_gib - 0.5) for n in range(preset.nodes)]
    config = expand(with_preset(name))
    found = fit(nodes, config, [Stage(name="simulated"), Stage(name="measured", gpus=1)], footprints(config))
    assert found.gpu_slots >= 1
    assert found.gpus_held == preset.gpus
    assert all(whole >= 1 for whole in found.resident.values())


@pytest.mark.parametrize("name", PRESETS)
def test_a_full_replica_costs_its_gpus_and_no_more(name):
    expanded = expand(with_preset(name))
    for role, member in catalogue().presets[name].models.items():
        assert expanded.models[role].gpus * expanded.pool.max_in_flight == pytest.approx(member.tensor_parallel)


def test_nothing_is_pinned_that_nobody_has_seen():
    for model in catalogue().models.values():
        assert model.pinned == is_commit(model.revision)
        assert model.revision == "main" or model.pinned


def test_a_preset_that_is_not_known_is_refused_with_all_that_are():
    with pytest.raises(UsageError, match=", ".join(catalogue().presets)):
        expand(with_preset("9x80gb"))


@pytest.mark.parametrize("kind", ["mailbox", "mutate"])
def test_a_preset_for_a_generator_that_asks_no_model_is_refused(kind: str):
    with pytest.raises(UsageError, match=f"generator.kind {kind} does not ask"):
        expand(with_preset(generator={"kind": kind}))
    with pytest.raises(UsageError, match=f"generator.kind {kind} does not ask"):
        expand(override(with_preset(), {"generator.kind": kind}))


def test_a_preset_with_other_settings_of_the_generator_asks_models():
    assert expand(with_preset(generator={"redraws": 3})).generator.kind == "openai"


def test_a_config_without_a_preset_stays_as_it_is():
    assert expand(RunConfig()) == RunConfig()


def test_what_the_config_sets_of_an_engine_wins():
    expanded = expand(with_preset(pool={"models": {"small": {"replicas": 3, "source": "/models/small"}}}))
    assert expanded.pool.models["small"].replicas == 3
    assert expanded.pool.models["small"].source == "/models/small"
    assert expanded.pool.models["strong"].replicas == 2


def test_what_the_config_sets_of_a_model_wins_and_the_rest_is_the_presets():
    repository = catalogue().models["gpt-oss-120b"].repository
    own = {"model": repository, "temperature": 0.8, "reasoning_tokens": 1000}
    strong = expand(with_preset(models={"strong": own})).models["strong"]
    assert (strong.temperature, strong.reasoning_tokens, strong.reasoning_effort) == (0.8, 1000, "high")


def test_a_setting_of_the_command_line_does_not_make_defaults_into_wishes():
    given = override(with_preset("2x80gb"), {"budget.max_candidates": 77})
    assert expand(given).pool.max_in_flight == catalogue().presets["2x80gb"].max_in_flight
    assert expand(override(RunConfig(), {"pool.preset": "2x80gb"})) == expand(with_preset("2x80gb"))


def test_a_model_with_an_address_of_its_own_gets_no_engine():
    hosted = {"base_url": "http://10.0.0.7:8000/v1", "model": "hosted"}
    expanded = expand(with_preset(models={"strong": hosted}))
    assert list(expanded.pool.models) == ["small"]
    assert expanded.models["strong"].reasoning_tokens == 0


def test_another_model_keeps_the_shape_and_nothing_of_the_presets_weights():
    expanded = expand(with_preset(models={"strong": {"model": "someone/else"}}))
    engine = expanded.pool.models["strong"]
    assert (engine.source, engine.revision, engine.reasoning_parser, engine.replicas) == (None, None, None, 2)
    assert "strong" not in footprints(expanded)


def test_a_model_that_shares_an_engine_gets_one_when_the_other_is_elsewhere():
    hosted = {"base_url": "http://10.0.0.7:8000/v1", "model": "hosted"}
    assert list(expand(with_preset("1x80gb")).pool.models) == ["small"]
    assert list(expand(with_preset("1x80gb", models={"small": hosted})).pool.models) == ["strong"]


def test_the_lock_gives_the_commit_of_the_branch_that_was_pulled():
    repository = catalogue().models["gpt-oss-120b"].repository
    lock = Lock(models={repository: Locked(revision="main", commit=COMMIT, bytes=1)})
    expanded = expand(with_preset(), lock)
    assert expanded.pool.models["strong"].revision == COMMIT
    assert expanded.pool.models["small"].revision == "main"
    assert expand(expanded, lock) == expanded
    other = expand(with_preset(pool={"models": {"strong": {"revision": "v2"}}}), lock)
    assert other.pool.models["strong"].revision == "v2"


def test_a_lock_is_read_back_and_added_to(tmp_path: Path):
    assert read_lock(tmp_path) == Lock()
    first = {"a/b": Locked(revision="main", commit=COMMIT, bytes=7)}
    write_lock(tmp_path, first)
    write_lock(tmp_path, {"c/d": Locked(revision="v1", commit=COMMIT, bytes=8)})
    assert read_lock(tmp_path).commit("a/b", None) == COMMIT
    assert read_lock(tmp_path).commit("c/d", "v1") == COMMIT
    assert read_lock(tmp_path).commit("c/d", "main") is None


@pytest.mark.parametrize(
    "text", ["models: [a]", "models: {a/b: {revision: main, commit: short, bytes: 1}}", ": :", "x"]
)
def test_a_lock_that_is_none_is_refused_in_one_line(tmp_path: Path, text: str):
    (tmp_path / "models.lock.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"models\.lock\.yaml"):
        read_lock(tmp_path)
