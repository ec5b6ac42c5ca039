"""Reading vLLM's metrics: every form of names, any text."""

from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.generator.engine_metrics import EngineMetrics, EngineRates, parse_metrics, rates, read_metrics
from tests.generator.listing_server import ListingServer

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="Qwen/Qwen3 \\"x\\" } 9"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 4.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 2.0 1767225600000
vllm:num_requests_waiting_by_reason{engine="0",reason="capacity"} 2.0
vllm:kv_cache_usage_perc{engine="0"} 0.25
vllm:kv_cache_usage_perc{engine="1"} 0.75
vllm:engine_sleep_state{engine="0",sleep_state="awake"} 1.0
vllm:engine_sleep_state{engine="0",sleep_state="weights_offloaded"} 0.0
vllm:prefix_cache_queries_total{engine="0"} 4817.0
vllm:prefix_cache_queries_created{engine="0"} 1.767e+09
vllm:prefix_cache_hits_total{engine="0"} 1280.0
vllm:gpu_prefix_cache_hits_total{engine="0"} 1280.0
vllm:prompt_tokens_total{engine="0"} 9.0e+03
vllm:generation_tokens_total{engine="0"} 100.0
vllm:generation_tokens_total{engine="1"} 50.0
vllm:request_success_total{finished_reason="stop"} NaN
"""
READ = EngineMetrics(7.0, 2.0, 9000.0, 150.0, 1280.0, 4817.0, 0.75, False)


@pytest.mark.parametrize("prefix", ["vllm:", "", "vllm_", "ray_vllm:", "ray_vllm_"])
def test_names_are_read_under_every_prefix_and_engines_are_summed(prefix):
    assert parse_metrics(TEXT.replace("vllm:", prefix)) == READ
    assert READ.load == 9.0


def test_what_is_missing_is_none():
    assert parse_metrics("") == EngineMetrics()
    assert EngineMetrics().load is None
    assert parse_metrics("vllm:num_requests_running 0\n") == EngineMetrics(running=0.0)
    assert EngineMetrics(running=2.0).load == 2.0


def test_one_engine_that_sleeps_makes_a_sleeper():
    states = "".join(f'vllm:engine_sleep_state{{engine="{n}",sleep_state="awake"}} {n}\n' for n in range(2))
    assert parse_metrics(states).sleeping is True


def test_older_names_are_read_where_the_newer_are_not():
    assert parse_metrics("vllm:gpu_prefix_cache_hits_total 5\nvllm:gpu_cache_usage_perc 0.5\n") == EngineMetrics(
        cache_hits=5.0, cache_usage=0.5
    )


VALUES = st.sampled_from(["1", "-1", "NaN", "+Inf", "1e308", "1e309", "0x1", "", "1_0", "\u0661"]) | st.text(max_size=4)
NAMES = st.sampled_from(["vllm:num_requests_running", "prefix_cache_hits_total", "vllm:engine_sleep_state", "#"])
LABELS = st.sampled_from(["", '{sleep_state="awake"}', '{a="', '{a="\\', "{}", '{a="}"}']) | st.text(max_size=9)


@given(st.lists(st.tuples(NAMES, LABELS, st.sampled_from([" ", "", "\t", "\r"]), VALUES), max_size=12) | st.text())
def test_any_text_is_read_without_an_exception(lines):
    text = lines if isinstance(lines, str) else "\n".join("".join(line) for line in lines)
    found = parse_metrics(text)
    for value in (found.running, found.cache_hits, found.cache_usage, found.load):
        assert value is None or value >= 0
    assert found.running is None or math.isfinite(found.running)


def test_a_long_hostile_line_is_read_in_linear_time():
    for line in (
        'vllm:num_requests_running{a="' + '\\"' * 200_000,
        "a" * 500_000,
        "a{" + '""' * 200_000,
        "a{}" * 99_999,
    ):
        assert parse_metrics(line) == EngineMetrics()


def test_rates_come_from_two_readings_and_not_from_an_engine_that_was_started_again():
    before = EngineMetrics(prompt_tokens=100.0, generation_tokens=10.0, cache_hits=0.0, cache_queries=100.0)
    after = EngineMetrics(prompt_tokens=300.0, generation_tokens=50.0, cache_hits=50.0, cache_queries=300.0)
    assert rates(before, after, 4.0) == EngineRates(50.0, 10.0, 0.25)
    assert rates(after, before, 4.0) == EngineRates()
    assert rates(after, after, 4.0) == EngineRates(0.0, 0.0, None)
    assert rates(before, after, 0.0) == EngineRates(None, None, 0.25)
    assert rates(EngineMetrics(), after, 4.0) == EngineRates()


@pytest.mark.parametrize("path", ["/v1", "/v1/", ""])
def test_metrics_are_asked_for_at_the_servers_root_with_its_key(path):
    with ListingServer(metrics=TEXT, api_key="k-1") as server:
        url = server.base_url.removesuffix("/v1") + path
        assert asyncio.run(read_metrics(url, "k-1")) == READ
        assert asyncio.run(read_metrics(url, "another")) == EngineMetrics()
    assert [received.path for received in server.asked] == ["/metrics"] * 2
    assert asyncio.run(read_metrics(url, None, timeout_s=1.0)) == EngineMetrics()
