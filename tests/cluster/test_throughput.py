"""`adrs bench throughput`: what is made of a journal and of /proc; and one short row."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from adrs_ray.cli.bench import throughput
from adrs_ray.errors import RunError, UsageError
from adrs_ray.storage.journal import Event, EventKind
from cluster.process_cost import DRIVER, REST, Process, by_kind, pss_mb, tree
from cluster.throughput import HEADER, Row, Watched, all_rows, chosen_rows, measure, summary, table
from cluster.throughput_run import KINDS, Latency, Load, config_of

IN_FLIGHT = 8
LATENCY_S = 0.5
LOAD = Load(Latency(LATENCY_S), IN_FLIGHT, 400, jailed=False)
ROW = Row("0.5/8/off", LOAD)


def steady(share: float, candidates: int = 400) -> list[Event]:
    """Two islands whose requests are at the model for `share` of the time, with as many answers as that gives."""
    every = LATENCY_S / (share * IN_FLIGHT)
    events = []
    for number in range(candidates):
        island, at = number % 2, 1000 + every * number
        waited = share * IN_FLIGHT / 2 * (at - 1000)
        detail = f"{LATENCY_S} {waited} {at}"
        name = f"{island}-{number}"
        body = {"detail": detail}
        events.append(Event(f"{name}:generated", EventKind.GENERATED, name, island, body, (), 2 * number + 1, 1, at))
        kind = EventKind.REJECTED if number % 5 == 0 else EventKind.ADMITTED
        events.append(Event(f"{name}:settled", kind, name, island, {}, (), 2 * number + 2, 1, at))
    return events


def watched(per_s: dict[str, float], until: float) -> Watched:
    """Processes of so many CPU seconds per second, one a kind."""
    seen = Watched(begun=990.0)
    seen.kinds = dict(enumerate(per_s))
    seen.samples = []
    times = np.arange(990.0, until + 1, 0.5)
    for at in times:
        found = {kind: [Process(pid, 0, "", rate * (at - 990))] for pid, (kind, rate) in enumerate(per_s.items())}
        seen.look(found)
        seen.samples[-1] = replace(seen.samples[-1], at=float(at))
    return seen


@pytest.mark.parametrize("share", [1.0, 0.8, 0.25])
def test_a_rows_figures_are_those_of_the_run(share: float) -> None:
    events = steady(share)
    per_s = {"islands": 0.3, "journal": 0.2, DRIVER: 0.1, "evaluator": 0.5, REST: 0.05}
    measured = summary(ROW, events, watched(per_s, events[-1].at))
    rate = share * IN_FLIGHT / LATENCY_S
    assert measured.rate == pytest.approx(rate)
    assert measured.latency_s == pytest.approx(LATENCY_S)
    assert measured.share == pytest.approx(share)
    assert measured.cpu_ms == pytest.approx({kind: 1000 * seconds / rate for kind, seconds in per_s.items()})
    assert measured.orchestration_ms == pytest.approx(600 / rate)
    assert measured.first_s == pytest.approx(10.0)
    assert measured.flat == pytest.approx(1.0)


def test_programs_the_run_started_from_are_not_counted() -> None:
    events = steady(1.0)
    seeds = [
        Event("seed:generated", EventKind.GENERATED, "seed", -1, {"detail": ""}, (), 1, 1, 1050.0),
        Event("seed:settled", EventKind.ADMITTED, "seed", -1, {}, (), 2, 1, 1050.0),
    ]
    seen = watched(dict.fromkeys(("islands", "journal", DRIVER, "evaluator", REST), 0.1), events[-1].at)
    assert summary(ROW, seeds + events, seen) == summary(ROW, events, seen)


def test_a_model_that_answers_at_once_has_no_ideal() -> None:
    events = steady(1.0)
    row = replace(ROW, load=replace(LOAD, latency=Latency(0.0)))
    seen = watched(dict.fromkeys(("islands", "journal", DRIVER, "evaluator", REST), 0.1), events[-1].at)
    assert summary(row, events, seen).share is None


def test_a_run_of_hardly_any_candidates_says_nothing() -> None:
    with pytest.raises(RunError, match=r"0.5/8/off: only 7 candidates were seen to end"):
        summary(ROW, steady(1.0, 7), watched({"islands": 1.0}, 1100.0))


def test_what_ended_after_all_islands_were_last_seen_is_left_out() -> None:
    """Their CPU time went with them: sums would fall."""
    events = steady(1.0)
    per_s = dict.fromkeys(("islands", "journal", DRIVER, "evaluator", REST), 0.1)
    whole, cut = watched(per_s, events[-1].at), watched(per_s, events[-1].at)
    island = next(pid for pid, kind in cut.kinds.items() if kind == "islands")
    for seen in (whole, cut):
        seen.kinds[99] = "islands"
        for sample in seen.samples:
            sample.cpu_s[99] = 0.0
    for sample in cut.samples:
        if sample.at > events[600].at:
            del sample.cpu_s[island]
    assert summary(ROW, events, cut).cpu_ms == pytest.approx(summary(ROW, events, whole).cpu_ms)


def test_every_line_of_the_table_has_every_column() -> None:
    events = steady(0.8)
    seen = watched(dict.fromkeys(("islands", "journal", DRIVER, "evaluator", REST), 0.1), events[-1].at)
    lines: list[str] = []
    table([summary(ROW, events, seen)], lines.append)
    assert len(lines) == 3
    assert lines[0] == HEADER
    assert {line.count("|") for line in lines} == {HEADER.count("|")}
    assert "| 80.0% |" in lines[2]


def test_rows_are_chosen_by_how_their_names_begin() -> None:
    assert [row.name for row in chosen_rows(["0.2/64"])] == ["0.2/64/off", "0.2/64/on"]
    assert chosen_rows([""]) == all_rows()
    with pytest.raises(UsageError, match=r"--rows 3/: no row begins so; there are 0/16/off"):
        chosen_rows(["0/", "3/"])


def test_the_quick_rows_are_not_chosen_from() -> None:
    with pytest.raises(UsageError, match="--quick has rows of its own"):
        throughput(rows=["0/"], candidates=None, quick=True)


def test_every_row_has_a_name_of_its_own_and_a_config() -> None:
    rows = all_rows()
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        config = config_of(row.load)
        assert config.islands.count * config.islands.in_flight == row.load.in_flight
        assert config.budget.max_candidates > row.load.candidates + row.load.in_flight


def test_latencies_have_the_median_and_the_percentile_they_are_given() -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([Latency(12.0, 120.0).draw(rng) for _ in range(20_000)])
    assert np.median(drawn) == pytest.approx(12.0, rel=0.05)
    assert np.mean(drawn < 120.0) == pytest.approx(0.99, abs=0.003)
    assert Latency(0.2).draw(rng) == 0.2


def test_processes_count_to_the_worker_that_started_them() -> None:
    lines = {
        1: (0, "python adrs"),
        2: (1, "raylet --node"),
        3: (2, "ray::IslandActor.run"),
        4: (2, "ray::LedgerActor"),
        5: (2, "ray::EvaluatorActor"),
        6: (5, "python -m adrs_ray.evaluator.bootstrap"),
        7: (6, "candidate IslandActor"),
        8: (2, "ray::IDLE"),
    }
    processes = {pid: Process(pid, parent, command, 0.0) for pid, (parent, command) in lines.items()}
    pids = {kind: sorted(p.pid for p in members) for kind, members in by_kind(processes, 1, KINDS).items()}
    assert pids == {DRIVER: [1], "islands": [3], "journal": [4], "evaluator": [5, 6, 7], REST: [2, 8]}


def test_a_worker_counts_as_what_it_was_called_even_before_and_after() -> None:
    seen = Watched(0.0)
    for kind in (REST, "islands", REST):
        seen.look({kind: [Process(7, 1, "", 1.0)]})
    assert seen.kinds == {7: "islands"}


def test_the_tree_holds_children_and_what_they_used() -> None:
    busy = "import time\nwhile time.process_time() < 0.3: pass\nprint('done', flush=True)\ninput()"
    with subprocess.Popen(
        [sys.executable, "-c", busy], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "done\n"
        found = tree(child.pid)
        assert found.keys() == {child.pid}
        assert found[child.pid].cpu_s >= 0.25
        assert busy.splitlines()[0] in found[child.pid].command
        assert 1 < pss_mb(child.pid) < 200
        child.communicate("")
    assert tree(child.pid) == {}
    assert pss_mb(child.pid) == 0.0


@pytest.mark.ray
@pytest.mark.slow
def test_a_short_row_is_measured() -> None:
    begun = time.time()
    measured = measure(Row("0.05/8/off", Load(Latency(0.05), 8, 600, jailed=False)))
    assert 0 < measured.first_s < time.time() - begun
    assert 0 < measured.rate <= 8 / 0.05
    assert measured.latency_s >= 0.05
    assert measured.share is not None
    assert 0 < measured.share <= 1.01
    assert measured.cpu_ms["islands"] > 0
    assert measured.peak_mb[DRIVER] > 10
    assert all(math.isfinite(ms) for ms in measured.cpu_ms.values())
