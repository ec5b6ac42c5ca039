"""What a run exports as metrics: from its status, its replicas and its slots to samples of `adrs_*`.

Counters hold what happened since this start of the run, so that `rate` and `increase` are right across resumes: what
an earlier start did is its own counters' affair. Totals over all starts are gauges. Ray exports the names with `ray_`
in front, counters with `_total` behind.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from adrs_ray.candidate import Evaluation
from adrs_ray.generator.connection import place_of
from adrs_ray.generator.endpoints import EndpointStatus
from adrs_ray.generator.engine_metrics import EngineMetrics, EngineRates
from adrs_ray.ledger import RunStatus
from cluster.gpu_turns import TurnStats
from cluster.replica_keeper import ReplicaStatus
from cluster.slot import SlotStatus

WINDOW_S = 60.0
"""Rates and shares are means over so long."""
KEPT_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class Metric:
    """One name. Every metric has the tag `run`, too."""

    name: str
    kind: Literal["counter", "gauge"]
    what: str
    tags: tuple[str, ...] = ()


METRICS = (
    Metric("adrs_settled", "counter", "candidates that ended in this start", ("state", "failure")),
    Metric("adrs_requests", "counter", "requests to models that were answered or lost in this start", ("model",)),
    Metric("adrs_requests_lost", "counter", "requests whose process died, in this start", ("model",)),
    Metric("adrs_tokens", "counter", "tokens of models in this start", ("model", "kind")),
    Metric("adrs_usd", "counter", "dollars for models in this start", ("model",)),
    Metric("adrs_gpu_seconds", "counter", "GPU-seconds of models in this start", ("model",)),
    Metric("adrs_reexecuted", "counter", "evaluations started once more in this start"),
    Metric("adrs_slot_busy_seconds", "counter", "seconds in which slots evaluated", ("devices",)),
    Metric("adrs_candidates", "gauge", "candidates over all starts, by how they ended", ("state", "failure")),
    Metric("adrs_candidates_limit", "gauge", "budget.max_candidates"),
    Metric("adrs_candidates_per_second", "gauge", "candidates that end in a second"),
    Metric(
        "adrs_best_score", "gauge", "score of the best candidate on train, and its score on held-out splits", ("split",)
    ),
    Metric("adrs_since_best", "gauge", "candidates since the last new best"),
    Metric("adrs_islands", "gauge", "islands", ("state",)),
    Metric("adrs_starts", "gauge", "starts of the run"),
    Metric("adrs_in_flight", "gauge", "candidates under way", ("stage",)),
    Metric("adrs_tokens_per_second", "gauge", "tokens of answers in a second", ("model",)),
    Metric("adrs_cost_usd", "gauge", "dollars over all starts", ("model",)),
    Metric("adrs_replicas", "gauge", "replicas of a model", ("model", "state")),
    Metric("adrs_replica_requests", "gauge", "requests at a replica", ("model", "replica", "state")),
    Metric("adrs_replica_utilisation", "gauge", "requests that a replica runs, of those it may", ("model", "replica")),
    Metric("adrs_replica_cache_usage", "gauge", "share of a replica's KV cache in use", ("model", "replica")),
    Metric("adrs_replica_tokens_per_second", "gauge", "tokens that a replica writes in a second", ("model", "replica")),
    Metric("adrs_replica_cache_hit_rate", "gauge", "prompt tokens found in the prefix cache", ("model", "replica")),
    Metric("adrs_slots", "gauge", "evaluation slots", ("devices", "state")),
    Metric("adrs_slot_utilisation", "gauge", "share of the time that slots evaluate", ("devices",)),
    Metric("adrs_gpu_turns", "gauge", "times that engines slept for candidates in this start"),
    Metric("adrs_gpu_turn_candidates", "gauge", "candidates measured in one such turn, mean"),
    Metric("adrs_gpu_swap_seconds", "gauge", "seconds to sleep and to wake in one such turn, mean"),
    Metric("adrs_journal_lag_seconds", "gauge", "from an append to its acknowledgement"),
    Metric("adrs_mirror_lag_seconds", "gauge", "age of the oldest event that the mirror does not have"),
)
"""All there are; `deploy/grafana/adrs.json` shows each."""

_BY_NAME = {metric.name: metric for metric in METRICS}
Key: TypeAlias = tuple[str, tuple[str, ...]]
"""Name and the values of its tags, in the order of the metric's `tags`."""


@dataclass(frozen=True, slots=True)
class ServerLoad:
    """What is told of one server of models: a replica of the pool, or an endpoint."""

    model: str
    replica: str
    state: str
    metrics: EngineMetrics
    rates: EngineRates


def server_load(status: ReplicaStatus | EndpointStatus) -> ServerLoad:
    """A replica keeps its number when it is started again, so that its series goes on; an endpoint is its host and
    port."""
    if isinstance(status, EndpointStatus):
        state = "up" if status.up else "lost"
        return ServerLoad("+".join(status.models), place_of(status.url) or "", state, status.metrics, status.rates)
    return ServerLoad(status.model, str(status.number), status.state.name.lower(), status.metrics, status.rates)


def totals(status: RunStatus) -> dict[Key, float]:
    """Counters as the journal has them, over all starts."""
    found: dict[Key, float] = {("adrs_reexecuted", ()): status.reexecuted}
    admitted = status.candidates - sum(status.failures.values())
    found["adrs_settled", ("admitted", "")] = admitted
    for failure, count in status.failures.items():
        found["adrs_settled", ("rejected", failure)] = count
    for name, model in status.models.items():
        usage = model.usage
        found["adrs_requests", (name,)] = model.requests
        found["adrs_requests_lost", (name,)] = model.lost
        found["adrs_tokens", (name, "in")] = usage.tokens_in
        found["adrs_tokens", (name, "cached")] = usage.tokens_cached
        found["adrs_tokens", (name, "out")] = usage.tokens_out
        found["adrs_usd", (name,)] = usage.usd
        found["adrs_gpu_seconds", (name,)] = usage.gpu_s
    return found


def levels(
    status: RunStatus,
    servers: Sequence[ServerLoad],
    slots: Sequence[SlotStatus],
    turns: TurnStats | None,
    capacity: float,
) -> dict[Key, float]:
    """Gauges that need no past."""
    found: dict[Key, float] = {
        ("adrs_candidates_limit", ()): status.max_candidates,
        ("adrs_since_best", ()): status.since_best,
        ("adrs_starts", ()): status.resumes + 1,
    }
    for (name, tags), count in totals(status).items():
        if name == "adrs_settled":
            found["adrs_candidates", tags] = count
    if status.leaders:
        best = status.leaders[0]
        found["adrs_best_score", ("train",)] = best.score
        for split, verdict in status.judged.get(best.candidate, {}).items():
            if isinstance(verdict, Evaluation):
                found["adrs_best_score", (split,)] = verdict.score
    islands = Counter("paused" if each.paused else "active" for number, each in status.islands.items() if number >= 0)
    found |= {("adrs_islands", (state,)): islands[state] for state in ("active", "paused")}
    found["adrs_in_flight", ("generating",)] = sum(model.open for model in status.models.values())
    found["adrs_in_flight", ("evaluating",)] = sum(slot.running for slot in slots)
    found["adrs_in_flight", ("queued",)] = sum(slot.in_line for slot in slots)
    found |= {("adrs_cost_usd", (name,)): model.usage.usd for name, model in status.models.items()}
    found["adrs_in_flight", ("without_verdict",)] = status.evaluating
    if status.journal_lag_s is not None:
        found["adrs_journal_lag_seconds", ()] = status.journal_lag_s
    if turns is not None:
        found["adrs_gpu_turns", ()] = turns.turns
        found["adrs_gpu_turn_candidates", ()] = turns.candidates_per_turn
        found["adrs_gpu_swap_seconds", ()] = turns.swap_s
    if status.mirror_lag_s is not None:
        found["adrs_mirror_lag_seconds", ()] = status.mirror_lag_s
    return found | _of_servers(servers, capacity) | _of_slots(slots)


def _of_servers(servers: Sequence[ServerLoad], capacity: float) -> dict[Key, float]:
    found: dict[Key, float] = {}
    for (model, state), count in Counter((each.model, each.state) for each in servers).items():
        found["adrs_replicas", (model, state)] = count
    for each in servers:
        own, metrics = (each.model, each.replica), each.metrics
        told = {
            ("adrs_replica_requests", (*own, "running")): metrics.running,
            ("adrs_replica_requests", (*own, "waiting")): metrics.waiting,
            ("adrs_replica_utilisation", own): None
            if metrics.running is None
            else min(1.0, metrics.running / capacity),
            ("adrs_replica_cache_usage", own): metrics.cache_usage,
            ("adrs_replica_tokens_per_second", own): each.rates.generation_tokens_per_s,
            ("adrs_replica_cache_hit_rate", own): each.rates.cache_hit_rate,
        }
        found |= {key: value for key, value in told.items() if value is not None}
    return found


def _of_slots(slots: Sequence[SlotStatus]) -> dict[Key, float]:
    states = Counter((_kind(slot), _state(slot)) for slot in slots)
    kinds = sorted({_kind(slot) for slot in slots})
    return {("adrs_slots", (kind, state)): states[kind, state] for kind in kinds for state in ("busy", "idle", "out")}


def _kind(slot: SlotStatus) -> str:
    return "gpu" if slot.devices else "cpu"


def _state(slot: SlotStatus) -> str:
    return "out" if slot.refuses is not None else "busy" if slot.running else "idle"


@dataclass(frozen=True, slots=True)
class Samples:
    """What is told at one time."""

    increases: Mapping[Key, float]
    """By how much counters grow, above 0."""
    values: Mapping[Key, float]
    """Of gauges."""


@dataclass(slots=True)
class Tally:
    """Successive statuses folded into samples."""

    capacity: float
    """Requests that one server of models takes at once."""
    _seen: dict[Key, float] | None = None
    """Totals at the last look; None before the first."""
    _clocks: dict[tuple[str, int, str], tuple[float, float]] = field(default_factory=dict)
    """By start of a slot: seconds up and busy at the last look."""
    _sums: defaultdict[Key, float] = field(default_factory=lambda: defaultdict(float))
    """Of this start."""
    _kept: deque[tuple[float, dict[Key, float]]] = field(default_factory=deque)
    _gauges: set[Key] = field(default_factory=set)
    """Ever told: one that is gone is told as 0, or the last value would stay."""

    def look(
        self,
        status: RunStatus,
        servers: Sequence[ServerLoad],
        slots: Sequence[SlotStatus],
        turns: TurnStats | None,
        now: float,
    ) -> Samples:
        """Samples at `now`, in seconds of a clock that never goes back."""
        seen = totals(status)
        if self._seen is None:
            # Whatever the journal held before a first start is of this start.
            self._seen = {} if status.resumes == 0 else seen
        grown = {key: value - self._seen.get(key, 0.0) for key, value in seen.items()}
        self._seen = seen
        grown |= self._worked(slots)
        increases = {key: value for key, value in grown.items() if value > 0}
        for key, value in increases.items():
            self._sums[key] += value
        values = levels(status, servers, slots, turns, self.capacity) | self._rates(now)
        self._gauges |= values.keys()
        gone = dict.fromkeys(self._gauges - values.keys(), 0.0)
        exported = {key: value for key, value in increases.items() if key[0] in _BY_NAME}
        return Samples(exported, gone | values)

    def _worked(self, slots: Sequence[SlotStatus]) -> dict[Key, float]:
        """Seconds that slots were up and busy since the last look, by kind; a slot that was restarted begins anew."""
        found: defaultdict[Key, float] = defaultdict(float)
        clocks = {}
        for slot in slots:
            if not slot.node:
                continue
            start = (slot.node, slot.pid, slot.devices)
            clocks[start] = (slot.up_s, slot.busy_s)
            up, busy = self._clocks.get(start, (0.0, 0.0))
            found["up", (_kind(slot),)] += max(0.0, slot.up_s - up)
            found["adrs_slot_busy_seconds", (_kind(slot),)] += max(0.0, slot.busy_s - busy)
        self._clocks = clocks
        return dict(found)

    def _rates(self, now: float) -> dict[Key, float]:
        """Means over the window."""
        if not self._kept or now - self._kept[-1][0] >= KEPT_EVERY_S:
            self._kept.append((now, dict(self._sums)))
        while len(self._kept) > 1 and now - self._kept[1][0] >= WINDOW_S:
            self._kept.popleft()
        then, before = self._kept[0]
        grown = {key: value - before.get(key, 0.0) for key, value in self._sums.items()}
        elapsed = now - then
        settled = sum(value for (name, _), value in grown.items() if name == "adrs_settled")
        found: dict[Key, float] = {("adrs_candidates_per_second", ()): settled / elapsed if elapsed > 0 else 0.0}
        for (name, tags), value in grown.items():
            if name == "adrs_tokens" and tags[1] == "out":
                found["adrs_tokens_per_second", tags[:1]] = value / elapsed if elapsed > 0 else 0.0
            elif name == "up":
                busy = grown.get(("adrs_slot_busy_seconds", tags), 0.0)
                found["adrs_slot_utilisation", tags] = min(1.0, busy / value) if value > 0 else 0.0
        return found


class Meters:
    """Hands samples to Ray. One per start of a run, in a process that has joined Ray.

    `capacity`: requests at one replica, `pool.max_in_flight`.
    """

    def __init__(self, run: str, capacity: int) -> None:
        from ray.util import metrics

        self._run = run
        self._tally = Tally(capacity)
        kinds: dict[str, Any] = {"counter": metrics.Counter, "gauge": metrics.Gauge}
        self._meters = {each.name: kinds[each.kind](each.name, each.what, ("run", *each.tags)) for each in METRICS}

    def update(
        self,
        status: RunStatus,
        pool_stats: Iterable[ReplicaStatus | EndpointStatus] = (),
        slot_stats: Iterable[SlotStatus] = (),
        turns: TurnStats | None = None,
    ) -> None:
        """Tell what is new; cheap, for every second. `turns`: of a run whose engines share their GPUs."""
        servers = [server_load(each) for each in pool_stats]
        samples = self._tally.look(status, servers, list(slot_stats), turns, time.monotonic())
        for (name, tags), value in samples.increases.items():
            self._meters[name].inc(value, self._tags(name, tags))
        for (name, tags), value in samples.values.items():
            self._meters[name].set(value, self._tags(name, tags))

    def _tags(self, name: str, values: tuple[str, ...]) -> dict[str, str]:
        return {"run": self._run, **dict(zip(_BY_NAME[name].tags, values, strict=True))}
