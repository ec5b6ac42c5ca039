"""From a run's status to samples: counters that survive resumes, gauges that do not linger."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.candidate import Evaluation, Usage
from adrs_ray.generator.endpoints import EndpointStatus
from adrs_ray.generator.engine_metrics import EngineMetrics, EngineRates
from adrs_ray.ledger import IslandStatus, Leader, ModelStatus, RunStatus
from cluster.gpu_turns import TurnStats
from cluster.metrics import METRICS, Tally, server_load
from cluster.replica_keeper import ReplicaState, ReplicaStatus
from cluster.slot import SlotStatus


def replica(number=0, state=ReplicaState.UP, running=12.0):
    metrics = EngineMetrics(running=running, waiting=3.0, cache_usage=0.5)
    rates = EngineRates(generation_tokens_per_s=900.0, cache_hit_rate=0.75)
    return server_load(ReplicaStatus("small-0@1", "small", number, state, metrics=metrics, rates=rates))


def slot(pid=1, node="n", **other):
    return SlotStatus((), node, pid, **other)


def status(candidates=0, failures=None, resumes=0, models=None, **other):
    return RunStatus(
        candidates=candidates,
        max_candidates=100,
        failures=failures or {},
        islands={-1: IslandStatus(1, 0.2), 0: IslandStatus(3, 0.5), 1: IslandStatus(3, 0.4, paused=True)},
        leaders=(Leader("0-4", 0.5, {}, "ref", 0, "diff"),),
        judged={"0-4": {"validation": Evaluation(score=0.45, metrics={}, cases=(), trust="verified", wall_s=0.1)}},
        since_best=7,
        reexecuted=0,
        resumes=resumes,
        models=models or {},
        **other,
    )


def look(tally, told, servers=(), slots=(), now=0.0, turns=None):
    return tally.look(told, servers, slots, turns, now)


def test_candidates_are_counted_by_how_they_ended():
    samples = look(Tally(48), status(10, {"crash": 2, "timeout": 1}))
    assert samples.increases["adrs_settled", ("admitted", "")] == 7
    assert samples.increases["adrs_settled", ("rejected", "crash")] == 2
    assert samples.values["adrs_candidates", ("rejected", "timeout")] == 1
    assert samples.values["adrs_candidates_limit", ()] == 100


def test_a_resumed_run_counts_from_its_own_start():
    tally = Tally(48)
    assert look(tally, status(500, {"crash": 100}, resumes=1)).increases == {}
    samples = look(tally, status(503, {"crash": 101}, resumes=1), now=1.0)
    assert samples.increases == {("adrs_settled", ("admitted", "")): 2, ("adrs_settled", ("rejected", "crash")): 1}
    assert samples.values["adrs_candidates", ("admitted", "")] == 402


@given(st.lists(st.integers(0, 20), min_size=1, max_size=12), st.integers(0, 11))
def test_the_counters_of_all_starts_add_up_to_what_the_journal_holds_but_for_the_first_look(steps, cut):
    total, counted, unseen, resumes, tally = 0, 0.0, 0, 0, Tally(48)
    for number, step in enumerate(steps):
        if number == cut and number:
            resumes, tally, unseen = resumes + 1, Tally(48), step
        total += step
        counted += sum(look(tally, status(total, resumes=resumes), now=float(number)).increases.values())
    assert counted == total - unseen


def test_a_count_that_falls_is_no_increase():
    tally = Tally(48)
    look(tally, status(10))
    assert look(tally, status(8), now=1.0).increases == {}


def test_the_cost_of_models_is_counted_and_told_over_all_starts():
    spent = Usage(tokens_in=1000, tokens_out=200, tokens_cached=600, usd=0.5, gpu_s=3.0)
    tally = Tally(48)
    look(tally, status(models={"small": ModelStatus(4, spent, lost=1, open=2)}))
    more = replace(spent, tokens_out=500, usd=0.75)
    samples = look(tally, status(models={"small": ModelStatus(6, more, lost=1, open=5)}), now=10.0)
    assert samples.increases == {
        ("adrs_requests", ("small",)): 2,
        ("adrs_tokens", ("small", "out")): 300,
        ("adrs_usd", ("small",)): 0.25,
    }
    assert samples.values["adrs_cost_usd", ("small",)] == 0.75
    assert samples.values["adrs_in_flight", ("generating",)] == 5
    assert samples.values["adrs_tokens_per_second", ("small",)] == 30.0


def test_rates_are_of_the_last_minute():
    tally = Tally(48)
    for second in range(120):
        samples = look(tally, status(2 * second), now=float(second))
    assert samples.values["adrs_candidates_per_second", ()] == 2.0
    for second in range(120, 200):
        samples = look(tally, status(238), now=float(second))
    assert samples.values["adrs_candidates_per_second", ()] == 0.0


def test_slots_are_told_by_kind_and_state():
    slots = [slot(running=True), slot(pid=2, in_line=4), slot(pid=3, devices="0", refuses="too hot")]
    values = look(Tally(48), status(), slots=slots).values
    assert values["adrs_slots", ("cpu", "busy")] == 1
    assert values["adrs_slots", ("cpu", "idle")] == 1
    assert values["adrs_slots", ("gpu", "out")] == 1
    assert values["adrs_in_flight", ("evaluating",)] == 1
    assert values["adrs_in_flight", ("queued",)] == 4


def test_the_utilisation_of_slots_survives_the_restart_of_one():
    tally = Tally(48)
    look(tally, status(), slots=[slot(up_s=100, busy_s=50), slot(pid=2, up_s=100, busy_s=50)])
    look(tally, status(), slots=[slot(up_s=105, busy_s=55), slot(pid=2, up_s=105, busy_s=50)], now=5.0)
    samples = look(tally, status(), slots=[slot(up_s=110, busy_s=60), slot(pid=9, up_s=5, busy_s=0)], now=10.0)
    assert samples.values["adrs_slot_utilisation", ("cpu",)] == 0.5
    assert samples.increases["adrs_slot_busy_seconds", ("cpu",)] == 5


def test_what_a_replica_says_is_told_and_is_nothing_once_it_is_gone():
    tally = Tally(48)
    values = look(tally, status(), [replica()]).values
    assert values["adrs_replica_utilisation", ("small", "0")] == 0.25
    assert values["adrs_replica_requests", ("small", "0", "waiting")] == 3
    assert values["adrs_replica_cache_hit_rate", ("small", "0")] == 0.75
    values = look(tally, status(), [replica(1, ReplicaState.STARTING, running=None)], now=1.0).values
    assert values["adrs_replica_requests", ("small", "0", "running")] == 0
    assert ("adrs_replica_utilisation", ("small", "1")) not in values
    assert values["adrs_replicas", ("small", "up")] == 0
    assert values["adrs_replicas", ("small", "starting")] == 1


def test_an_endpoint_is_told_by_its_place_as_a_replica_of_the_models_it_serves():
    endpoint = EndpointStatus("http://h:8000/v1", True, ("small",), "", EngineMetrics(running=6.0), EngineRates())
    values = look(Tally(24), status(), [server_load(endpoint)]).values
    assert values["adrs_replica_utilisation", ("small", "h:8000")] == 0.25


def test_scores_islands_and_lags_are_told():
    values = look(Tally(48), status(mirror_lag_s=1.5, journal_lag_s=0.004)).values
    assert values["adrs_best_score", ("train",)] == 0.5
    assert values["adrs_best_score", ("validation",)] == 0.45
    assert values["adrs_islands", ("paused",)] == 1
    assert values["adrs_islands", ("active",)] == 1
    assert values["adrs_journal_lag_seconds", ()] == 0.004
    assert values["adrs_mirror_lag_seconds", ()] == 1.5


def test_every_metric_is_told_with_its_tags_and_no_other_is():
    tally = Tally(48)
    model = {"small": ModelStatus(4, Usage(tokens_in=10, tokens_out=20, tokens_cached=3, usd=0.5, gpu_s=3.0), lost=1)}
    told = replace(status(10, {"crash": 2}, models=model, mirror_lag_s=0.0, journal_lag_s=0.0), reexecuted=1)
    turns = TurnStats(turns=2, candidates=7, to_sleep_s=3.0, to_wake_s=5.0)
    samples = look(tally, told, [replica()], [slot(up_s=2, busy_s=1)], 0.0, turns)
    arity = {metric.name: len(metric.tags) for metric in METRICS}
    kinds = {metric.name: metric.kind for metric in METRICS}
    assert {name for name, _ in samples.increases} == {name for name, kind in kinds.items() if kind == "counter"}
    assert {name for name, _ in samples.values} == {name for name, kind in kinds.items() if kind == "gauge"}
    assert samples.values["adrs_gpu_swap_seconds", ()] == 4.0
    assert samples.values["adrs_gpu_turn_candidates", ()] == 3.5
    assert all(len(tags) == arity[name] for name, tags in (*samples.increases, *samples.values))
