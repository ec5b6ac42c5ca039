"""A run against a server that does everything a real one has been seen to do wrong."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from typing import Any

from adrs_ray.storage.journal import EventKind
from tests.cli.command import adrs
from tests.cli.test_models_killed import KEY, answered, write_config
from tests.fake_evolver import evolve
from tests.fake_openai import FakeServer, Reply, endless_thinking, limited, too_long
from tests.runs import check_exact
from tests.tiny import write_tiny_task

BUDGET_USD = 1.0


class Moody:
    """Of every two requests one is answered well; the other meets the next of the mishaps."""

    def __init__(self) -> None:
        self.met: Counter[str] = Counter()
        self._mishaps = itertools.cycle(
            [
                ("429, seconds", lambda body: limited("0.1")),
                ("429, date", lambda body: limited("Thu, 01 Jan 2026 00:00:00 GMT")),
                ("500", lambda body: Reply(status=500, error={"message": "oops"})),
                ("503", lambda body: Reply(status=503, error={"message": "overloaded"})),
                ("thinking", lambda body: endless_thinking(50)),
                ("no choices", lambda body: Reply(body=b'{"choices": []}')),
                ("no JSON", lambda body: Reply(body=b"<html>proxy error</html>")),
                ("truncated JSON", lambda body: Reply(body=b'{"choices": [{"message": {"cont')),
                ("dropped", lambda body: Reply(evolve(body), drop="middle")),
                ("refused", lambda body: Reply(None)),
                ("cut off", lambda body: Reply(evolve(body)[:40], finish="length")),
                ("too long", lambda body: too_long()),
                ("slow stream", lambda body: Reply(evolve(body), drip_s=0.05)),
                ("no usage", lambda body: Reply(evolve(body), usage="missing")),
                ("prose", lambda body: Reply("I would rather not change this program.")),
            ]
        )
        self._asked = 0

    def __call__(self, body: dict[str, Any]) -> Reply:
        self._asked += 1
        if self._asked % 2:
            return Reply(evolve(body))
        name, reply = next(self._mishaps)
        self.met[name] += 1
        return reply(body)


def test_it_completes_counts_every_token_once_and_never_exceeds_its_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("ADRS_TEST_KEY", KEY)
    task, run, mood = write_tiny_task(tmp_path), tmp_path / "run", Moody()
    with FakeServer(mood, api_key=KEY) as server:
        limits = {"max_candidates": 60, "max_usd": BUDGET_USD}
        config = write_config(tmp_path / "config.yaml", server, budget=limits)
        done = adrs("run", task, "--local", "--config", config, "--out", run, "--json")
    assert done.returncode == 0, done.stderr
    assert min(mood.met.values()) >= 1
    assert len(mood.met) == 15
    events = check_exact(run, 60)
    ends = answered(events)
    assert all(event.kind is EventKind.COMPLETED for event in ends.values())
    usages = [event.body["usage"] for event in ends.values()]
    exact = [usage for usage in usages if not usage["estimated"]]
    # What the server counted in answers that arrived whole is counted, and once.
    told = sum(usage["tokens_in"] + usage["tokens_out"] for usage in exact)
    whole = [tokens for r, tokens in server.bills if r.body is None and r.usage == "sent" and r.drop == "never"]
    assert told == sum(whole)
    assert sum(usage["tokens_in"] > 0 for usage in exact) == len(whole)
    assert sum(usage["usd"] for usage in usages) <= BUDGET_USD
    report = json.loads(done.stdout)
    assert sum(m["requests"] for m in report["models"].values()) == len(ends)
    assert sum(m["tokens_in"] + m["tokens_out"] for m in report["models"].values()) == sum(
        usage["tokens_in"] + usage["tokens_out"] for usage in usages
    )
    assert report["best"]["score"] > 0
    kinds = {event.body["failure"] for event in events if event.kind is EventKind.REJECTED}
    assert "generation" in kinds
    assert KEY not in done.stdout + done.stderr
