"""The client of language models against a server that misbehaves in every way we know."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import traceback
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from adrs_ray.candidate import Completion
from adrs_ray.config import ModelConfig
from adrs_ray.errors import RunError, UsageError
from adrs_ray.generator import GenerationRequest, Message
from adrs_ray.generator.connection import LARGEST_REPLY_BYTES
from adrs_ray.generator.limits import LocalLimiter
from adrs_ray.generator.openai_model import OpenAIModel
from adrs_ray.generator.reply import read_reply, split_thinking
from tests.fake_openai import FakeServer, Reply, endless_thinking, limited, too_long

CANARY = "sk-canary-6b1f0c2d9e"
REQUEST = GenerationRequest(
    "0-1",
    "diff",
    ("x = 1",),
    (1, 2, 3),
    model="small",
    form="diff",
    messages=(Message("system", "you improve programs"), Message("user", "improve this: x = 1")),
)


class Watch(LocalLimiter):
    """A limiter that remembers; holds do not really last."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__({"small": config})
        self.leases: list[int] = []
        self.ended: list[tuple[int, int]] = []
        self.holds: list[float] = []

    async def lease(self, model: str, tokens: int) -> None:
        self.leases.append(tokens)
        await super().lease(model, tokens)

    async def done(self, model: str, reserved_tokens: int, used_tokens: int) -> None:
        self.ended.append((reserved_tokens, used_tokens))
        await super().done(model, reserved_tokens, used_tokens)

    async def hold(self, model: str, seconds: float) -> None:
        self.holds.append(seconds)


class Asked:
    """One model, asked once or more on one event loop."""

    def __init__(self, base_url: str, **fields: Any) -> None:
        self.config = ModelConfig.model_validate(
            {"base_url": base_url, "model": "m-1", "max_tokens": 100, "attempts": 3, "timeout_s": 20.0, **fields}
        )
        self.limiter = Watch(self.config)
        self.slept: list[float] = []
        self.model = OpenAIModel("small", self.config, self.limiter, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def all(self, requests: Sequence[GenerationRequest]) -> list[Completion]:
        async def main() -> list[Completion]:
            try:
                return await asyncio.gather(*(self.model.complete(request) for request in requests))
            finally:
                await self.model.close()
                await self.model.close()

        return asyncio.run(main())

    def __call__(self, request: GenerationRequest = REQUEST) -> Completion:
        return self.all([request])[0]


def script(*replies: Reply | str):
    """Answers in turn, the last one for ever."""
    left = list(replies)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


# --- what is asked and what comes back


def test_a_good_answer_is_text_and_its_tokens_are_those_the_server_billed():
    with FakeServer(script(Reply("answer " * 40, tokens_cached=6))) as server:
        asked = Asked(server.base_url, usd_per_mtok_in=2.0, usd_per_mtok_cached=0.5, usd_per_mtok_out=8.0, gpus=2.0)
        got = asked()
    usage = got.usage
    assert (got.text, got.model, got.operator, got.detail) == ("answer " * 40, "small", "diff", "")
    assert (usage.tokens_in, usage.tokens_out, usage.tokens_cached) == (server.billed_in, server.billed_out, 6)
    assert usage.usd == pytest.approx(((usage.tokens_in - 6) * 2 + 6 * 0.5 + usage.tokens_out * 8) / 1e6)
    assert usage.gpu_s == pytest.approx(2 * usage.latency_s)
    assert usage.latency_s > 0
    assert (usage.attempts, usage.estimated) == (1, False)
    assert asked.limiter.ended == [(asked.limiter.leases[0], usage.tokens)]


def test_every_token_of_many_requests_at_once_is_counted_once():
    with FakeServer(lambda body: Reply("x" * (body["seed"] % 100), latency_s=0.01)) as server:
        asked = Asked(server.base_url, max_in_flight=8)
        got = asked.all([replace(REQUEST, rng_key=(n,)) for n in range(40)])
    assert sum(c.usage.tokens_in for c in got) == server.billed_in
    assert sum(c.usage.tokens_out for c in got) == server.billed_out
    assert server.most_in_flight == 8 == server.connections
    assert len({r.body["seed"] for r in server.received}) == 40


def test_the_request_says_what_the_config_says():
    with FakeServer(script("ok")) as server:
        fields = {"reasoning_tokens": 900, "reasoning_effort": "high", "top_p": 0.9, "extra_body": {"top_k": 5}}
        asked = Asked(server.base_url, less_reasoning_body={"think": False}, **fields)
        asked()
        asked(replace(REQUEST, temperature=0.3, less_reasoning=1))
        asked(replace(REQUEST, less_reasoning=2))
        asked(replace(REQUEST, less_reasoning=9))
    bodies = [received.body for received in server.received]
    first = {key: bodies[0][key] for key in ("model", "temperature", "top_p", "top_k", "max_tokens")}
    assert first == {"model": "m-1", "temperature": 0.8, "top_p": 0.9, "top_k": 5, "max_tokens": 1000}
    assert bodies[0]["messages"] == [{"role": m.role, "content": m.content} for m in REQUEST.messages]
    assert 0 <= bodies[0]["seed"] < 2**31
    assert bodies[1]["seed"] == bodies[0]["seed"]
    assert [b["reasoning_effort"] for b in bodies] == ["high", "medium", "low", "low"]
    assert [b["max_tokens"] for b in bodies] == [1000, 550, 325, 101]
    assert [b.get("think") for b in bodies] == [None, False, False, False]
    assert bodies[1]["temperature"] == 0.3


def test_what_is_not_set_or_set_to_null_is_not_sent():
    with FakeServer(script("ok")) as server:
        Asked(server.base_url, extra_body={"seed": None, "temperature": None})()
    sent = server.received[0].body
    assert set(sent) == {"model", "messages", "max_tokens"}


def test_a_server_that_knows_the_bound_by_its_newer_name_is_told_that_one():
    def answer(body: dict[str, Any]) -> Reply:
        if "max_tokens" in body:
            return Reply(status=400, error={"message": "Unsupported: use 'max_completion_tokens' instead."})
        return Reply("ok")

    # slow enough that all three have been sent before the first is refused
    with FakeServer(lambda sent: replace(answer(sent), latency_s=0.3)) as server:
        asked = Asked(server.base_url)
        assert [c.text for c in asked.all([REQUEST] * 3)] == ["ok"] * 3
        assert asked().text == "ok"
    sent = [(r.body.get("max_tokens"), r.body.get("max_completion_tokens")) for r in server.received]
    assert sent == [(100, None)] * 3 + [(None, 100)] * 4


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
def test_reasoning_is_kept_apart(field):
    with FakeServer(script(Reply("answer", reasoning="because " * 9, reasoning_field=field))) as server:
        got = Asked(server.base_url)()
    assert (got.text, got.reasoning) == ("answer", "because " * 9)
    assert got.usage.tokens_reasoning == 18
    assert got.usage.tokens_out == server.billed_out == 18 + 2


@pytest.mark.parametrize(
    ("content", "reasoning", "answer"),
    [
        ("<think>a\nb</think>\n\nIdea: x", "a\nb", "Idea: x"),
        ("\n <think></think>x", "", "x"),
        ("<think>never ends", "never ends", ""),
        ("first I\n</think>\nIdea: x", "first I", "Idea: x"),
        ("TAG = '</think>'", "", "TAG = '</think>'"),
        ("x = '<think>'\n</think>", "", "x = '<think>'\n</think>"),
        ("plain", "", "plain"),
    ],
)
def test_thinking_in_front_of_an_answer_is_split_off(content, reasoning, answer):
    assert split_thinking(content) == (reasoning, answer)


def test_all_tokens_spent_thinking_is_told_apart():
    with FakeServer(script(endless_thinking(100))) as server:
        got = Asked(server.base_url)()
    assert (got.text, got.thinking_only) == (None, True)
    assert got.detail == "all 100 tokens were spent without an answer"
    assert got.reasoning.startswith("hm, hm")
    assert got.usage.tokens_out == server.billed_out == 100


@pytest.mark.parametrize(
    "reply",
    [
        Reply("<think>and so on", finish="length"),
        Reply("<think>that is all", finish="stop"),
        Reply(None, reasoning="hm", finish="length"),
        Reply("", finish="length"),
    ],
)
def test_thinking_without_an_answer_in_other_shapes(reply):
    with FakeServer(script(reply)) as server:
        got = Asked(server.base_url)()
    assert (got.text, got.thinking_only) == (None, True)
    assert "without an answer" in got.detail


def test_an_answer_that_was_cut_off_is_kept_and_said_to_be():
    with FakeServer(script(Reply("Idea: half of a", finish="length", tokens_out=100))) as server:
        got = Asked(server.base_url)()
    assert (got.text, got.detail, got.thinking_only) == ("Idea: half of a", "cut off after 100 tokens", False)


# --- malformed answers


def body(**message: Any) -> bytes:
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}]}).encode()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no JSON"),
        (b"<html>hello</html>", "no JSON"),
        (body(content="x")[:-9], "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 200_000, "no JSON"),
        (b'{"choices": ' + b"9" * 5000 + b"}", "no JSON"),
        (b"[]", "a list"),
        (b"null", "a NoneType"),
        (b"{}", "no choices"),
        (b'{"choices": []}', "no choices"),
        (b'{"choices": [3]}', "no choices"),
        (b'{"error": {"message": "the engine is dead"}}', "the engine is dead"),
        (b'{"choices": [{}]}', "content is null"),
        (body(content=None), "content is null"),
        (body(content=7), "content is int"),
        (body(content=None, refusal="I cannot help with that"), "refuses: I cannot help"),
        (
            json.dumps({"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}).encode(),
            "filter",
        ),
        (body(content="  \n"), "empty"),
    ],
)
def test_a_malformed_reply_is_a_detail_and_is_charged_at_most(data, says):
    with FakeServer(script(Reply(body=data))) as server:
        asked = Asked(server.base_url)
        got = asked()
        worst = asked.model.worst(REQUEST)
    assert got.text is None
    assert says in got.detail
    assert "\n" not in got.detail
    assert len(server.received) == 1
    assert got.usage.estimated
    assert got.usage.tokens <= worst.tokens
    if "empty" not in says:
        assert got.usage.tokens == worst.tokens


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "choices": JSON
        | st.lists(
            st.fixed_dictionaries(
                {},
                optional={
                    "finish_reason": JSON | st.just("length"),
                    "message": JSON | st.dictionaries(st.sampled_from(["content", "reasoning", "refusal"]), JSON),
                },
            ),
            max_size=2,
        ),
        "usage": JSON
        | st.dictionaries(
            st.sampled_from(
                ["prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"]
            ),
            JSON | st.dictionaries(st.sampled_from(["cached_tokens", "reasoning_tokens"]), JSON),
        ),
        "error": JSON,
    },
)


@given(FIELDS | JSON)
def test_any_json_is_read_without_an_exception(parsed):
    reply = read_reply(json.dumps(parsed).encode(), CANARY)
    for text in (reply.text, reply.reasoning, reply.problem):
        text.encode()
    for count in (reply.tokens_in, reply.tokens_out, reply.tokens_cached, reply.tokens_reasoning):
        assert count is None or 0 <= count <= 10**9
    assert len(reply.problem) < 400


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_exception(data):
    assert isinstance(read_reply(data, None).problem, str)


def test_lone_surrogates_pass_in_neither_direction():
    with FakeServer(script(Reply(body=b'{"choices": [{"message": {"content": "a\\ud800b"}}]}'))) as server:
        got = Asked(server.base_url)(replace(REQUEST, messages=(Message("user", "x\udfffy"),)))
    assert got.text == "a?b"
    assert server.received[0].body["messages"][0]["content"] == "x?y"


def test_a_body_without_end_is_not_read_to_its_end():
    with FakeServer(script(Reply(body=b'"' + b"x" * (LARGEST_REPLY_BYTES + 100)))) as server:
        asked = Asked(server.base_url)
        got = asked()
    assert got.text is None
    assert f"larger than {LARGEST_REPLY_BYTES} bytes" in got.detail
    assert got.usage.tokens == asked.model.worst(REQUEST).tokens


def test_missing_usage_is_estimated_from_the_texts():
    with FakeServer(script(Reply("x" * 90, reasoning="y" * 30, usage="missing"))) as server:
        got = Asked(server.base_url, chars_per_token=3.0)()
    assert got.usage.estimated
    assert got.usage.tokens_out == 40
    assert got.usage.tokens_in == 13


@pytest.mark.parametrize("usage", [{"prompt_tokens": -1}, {"prompt_tokens": True}, {"prompt_tokens": 1e300}, "many"])
def test_counts_that_are_none_are_estimated(usage):
    data = json.dumps({"choices": [{"message": {"content": "ok"}}], "usage": usage}).encode()
    with FakeServer(script(Reply(body=data))) as server:
        got = Asked(server.base_url)()
    assert got.text == "ok"
    assert got.usage.estimated
    assert got.usage.tokens_in == 13


# --- attempts


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_was_not_charged_is_tried_again_up_to_the_number_of_attempts(status):
    with FakeServer(script(limited(status=status), limited(status=status), "at last")) as server:
        asked = Asked(server.base_url)
        got = asked()
        assert (got.text, got.usage.attempts) == ("at last", 3)
        assert got.usage.tokens == server.billed_in + server.billed_out
    assert len(asked.slept) == 2
    with FakeServer(script(limited(status=status))) as server:
        asked = Asked(server.base_url)
        got = asked()
    assert (got.text, got.usage.attempts, got.usage.tokens, got.usage.usd) == (None, 3, 0, 0.0)
    assert f"HTTP {status}" in got.detail
    assert len(server.received) == 3
    assert [used for _, used in asked.limiter.ended] == [0, 0, 0]


def test_retry_after_holds_everybody_and_is_a_lower_bound_of_our_own_wait():
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    with FakeServer(script(limited("7"), limited(date, status=503), "ok")) as server:
        asked = Asked(server.base_url)
        assert asked().text == "ok"
    assert asked.limiter.holds[0] == 7.0
    assert 90 < asked.limiter.holds[1] <= 100
    assert asked.slept[0] >= 7.0
    assert asked.slept[1] >= asked.limiter.holds[1]


def test_a_real_limiter_starts_nobody_before_retry_after_has_passed():
    with FakeServer(script(limited("0.4"), "ok")) as server:
        config = ModelConfig(base_url=server.base_url, model="m", max_tokens=100)
        model = OpenAIModel("small", config, LocalLimiter({"small": config}))

        async def main() -> float:
            loop = asyncio.get_running_loop()
            started = loop.time()
            first = asyncio.create_task(model.complete(REQUEST))
            while not server.received or server.in_flight:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)
            other = await model.complete(replace(REQUEST, rng_key=(9,)))
            waited = loop.time() - started
            assert [(await first).text, other.text] == ["ok", "ok"]
            await model.close()
            return waited

        assert asyncio.run(main()) >= 0.4


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply("late", latency_s=5.0), "timed out after 1 s"),
        (Reply("slow " * 50, drip_s=0.2), "timed out after 1 s"),
        (Reply("lost", drop="before"), "connection was lost"),
        (Reply("lost", drop="middle"), "connection was lost"),
        (Reply(status=504, error={"message": "upstream timed out"}), "HTTP 504: upstream timed out"),
    ],
)
def test_what_may_have_been_charged_is_charged_at_most_and_not_tried_again(reply, says):
    prices = {"usd_per_mtok_in": 1.0, "usd_per_mtok_out": 2.0, "gpus": 1.0}
    with FakeServer(script(reply)) as server:
        asked = Asked(server.base_url, timeout_s=1.0, **prices)
        got = asked()
    worst = asked.model.worst(REQUEST)
    assert got.text is None
    assert says in got.detail
    assert len(server.received) == 1
    assert (got.usage.tokens, got.usage.usd, got.usage.gpu_s) == (worst.tokens, worst.usd, worst.gpu_s)
    assert got.usage.estimated
    assert got.usage.tokens >= server.billed_in + server.billed_out
    assert asked.limiter.ended[-1] == (asked.limiter.leases[-1],) * 2


def test_a_charged_attempt_after_free_ones_ends_the_request():
    with FakeServer(script(limited(), Reply("lost", drop="before"))) as server:
        got = Asked(server.base_url)()
    assert (got.text, got.usage.attempts, len(server.received)) == (None, 2, 2)
    assert got.usage.tokens > 0


def test_a_prompt_that_is_too_long_is_the_requests_own_failure():
    with FakeServer(script(too_long())) as server:
        got = Asked(server.base_url)()
    assert got.text is None
    assert "maximum context length" in got.detail
    assert (got.usage.tokens, len(server.received)) == (0, 1)


def test_who_is_cancelled_leaves_its_place_to_others():
    async def main(asked: Asked) -> list[Completion]:
        lost = asyncio.create_task(asked.model.complete(REQUEST))
        while not server.in_flight:
            await asyncio.sleep(0.005)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        assert lost.cancelled()
        found = [await asked.model.complete(REQUEST) for _ in range(2)]
        await asked.model.close()
        return found

    with FakeServer(script(Reply("late", latency_s=30.0), "ok")) as server:
        asked = Asked(server.base_url, max_in_flight=1)
        assert [c.text for c in asyncio.run(main(asked))] == ["ok", "ok"]
    assert asked.limiter.ended[0] == (asked.limiter.leases[0],) * 2


# --- what ends a run


def closed_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()[1]


def test_an_address_where_nobody_ever_answered_ends_the_run_in_one_line():
    port = closed_port()
    asked = Asked(f"http://127.0.0.1:{port}/v1", attempts=2)
    with pytest.raises(RunError) as raised:
        asked()
    line = str(raised.value)
    assert line.startswith(f"model 'small' at 127.0.0.1:{port}: cannot connect")
    assert "\n" not in line
    assert len(asked.slept) == 1


def test_a_server_that_went_away_fails_requests_and_not_the_run():
    with FakeServer(script("ok")) as server:
        asked = Asked(server.base_url)
        assert asked().text == "ok"
    got = asked()
    assert (got.text, got.usage.tokens, got.usage.attempts) == (None, 0, 3)
    assert "cannot connect" in got.detail


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (Reply(status=401, error={"message": "bad key"}), "the key in CANARY_KEY is refused, HTTP 401: bad key"),
        (Reply(status=403, error={"message": "not yours"}), "the key in CANARY_KEY is refused, HTTP 403: not yours"),
        (Reply(status=404, error={"message": "unknown"}), "no model 'm-1' there, or base_url is wrong, HTTP 404"),
        (Reply(status=307, headers={"Location": "/v1/other"}), "no model 'm-1' there, or base_url is wrong, HTTP 307"),
        (Reply(status=404, body=b"nothing here"), "no model 'm-1' there, or base_url is wrong, HTTP 404"),
        (Reply(status=429, error={"message": "pay first", "code": "insufficient_quota"}), "HTTP 429: pay first"),
    ],
)
def test_a_server_that_will_never_answer_ends_the_run_in_one_line(reply, says, monkeypatch):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    with FakeServer(script(reply)) as server:
        asked = Asked(server.base_url, api_key_env="CANARY_KEY")
        with pytest.raises(RunError) as raised:
            asked()
    assert f"model 'small' at 127.0.0.1:{server.port}: {says}" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert len(server.received) == 1


@pytest.mark.parametrize("value", [None, "", "  ", "two words", "sch\u00fcssel", "line\nbreak"])
def test_a_key_that_is_missing_or_none_is_one_line_that_names_the_variable(value, monkeypatch):
    monkeypatch.delenv("CANARY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("CANARY_KEY", value)
    with pytest.raises(UsageError) as raised:
        Asked("http://127.0.0.1:1/v1", api_key_env="CANARY_KEY")
    line = str(raised.value)
    assert "models.small" in line
    assert "CANARY_KEY" in line
    assert "\n" not in line
    assert value is None or not value.strip() or value not in line


@pytest.mark.parametrize("field", ["extra_body", "less_reasoning_body"])
@pytest.mark.parametrize(
    ("value", "says"),
    [({"n": 4}, "`n` is set"), ({"max_tokens": 9}, "`max_tokens` is set"), ({"a": datetime(2026, 1, 1)}, "JSON")],
)
def test_bodies_that_would_break_the_accounting_or_the_request_are_refused(field, value, says):
    with pytest.raises(UsageError, match=says):
        Asked("http://127.0.0.1:1/v1", **{field: value})


@pytest.mark.parametrize("url", ["http://h:99999/v1", "http:///v1", "http://h\x01/v1"])
def test_an_impossible_address_is_refused(url):
    with pytest.raises(UsageError, match=r"models\.small\.base_url"):
        Asked(url)


def test_what_is_no_address_is_refused_by_the_config():
    with pytest.raises(ValidationError, match=r"base_url 'http://\[x/v1' is no address"):
        Asked("http://[x/v1")


def test_without_a_variable_no_key_of_the_environment_is_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with FakeServer(script("ok")) as server:
        assert Asked(server.base_url)().text == "ok"
    assert CANARY not in json.dumps([dict(r.headers) for r in server.received])


@pytest.mark.parametrize("right", [True, False])
def test_the_key_is_sent_and_stands_nowhere_else(right, monkeypatch, caplog, capfd):
    monkeypatch.setenv("CANARY_KEY", CANARY)
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    echo = Reply(f"your key is {CANARY}", reasoning=f"{CANARY}?", finish="length")
    refused = Reply(status=400, error={"message": "x " * 138 + CANARY, "code": "invalid"})
    with FakeServer(script(limited(), echo, refused), api_key=CANARY if right else "another") as server:
        asked = Asked(server.base_url, api_key_env="CANARY_KEY")
        told += [repr(asked.model), str(asked.model), repr(asked.config)]
        if right:
            told += [repr(asked()), repr(asked())]
            assert "your key is ***" in told[-2]
        else:
            with pytest.raises(RunError) as raised:
                asked()
            told += ["".join(traceback.format_exception(raised.value))]
            assert "Incorrect API key provided: Bearer ***" in told[-1]
    assert server.received[0].headers["authorization"] == f"Bearer {CANARY}"
    assert caplog.records
    told += [caplog.text, *capfd.readouterr()]
    for text in told:
        assert CANARY not in text
        assert CANARY[:12] not in text


# --- the bound


@given(st.lists(st.text(max_size=200), min_size=1, max_size=4), st.integers(0, 9))
def test_the_worst_case_holds_a_token_for_every_byte_of_the_prompt(texts, less):
    config = ModelConfig(
        base_url="http://127.0.0.1:1/v1",
        model="m",
        max_tokens=50,
        reasoning_tokens=64,
        usd_per_mtok_in=3.0,
        usd_per_mtok_out=5.0,
        gpus=0.5,
        timeout_s=10.0,
    )
    request = replace(REQUEST, messages=tuple(Message("user", t) for t in texts), less_reasoning=less)
    worst = OpenAIModel("small", config, LocalLimiter({"small": config})).worst(request)
    assert worst.tokens_in >= sum(len(t.encode("utf-8", "replace")) for t in texts)
    assert worst.tokens_out == 50 + 64 // 2**less
    assert worst.usd == pytest.approx((worst.tokens_in * 3 + worst.tokens_out * 5) / 1e6)
    assert worst.gpu_s == 5.0


def test_seeds_follow_the_key_and_spread():
    with FakeServer(script("ok")) as server:
        asked = Asked(server.base_url)
        for key in [(1,), (2,), (1,), (2**62, 3)]:
            asked(replace(REQUEST, rng_key=key))
    seeds = [received.body["seed"] for received in server.received]
    assert seeds[0] == seeds[2]
    assert len(set(seeds)) == 3
    assert seeds[0] == int(np.random.default_rng((1,)).integers(2**31))


# --- the fake server's evolving mode, on which other tests rest


def ask_evolver(prompt: str, seed: int = 1) -> str:
    from tests.fake_evolver import evolve

    return evolve({"messages": [{"role": "user", "content": prompt}], "seed": seed})


PROGRAM = "import math\n# EVOLVE-BLOCK-START\ndef f(x):\n    return x * 3 + 0.5\n# EVOLVE-BLOCK-END\nprint(7)"
PROMPT = f"# The parent\n\n```python\n{PROGRAM}\n```\n\n# Other\n\n```python\n{PROGRAM.replace('3', '9')}\n```\n"


@given(st.integers(0, 2**31 - 1))
def test_the_evolving_server_changes_one_number_of_the_parent(seed):
    answer = ask_evolver(PROMPT, seed)
    assert answer == ask_evolver(PROMPT, seed)
    assert answer.startswith("Idea: ")
    program = answer.split("```python\n")[1].split("\n```")[0]
    changed = [(a, b) for a, b in zip(PROGRAM.split("\n"), program.split("\n"), strict=True) if a != b]
    assert [a for a, _ in changed] == ["    return x * 3 + 0.5"]
    diff = ask_evolver(PROMPT + "answer with <<<<<<< SEARCH", seed)
    assert "<<<<<<< SEARCH\n    return x * 3 + 0.5\n=======\n    return x * " in diff
    assert diff.endswith("\n>>>>>>> REPLACE\n")


def test_the_evolving_server_writes_notes_when_asked_and_never_fails():
    assert ask_evolver(PROMPT + "\nUntried: <...>").startswith("Worked: ")
    for prompt in ("", "```", "```python\nx\n```", "``` `` EVOLVE-BLOCK-START"):
        assert ask_evolver(prompt)
