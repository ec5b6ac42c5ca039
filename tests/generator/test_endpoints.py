"""Servers that are there already: which has what, who goes away and comes back."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import RunConfig, parse_config
from adrs_ray.errors import UsageError
from adrs_ray.generator.endpoints import EndpointPool, Listing, pooled_models, read_listing
from adrs_ray.generator.routing import PoolView
from tests.generator.listing_server import ListingServer

CANARY = "sk-canary-51c0ffee"


def configured(endpoints: list[str], models: dict[str, dict[str, Any]] | None = None) -> RunConfig:
    models = models or {"small": {"model": "m-1"}, "strong": {"model": "m-2"}}
    return parse_config({"generator": {"kind": "openai"}, "models": models, "pool": {"endpoints": endpoints}}, "a test")


def free_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def started(config: RunConfig) -> PoolView:
    """The view of a pool that was started once."""

    async def main() -> PoolView:
        pool = EndpointPool(config, patience_s=0.0)
        try:
            await pool.start()
            return pool.view()
        finally:
            await pool.close()
            await pool.close()

    return asyncio.run(main())


def urls(view: PoolView) -> dict[str, list[str]]:
    return {name: [server.base_url for server in servers] for name, servers in view.servers.items()}


def test_models_go_to_the_endpoints_that_list_them_with_the_load_that_these_tell():
    loaded = 'vllm:num_requests_running{engine="0"} 5\nvllm:num_requests_waiting{engine="0"} 2\n'
    with (
        ListingServer(models=["m-1", "other"], metrics=loaded) as a,
        ListingServer(models=["m-2", "m-1"]) as b,
        ListingServer(models=["other"]) as c,
    ):
        view = started(configured([a.base_url, b.base_url, c.base_url, a.base_url + "/"]))
    assert urls(view) == {"small": [a.base_url, b.base_url], "strong": [b.base_url]}
    assert [server.load for server in view.servers["small"]] == [7.0, 0.0]
    assert view.key is None


def test_models_with_an_address_or_engines_of_their_own_are_none_of_its_business():
    models = {
        "small": {"model": "m-1"},
        "hosted": {"model": "x", "base_url": "http://127.0.0.1:1/v1"},
        "strong": {"model": "y"},
    }
    config = parse_config(
        {
            "generator": {"kind": "openai"},
            "models": models,
            "pool": {"endpoints": ["http://127.0.0.1:1/v1"], "models": {"strong": {}}},
        },
        "a test",
    )
    assert pooled_models(config) == ("small",)


def test_a_model_that_is_served_nowhere_is_one_line_with_what_each_endpoint_has():
    closed = f"http://127.0.0.1:{free_port()}/v1"
    with (
        ListingServer(models=[f"m-{n}" for n in range(3, 23)]) as a,
        ListingServer(models=None) as b,
        ListingServer(models=[]) as c,
        pytest.raises(UsageError) as raised,
    ):
        started(configured([a.base_url, b.base_url, c.base_url, closed]))
    line = str(raised.value)
    assert line.startswith("models.small: no endpoint has 'm-1': ")
    assert f"127.0.0.1:{a.port} has m-10, m-11" in line
    assert "and 12 more" in line
    assert f"127.0.0.1:{b.port} does not say what it has (HTTP 404" in line
    assert f"127.0.0.1:{c.port} has none" in line
    assert "does not say what it has (ConnectError" in line
    assert "\n" not in line


def test_every_endpoint_is_asked_with_the_models_key_which_stands_nowhere_else(monkeypatch, capfd, caplog):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    models = {"small": {"model": "m-1", "api_key_env": "CANARY_KEY"}}
    with ListingServer(api_key=CANARY) as server, ListingServer(api_key="another") as other:
        view = started(configured([server.base_url, other.base_url], models))
        assert urls(view) == {"small": [server.base_url]}
        with pytest.raises(UsageError, match="no such key") as raised:
            started(configured([other.base_url], models))
    assert CANARY not in "".join([str(raised.value), caplog.text, *capfd.readouterr()])
    monkeypatch.delenv("CANARY_KEY")
    with pytest.raises(UsageError, match="CANARY_KEY"):
        EndpointPool(configured(["http://127.0.0.1:1/v1"], models))


def test_an_endpoint_that_goes_away_leaves_the_view_and_comes_back():
    port = free_port()
    models = {"small": {"model": "m-1"}}

    async def main() -> list[int]:
        seen = []
        with ListingServer() as steady:
            config = configured([steady.base_url, f"http://127.0.0.1:{port}/v1"], models)
            pool = EndpointPool(config, look_every_s=0.05)
            with ListingServer(port=port):
                await pool.start()
                view = pool.view()
                seen.append(len(view.servers["small"]))
            view = await asyncio.wait_for(pool.changed(view), 30)
            seen.append(len(view.servers["small"]))
            assert [(status.up, bool(status.problem)) for status in pool.stats()] == [(True, False), (False, True)]
            with ListingServer(port=port):
                view = await asyncio.wait_for(pool.changed(view), 30)
                seen.append(len(view.servers["small"]))
            await pool.close()
        return seen

    assert asyncio.run(main()) == [2, 1, 2]


def test_a_model_that_an_endpoint_no_longer_lists_leaves_it():
    async def main() -> None:
        with ListingServer(models=["m-1", "m-2"]) as server:
            pool = EndpointPool(configured([server.base_url]), look_every_s=0.05)
            await pool.start()
            assert pool.stats()[0].models == ("small", "strong")
            server.models = ["m-1"]
            view = await asyncio.wait_for(pool.changed(pool.view()), 30)
            assert urls(view) == {"small": [server.base_url], "strong": []}
            await pool.close()

    asyncio.run(main())


def test_an_endpoint_that_is_late_is_waited_for_at_the_start():
    port = free_port()

    async def main() -> int:
        pool = EndpointPool(
            configured([f"http://127.0.0.1:{port}/v1"], {"small": {"model": "m-1"}}), look_every_s=0.05, patience_s=60
        )
        start = asyncio.create_task(pool.start())
        await asyncio.sleep(0.3)
        assert not start.done()
        with ListingServer(port=port):
            await asyncio.wait_for(start, 30)
            found = len(pool.view().servers["small"])
            await pool.close()
        return found

    assert asyncio.run(main()) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["data", "id", "x"]), inner),
    max_leaves=12,
)


@given(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_any_listing_is_read_without_an_exception(data):
    listing = read_listing(data)
    assert isinstance(listing, Listing)
    assert all(isinstance(name, str) for name in listing.names)
