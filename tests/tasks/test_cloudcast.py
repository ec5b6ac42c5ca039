"""The task cloudcast in this process: both scorings, programs in the public style, what the judges refuse, seeds."""

from __future__ import annotations

import random
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adrs_ray.case_checks import make_cases, overlaps
from adrs_ray.private_import import import_private
from adrs_ray.task import (
    Case,
    CaseResult,
    Combined,
    InvalidOutput,
    MalformedOutput,
    Task,
    UsageError,
    load_task,
)

TASK = load_task("cloudcast")
PAPER = load_task("cloudcast", "paper")
ADAPTER = import_private(TASK.folder, "adapter")
SPLITS = import_private(TASK.folder, "splits")
PROGRAMS = {name: path.read_text() for name, path in TASK.programs().items()}

ALTERNATING = """
from broadcast import BroadCastTopology

def search_algorithm(src, dsts, G, num_partitions):
    topology = BroadCastTopology(src, dsts, num_partitions)
    for i, dst in enumerate(dsts):
        for p in range(num_partitions):
            way = [src, dst] if p % 2 == 0 else [src, dsts[(i + 1) % len(dsts)], dst]
            for a, b in zip(way, way[1:]):
                topology.append_dst_partition_path(dst, p, [a, b, G[a][b]])
    return topology
"""

PUBLIC_STYLE = {
    "a class of its own": """
import json
import os
import networkx as nx
import pandas as pd
from typing import Dict, List

# EVOLVE-BLOCK-START
def search_algorithm(src, dsts, G, num_partitions):
    h = G.copy()
    h.remove_edges_from(list(h.in_edges(src)) + list(nx.selfloop_edges(h)))
    bc_topology = BroadCastTopology(src, dsts, num_partitions)
    for dst in dsts:
        path = nx.dijkstra_path(h, src, dst, weight="cost")
        for i in range(0, len(path) - 1):
            s, t = path[i], path[i + 1]
            for j in range(bc_topology.num_partitions):
                bc_topology.append_dst_partition_path(dst, j, [s, t, G[s][t]])
    return bc_topology
# EVOLVE-BLOCK-END

class SingleDstPath(Dict):
    partition: int
    edges: List[List]

class BroadCastTopology:
    def __init__(self, src: str, dsts: List[str], num_partitions: int = 4, paths: Dict[str, "SingleDstPath"] = None):
        self.src = src
        self.dsts = dsts
        self.num_partitions = num_partitions
        self.paths = paths if paths is not None else {d: {str(i): None for i in range(num_partitions)} for d in dsts}

    def append_dst_partition_path(self, dst: str, partition: int, path: List):
        if self.paths[dst][str(partition)] is None:
            self.paths[dst][str(partition)] = []
        self.paths[dst][str(partition)].append(path)
""",
    "the public modules": """
import networkx as nx
from broadcast import *
from utils import *

NETWORK = make_nx_graph(num_vms=2)

def search_algorithm(src, dsts, G, num_partitions):
    h = make_nx_graph(cost_path=None, throughput_path=None, num_vms=2)
    assert dict(h.edges) == dict(G.edges) == dict(NETWORK.edges)
    h.remove_edges_from(list(h.in_edges(src)))
    topology = BroadCastTopology(src, dsts)
    topology.set_num_partitions(num_partitions)
    topology.paths = {dst: {str(i): None for i in range(num_partitions)} for dst in dsts}
    for dst in dsts:
        path = nx.dijkstra_path(h, src, dst, weight="cost")
        for a, b in zip(path, path[1:]):
            for partition in range(topology.num_partitions):
                topology.append_dst_partition_path(dst, str(partition), (a, b, h[a][b]))
    return topology
""",
    "whole paths at once": """
import networkx as nx
from broadcast import BroadCastTopology

def search_algorithm(src, dsts, G, num_partitions):
    paths = {}
    for dst in dsts:
        way = nx.dijkstra_path(nx.restricted_view(G, [], list(G.in_edges(src))), src, dst, weight="cost")
        edges = [[a, b, G[a][b]] for a, b in zip(way, way[1:])]
        paths[dst] = {str(i): edges for i in range(num_partitions)}
    return BroadCastTopology(src, dsts, num_partitions, paths)
""",
}


@pytest.fixture
def without_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ADRS_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def run(source: str, case: Case) -> dict[str, Any]:
    random.seed(case.seed)
    np.random.seed(case.seed)
    return ADAPTER.run(ADAPTER.load(source), case.public)


def judged(task: Task, source: str, split: str) -> Combined:
    results = [CaseResult(c.id, task.judge.score(c, run(source, c)), 0.25, 0.5) for c in task.judge.cases(split)]
    return task.judge.combine(results)


def needs_recorded() -> None:
    if SPLITS.recorded_paths() is None:
        pytest.skip("needs the recorded network: set ADRS_DATA_DIR or run `adrs data pull cloudcast`")


def answering(edges: str, class_body: str = "") -> str:
    """A program that lists `edges`, an expression in src, dst, dsts, G and p, for each destination and partition."""
    return (
        "from broadcast import BroadCastTopology\n"
        "def search_algorithm(src, dsts, G, num_partitions):\n"
        "    t = BroadCastTopology(src, dsts, num_partitions)\n"
        "    other = next(r for r in G if r != src and r not in dsts and G.has_edge(src, r))\n"
        "    for dst in dsts:\n"
        "        for p in range(num_partitions):\n"
        f"            t.paths[dst][str(p)] = {edges}\n"
        f"    {class_body}\n"
        "    return t\n"
    )


DIRECT = answering("[[src, dst, G[src][dst]]]")

GOLDEN = {
    "direct": (
        (165.024, 144.945, 167.159997, 332.159997, 389.88),
        (1440, 450, 1028.5714285714287, 1028.5714285714287, 1200),
    ),
    "chain": (
        (120.10337100000001, 150.331044, 228.360003, 251.493174, 308.635056),
        (263.507541, 157.637027, 171.428571, 472.935969, 472.935969),
    ),
    "alternating": (
        (224.79899999999998, 219.945, 272.159997, 457.409997, 528.63),
        (1440, 450, 1028.5714285714287, 1028.5714285714287, 1200),
    ),
}


@pytest.mark.parametrize("name", list(GOLDEN))
def test_public_figures_to_the_last_digit(name: str) -> None:
    needs_recorded()
    source = ALTERNATING if name == "alternating" else PROGRAMS[name]
    found = [PAPER.judge.score(case, run(source, case)) for case in PAPER.judge.cases("test")]
    costs, times = GOLDEN[name]
    assert [m["total_cost"] for m in found] == pytest.approx(costs, abs=1e-9)
    assert [m["total_time_s"] for m in found] == pytest.approx(times, abs=1e-6)
    assert judged(PAPER, source, "test").score == pytest.approx(1 / (1 + sum(costs)), rel=1e-12)


def test_the_public_initial_program() -> None:
    needs_recorded()
    total = judged(PAPER, PUBLIC_STYLE["a class of its own"], "test")
    assert total.metrics["total_cost"] == pytest.approx(1045.860405, abs=1e-6)
    assert total.score == pytest.approx(0.0009552372, abs=1e-10)
    assert total.metrics["leaderboard_formula"] == pytest.approx(100 * (1199 - 1045.860405) / (1199 - 626.24))
    assert total.metrics["leaderboard_coverage"] == 100


def test_the_arborescence_is_as_good_as_the_reference_one() -> None:
    needs_recorded()  # ties of price: another solver may pick a tree of equal price that takes longer or shorter
    assert judged(PAPER, PROGRAMS["arborescence"], "test").metrics["total_cost"] == pytest.approx(684.355491, rel=2e-3)


def test_sound_and_public_scoring_agree_where_the_public_one_has_no_fault() -> None:
    for name in ("chain", "arborescence"):
        sound = judged(TASK, PROGRAMS[name], "test").metrics["total_cost"]
        assert judged(PAPER, PROGRAMS[name], "test").metrics["total_cost"] == pytest.approx(sound, abs=2e-3)


def test_the_public_scoring_believes_the_answer() -> None:
    forged = DIRECT.replace("G[src][dst]]]", "{'cost': 0.0, 'throughput': 1e9}]]")
    assert judged(PAPER, forged, "test").metrics["total_cost"] == pytest.approx(_machines_only(), rel=1e-3)
    assert judged(TASK, forged, "test").score == judged(TASK, DIRECT, "test").score == 0.0


def _machines_only() -> float:
    """What direct sending pays for machines, by the limits alone: here they are tighter than every throughput."""
    return judged(TASK, DIRECT, "test").metrics["instance_cost"]


def test_the_public_scoring_serves_whom_the_answer_names() -> None:
    first = DIRECT.replace("num_partitions)\n    other", "num_partitions)\n    dsts = dsts[:1]\n    other")
    only = first.replace("    return t", "    t.paths = {dsts[0]: t.paths[dsts[0]]}\n    return t")
    assert judged(PAPER, only, "test").metrics["total_cost"] < judged(PAPER, DIRECT, "test").metrics["total_cost"] / 3
    with pytest.raises(InvalidOutput, match="partition 0 does not arrive at"):
        judged(TASK, only, "train")


@pytest.mark.parametrize(
    ("edges", "error"),
    [
        ("None", "TypeError"),
        ("[[src, other, G[src][other]]]", "KeyError"),  # the public loop looks up the next partition under `other`
        ("[[src, dst, {'cost': 0.1, 'throughput': 0.0}]]", "ZeroDivisionError"),
        ("[]", "ValueError"),
    ],
)
def test_where_the_public_evaluator_stops_the_answer_fails(edges: str, error: str) -> None:
    case = PAPER.judge.cases("test")[0]
    with pytest.raises(InvalidOutput, match=f"the public evaluator stops with {error}"):
        PAPER.judge.score(case, run(answering(edges), case))


def test_the_public_scoring_reads_another_destination_after_a_path_that_ends_there() -> None:
    """A way to the wrong destination for partition 0: the public loop reads the rest of the wrong one twice."""
    stray = answering("[[src, dsts[0], G[src][dsts[0]]]] if p == 0 else [[src, dst, G[src][dst]]]")
    with pytest.raises(InvalidOutput, match="KeyError"):
        judged(PAPER, stray, "test")
    with pytest.raises(InvalidOutput, match="partition 0 does not arrive at"):
        judged(TASK, stray, "test")


def test_the_public_scoring_is_for_the_test_split() -> None:
    with pytest.raises(UsageError, match="on the split test only, not on train"):
        PAPER.judge.cases("train")


def test_public_scoring_takes_time_by_the_size_of_an_answer() -> None:
    """A long list that every destination's partitions are looked up in, and a region for each edge: took hours."""
    case = PAPER.judge.cases("test")[0]
    job = case.hidden[0]
    started = time.process_time()
    names, edges = [f"aws:d{i}" for i in range(400)], np.array([[400, 0]])
    counts = np.ones((400, job.partitions), np.int64)
    counts[0] = 4_900
    again = public_answer([*names, "aws:s"], counts, np.repeat(edges, int(counts.sum()), axis=0))
    assert PAPER.judge.score(case, again)["total_time_s"] == 8 * job.data_vol / 2
    counts = np.ones((1, job.partitions), np.int64)
    counts[0, 0] = 12_000
    star = np.array([[i, 0] for i in range(1, 12_001)] + [[1, 0]] * (job.partitions - 1))
    PAPER.judge.score(case, public_answer([f"aws:d{i}" for i in range(12_001)], counts, star))
    assert time.process_time() - started < 4.0


def public_answer(regions: list[str], counts: np.ndarray, edges: np.ndarray) -> dict[str, Any]:
    """As the adapter would send it: a list of `counts` for each of the first regions, all edges with the same data."""
    data = np.full((len(edges), 2), 2.0)
    return {"regions": regions, "destinations": np.arange(len(counts)), "counts": counts, "edges": edges, "data": data}


def test_public_costs_that_add_up_to_minus_one_are_no_fault_of_the_task() -> None:
    figures = {"total_cost": -1.0, "total_time_s": 1.0, "destinations": 6.0, "recorded": 1.0}
    with pytest.raises(InvalidOutput, match="the public evaluator stops with ZeroDivisionError"):
        PAPER.judge.combine([CaseResult("c", figures, 0.25, 0.5)])


def test_edges_without_figures_fail_the_public_scoring_only() -> None:
    bare = answering("[[src, dst]]")
    assert judged(TASK, bare, "test").score == 0.0
    with pytest.raises(MalformedOutput, match=r"expected \[from, to, data\]"):
        judged(PAPER, bare, "test")
    with pytest.raises(MalformedOutput, match="no number for cost or throughput"):
        judged(PAPER, answering("[[src, dst, {'cost': 1.0}]]"), "test")


@pytest.mark.parametrize("style", list(PUBLIC_STYLE))
def test_programs_in_the_public_style_run_unchanged(style: str) -> None:
    for case in TASK.judge.cases("train")[2:4]:
        native = TASK.judge.score(case, run(PROGRAMS["dijkstra"], case))
        assert TASK.judge.score(case, run(PUBLIC_STYLE[style], case)) == native
    assert not {"broadcast", "utils"} & set(sys.modules)


def test_the_public_network_cannot_be_had_from_files_or_without_a_case() -> None:
    source = "from utils import make_nx_graph\nmake_nx_graph('profiles/cost.csv')\n" + DIRECT
    with pytest.raises(ValueError, match="profile files cannot be named here"):
        run(source, TASK.judge.cases("train")[0])
    with pytest.raises(RuntimeError, match="only while"):
        import_private(TASK.folder, "shims.utils").make_nx_graph()


def test_a_graph_for_one_machine_has_half_the_throughput() -> None:
    public = TASK.judge.cases("train")[0].public
    one, two = ADAPTER.make_graph(public, 1), ADAPTER.make_graph(public)
    assert two.graph["data_vol"] == public["data_vol"]
    for a, b in list(two.edges)[:50]:
        assert one[a][b]["throughput"] == pytest.approx(two[a][b]["throughput"] / 2)
        assert one[a][b]["cost"] == two[a][b]["cost"]


def test_a_program_without_the_entry_says_so() -> None:
    with pytest.raises(ADAPTER.InterfaceError, match=r"search_algorithm\(src, dsts, G, num_partitions\)"):
        run("search_algorithm = 3", TASK.judge.cases("train")[0])
    with pytest.raises(SyntaxError):
        ADAPTER.load("def f(:")


BROKEN = {
    "[]": "partition 0 does not arrive at .*: no edges are listed for it",
    "None": "partition 0 does not arrive at",
    "[[src, dst]] if p else []": "partition 0 does not arrive at",
    "[[src, dst]] if p != 2 else [[src, other]]": "partition 2 does not arrive at .*: its 1 edges lead",
    "[[src, dst]] if dst == dsts[0] else []": "partition 0 does not arrive at",
    "[[src, dsts[0]]]": "does not arrive at",
    "[[other, dst]]": "does not arrive at",
    "[[dst, src]]": "does not arrive at",
    "[[other, dst], [dst, other]]": "does not arrive at",
    "[[src, 'aws:atlantis'], ['aws:atlantis', dst]]": "there is no region 'aws:atlantis' in the network",
    "[[src, src], [src, dst]]": "there is no link from",
    "[[src, dst], [dst, dst]]": "there is no link from",
}


@pytest.mark.parametrize("edges", list(BROKEN))
def test_what_is_no_broadcast_is_invalid(edges: str) -> None:
    case = TASK.judge.cases("train")[0]
    with pytest.raises(InvalidOutput, match=BROKEN[edges]):
        TASK.judge.score(case, run(answering(edges), case))


def test_destinations_that_nobody_asked_for_are_invalid() -> None:
    source = answering("[[src, dst]]", "t.paths[other] = {str(p): [[src, other]] for p in range(num_partitions)}")
    case = TASK.judge.cases("train")[0]
    with pytest.raises(InvalidOutput, match="which is no destination"):
        TASK.judge.score(case, run(source, case))


@pytest.mark.parametrize(
    "edges",
    [
        "[[src, dst, G[src][dst]]] * 3",
        "((src, dst),)",
        "[(src, dst, None)]",
        "[[src, dst, {'cost': float('nan'), 'throughput': 'fast'}]]",
    ],
)
def test_other_ways_to_write_the_same_broadcast(edges: str) -> None:
    assert judged(TASK, answering(edges), "train").score == 0.0


def test_cycles_and_needless_links_are_allowed_and_paid_for() -> None:
    circle = answering("[[src, other], [other, src], [src, dst]]")
    assert judged(TASK, circle, "train").score < 0.0


MALFORMED = {
    "def search_algorithm(*a): return None": "returned NoneType None, expected a BroadCastTopology",
    "def search_algorithm(*a): return {'a': 1}": "returned dict",
    answering("3"): "expected a list of",
    answering("'edges'"): "expected a list of",
    answering("[3]"): "holds int 3, expected",
    answering("['ab']"): "holds str 'ab', expected",
    answering("[[src]]"): "holds list",
    answering("[[src, 7]]"): "names int 7, expected a region's name",
    answering("[[src, None]]"): "names NoneType None",
    answering("[]", "t.paths = {d: [[]] for d in dsts}"): "expected a dict of partitions",
    answering("[]", "t.paths = {1: {}}"): "a key of paths names int 1",
}


@pytest.mark.parametrize("source", list(MALFORMED))
def test_what_is_no_topology_is_malformed(source: str) -> None:
    case = TASK.judge.cases("train")[0]
    with pytest.raises(MalformedOutput, match=MALFORMED[source]):
        TASK.judge.score(case, run(source, case))


def test_raw_outputs_that_no_adapter_makes_are_malformed() -> None:
    case = TASK.judge.cases("train")[0]
    good = run(DIRECT, case)
    bad: list[Any] = [None, [], {}, {"problem": 3}, {**good, "regions": [1]}, {**good, "regions": good["regions"] * 2}]
    bad += [{**good, name: value} for name in ("destinations", "counts", "edges") for value in (None, [], np.zeros(3))]
    bad += [{**good, "edges": good["edges"] + 10**6}, {**good, "edges": good["edges"][1:]}]
    bad += [{**good, "edges": good["edges"] - 100}, {**good, "counts": good["counts"] - 5}]
    bad += [{**good, "counts": good["counts"][:, 1:]}, {**good, "counts": good["counts"] + 2**40}]
    bad += [{**good, "data": np.zeros((1, 2))}, {**good, "data": "0"}]
    for raw in bad:
        with pytest.raises(MalformedOutput):
            TASK.judge.score(case, raw)
    assert TASK.judge.score(case, good)["saving"] == 0.0


def test_a_destination_listed_twice_is_no_answer_of_ours() -> None:
    case = TASK.judge.cases("train")[0]
    good = run(DIRECT, case)
    twice = {**good, "destinations": np.zeros_like(good["destinations"])}
    with pytest.raises(InvalidOutput, match="does not arrive at"):
        TASK.judge.score(case, twice)


def test_direct_sending_scores_nothing_and_the_bound_one() -> None:
    for split in ("train", "validation", "test", "stress"):
        total = judged(TASK, DIRECT, split)
        assert total.score == 0.0
        assert total.metrics["total_cost"] == pytest.approx(total.metrics["direct_cost"])
        assert total.metrics["cost_bound"] < total.metrics["direct_cost"]
        assert total.metrics["score_bound"] == 1.0
        assert total.artifacts["cases"].count("\n") == len(TASK.judge.cases(split))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_seeds_stand_between_the_trivial_and_the_best(split: str) -> None:
    scores = [judged(TASK, PROGRAMS[name], split).score for name in ("direct", "weak", "medium", "strong")]
    best = judged(TASK, PROGRAMS["shortest_path_heuristic"], split).score
    assert scores[0] == 0.0 < scores[1] <= scores[2] <= scores[3]
    assert max(scores[3], best) < 1.0


def test_the_best_baseline_stays_below_the_bound_and_above_the_strong_seed() -> None:
    case = TASK.judge.cases("train")[2]
    strong, best = (
        TASK.judge.score(case, run(PROGRAMS[name], case))["saving"] for name in ("strong", TASK.spec.best_human)
    )
    assert strong + 0.02 < best <= 1.0


def test_the_medium_seed_is_the_seed() -> None:
    assert TASK.seed_source == PROGRAMS["medium"]
    assert (TASK.folder / "seed.py").is_symlink()
    assert list(TASK.hints()) == ["weak", "medium", "strong"]
    for level in ("weak", "medium", "strong"):
        assert PROGRAMS[level].count("EVOLVE-BLOCK") == 2


def test_task_yaml_tells_every_metric() -> None:
    named = set(TASK.spec.metrics)
    metrics = set(judged(TASK, DIRECT, "stress").metrics)
    assert named - {"cpu_growth"} <= metrics <= named
    assert set(judged(PAPER, DIRECT, "test").metrics) <= named
    assert TASK.spec.headline in named
    assert {TASK.spec.trivial, TASK.spec.best_human} <= set(TASK.baselines())


def test_splits_share_no_job_and_no_public_source() -> None:
    cases = make_cases(TASK)
    assert overlaps(cases) == []
    assert {split: len(found) for split, found in cases.items()} == {
        "train": 5,
        "validation": 6,
        "test": 5,
        "stress": 8,
    }
    for split in ("train", "validation"):
        assert not SPLITS.PUBLIC_SOURCES & {case.public["source"] for case in cases[split]}


def test_without_the_recorded_network_one_is_generated(without_data: None) -> None:
    assert "generated network and configurations" in (TASK.split_note("test") or "")
    assert "generated network" in (TASK.split_note("train") or "")
    assert TASK.split_note("stress") is None
    assert [case.id for case in TASK.judge.cases("test")] == [
        "test-aws",
        "test-azure",
        "test-gcp",
        "test-mixed-6",
        "test-mixed-7",
    ]
    assert judged(TASK, DIRECT, "test").metrics["leaderboard_coverage"] == 0.0
    assert judged(PAPER, DIRECT, "test").metrics["leaderboard_coverage"] == 0.0
    scores = [judged(TASK, PROGRAMS[name], "train").score for name in ("direct", "weak", "medium", "strong")]
    assert scores == sorted(scores)
    assert overlaps(make_cases(TASK)) == []


def test_a_plan_over_several_hops_is_priced_by_hand() -> None:
    case = TASK.judge.cases("train")[0]
    job = case.hidden.job
    names = [job.source, *job.destinations]
    cost, throughput = job.matrices
    raw = run(PROGRAMS["chain"], case)
    hops = [(job.index[a], job.index[b]) for a, b in pairwise(names)]
    ingress, egress = job.limits
    flows = [min(throughput[a, b], egress[a], ingress[b]) for a, b in hops]
    seconds = max(job.data_vol * 8 / flow for flow in flows)
    dollars = sum(job.data_vol * cost[a, b] for a, b in hops) + len(names) * 2 * 0.54 / 3600 * seconds
    assert TASK.judge.score(case, raw)["total_cost"] == pytest.approx(dollars)
