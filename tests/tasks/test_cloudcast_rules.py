"""The rules of cloudcast: public figures, the literal version, trees and lower bounds against enumeration."""

from __future__ import annotations

import itertools
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adrs_ray.private_import import import_private
from adrs_ray.task import builtin_tasks

from . import literal_cloudcast as literal

FOLDER = builtin_tasks()["cloudcast"]
bounds = import_private(FOLDER, "bounds")
convert = import_private(FOLDER, "convert").convert
network = import_private(FOLDER, "network")
splits = import_private(FOLDER, "splits")
steiner = import_private(FOLDER, "steiner")
transfer = import_private(FOLDER, "transfer")
answer = import_private(FOLDER, "answer")
paper = import_private(FOLDER, "paper")

PROVIDERS = ("aws", "azure", "gcp")


def small_job(seed: int, regions: int = 7, ends: int = 3, partitions: int = 3) -> Any:
    """A job over a complete network with few prices, so that there are ties."""
    rng = np.random.default_rng(seed)
    names = tuple(f"{PROVIDERS[i % 3]}:r{i}" for i in range(regions))
    links = np.array([(a, b) for a in range(regions) for b in range(regions) if a != b], dtype=np.int64)
    net = network.Network(
        names,
        links,
        rng.choice([0.01, 0.02, 0.05, 0.09, 0.12], size=len(links)),
        np.round(rng.uniform(0.5, 20.0, size=len(links)), 3),
    )
    order = rng.permutation(regions)
    limits = {p: float(rng.choice([2.0, 5.0, 10.0, 16.0])) for p in PROVIDERS}
    return transfer.Job(
        network=net,
        source=names[order[0]],
        destinations=tuple(names[i] for i in order[1 : ends + 1]),
        data_vol=float(rng.choice([30.0, 300.0, 1000.0])),
        partitions=partitions,
        ingress_limit=limits,
        egress_limit={p: float(rng.choice([1.0, 5.0, 7.0, 16.0])) for p in PROVIDERS},
    )


def random_plan(job: Any, seed: int, strays: bool = True) -> np.ndarray:
    """Random ways; with `strays` also links that lead nowhere, and rows in any order."""
    rng = random.Random(seed)
    count = len(job.network.regions)
    rows = []
    for j, end in enumerate(job.ends.tolist()):
        for p in range(job.partitions):
            others = [r for r in range(count) if r not in (job.index[job.source], end)]
            way = [job.index[job.source], *rng.sample(others, rng.randint(0, min(3, len(others)))), end]
            rows += [(j, p, a, b) for a, b in itertools.pairwise(way)]
            if strays and rng.random() < 0.2:
                a, b = rng.sample(range(count), 2)
                rows.append((j, p, a, b))
    if strays:
        rng.shuffle(rows)
    return np.array(rows, dtype=np.int64)


def in_words(job: Any, plan: np.ndarray) -> dict[str, list[list[literal.Link]]]:
    names = job.network.regions
    paths: dict[str, list[list[literal.Link]]] = {d: [[] for _ in range(job.partitions)] for d in job.destinations}
    for j, p, a, b in plan.tolist():
        paths[job.destinations[j]][p].append((names[a], names[b]))
    return paths


def tables(job: Any) -> dict[str, Any]:
    names = job.network.regions
    pairs = [(names[a], names[b]) for a, b in job.network.links.tolist()]
    ingress, egress = job.limits
    return {
        "cost": dict(zip(pairs, job.network.cost.tolist(), strict=True)),
        "throughput": dict(zip(pairs, job.network.throughput.tolist(), strict=True)),
        "gb_per_partition": job.data_vol / job.partitions,
        "ingress": dict(zip(names, ingress.tolist(), strict=True)),
        "egress": dict(zip(names, egress.tolist(), strict=True)),
    }


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 8), st.integers(1, 5))
def test_costs_are_those_of_the_literal_rules(seed: int, regions: int, partitions: int) -> None:
    job = small_job(seed, regions, min(3, regions - 1), partitions)
    plan = random_plan(job, seed)
    done = transfer.transfer(job, plan)
    cost, seconds = literal.cost_and_time(in_words(job, plan), **tables(job))
    assert done.cost == pytest.approx(cost, rel=1e-12)
    assert done.time_s == pytest.approx(seconds, rel=1e-12)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6))
def test_a_plan_is_refused_exactly_when_something_does_not_arrive(seed: int) -> None:
    job = small_job(seed)
    plan = random_plan(job, seed)
    plan = plan[np.random.default_rng(seed).random(len(plan)) < 0.9]
    arrived = all(
        literal.arrives(links, job.source, destination)
        for destination, partitions in in_words(job, plan).items()
        for links in partitions
    )
    if arrived:
        assert transfer.transfer(job, plan).cost > 0
    else:
        with pytest.raises(transfer.BrokenPlanError, match="does not arrive at"):
            transfer.transfer(job, plan)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_order_and_repetition_of_rows_do_not_matter(seed: int) -> None:
    job = small_job(seed)
    plan = random_plan(job, seed)
    again = np.random.default_rng(seed).permutation(np.concatenate([plan, plan[::2]]))
    assert transfer.transfer(job, again) == transfer.transfer(job, plan)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10**6))
def test_flows_keep_within_every_limit(seed: int) -> None:
    job = small_job(seed)
    plan = random_plan(job, seed)
    tails, heads = np.unique(plan[:, 2:], axis=0).T
    flows = transfer._flows(job, tails, heads, job.matrices[1][tails, heads])
    names = job.network.regions
    flow = {(names[a], names[b]): f for a, b, f in zip(tails, heads, flows, strict=True)}
    ingress, egress = (dict(zip(names, limit.tolist(), strict=True)) for limit in job.limits)
    assert literal.within_limits(list(flow), flow, egress, 0)
    assert literal.within_limits(list(flow), flow, ingress, 1)


@settings(derandomize=True, deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 6))
def test_public_times_are_at_most_ours_and_public_sending_is_ours(seed: int, regions: int) -> None:
    """The public limits act one after another, so later ones may find less to cut; the rest is shared."""
    job = small_job(seed, regions, min(3, regions - 1), 2)
    plan = random_plan(job, seed, strays=False)
    cost, throughput = job.matrices
    counts = np.array(
        [[int(((plan[:, 0] == j) & (plan[:, 1] == p)).sum()) for p in range(2)] for j in range(len(job.ends))]
    )
    figures = np.column_stack([cost[plan[:, 2], plan[:, 3]], throughput[plan[:, 2], plan[:, 3]]])
    listed = answer.Answer(job.network.regions, job.ends, counts, plan[:, 2:], figures)
    public_cost, public_time = paper.evaluate(job, listed)
    ours = transfer.transfer(job, plan)
    assert public_time <= ours.time_s * (1 + 1e-12)
    machines = ours.regions * transfer.USD_PER_REGION_SECOND
    assert public_cost - machines * round(public_time, 2) == pytest.approx(ours.egress_cost)


def test_a_link_that_is_not_there_is_named() -> None:
    job = small_job(1)
    keep = ~((job.network.links == [0, 1]).all(axis=1))
    net = job.network
    thin = network.Network(net.regions, net.links[keep], net.cost[keep], net.throughput[keep])
    job = transfer.Job(thin, "aws:r0", ("azure:r1",), 10.0, 1, job.ingress_limit, job.egress_limit)
    with pytest.raises(transfer.BrokenPlanError, match="no link from 'aws:r0' to 'azure:r1'"):
        transfer.transfer(job, np.array([[0, 0, 0, 1]]))


@settings(derandomize=True, deadline=None, max_examples=20)
@given(st.integers(0, 10**6), st.integers(1, 3))
def test_trees_are_cheapest(seed: int, ends: int) -> None:
    rng = np.random.default_rng(seed)
    price = rng.choice([1.0, 2.0, 5.0, np.inf], size=(4, 4))
    np.fill_diagonal(price, np.inf)
    price[0, 1:] = np.minimum(price[0, 1:], 9.0)
    value, links = steiner.cheapest_tree(price, 0, list(range(1, ends + 1)))
    every = [(a, b) for a in range(4) for b in range(1, 4) if np.isfinite(price[a, b])]
    least = min(
        sum(price[link] for link in chosen)
        for size in range(1, 4)
        for chosen in itertools.combinations(every, size)
        if all(literal.arrives(chosen, 0, end) for end in range(1, ends + 1))
    )
    assert value == pytest.approx(least)
    assert sum(price[link] for link in links) == pytest.approx(least)
    assert all(literal.arrives(list(links), 0, end) for end in range(1, ends + 1))


def test_trees_have_a_limit_of_ends() -> None:
    with pytest.raises(ValueError, match="10 ends, expected 1 to 9"):
        steiner.cheapest_tree(np.ones((12, 12)), 0, list(range(1, 11)))


@settings(derandomize=True, deadline=None, max_examples=15)
@given(st.integers(0, 10**6))
def test_no_plan_is_below_the_bound(seed: int) -> None:
    job = small_job(seed, regions=6, ends=2, partitions=2)
    bound = bounds.solve(job)
    trees = [random_plan(job, seed * 100 + i) for i in range(20)] + [job.direct()]
    price = np.where(np.isnan(job.matrices[0]), np.inf, job.matrices[0])
    _, links = steiner.cheapest_tree(price, job.index[job.source], job.ends.tolist())
    trees.append(np.array([(j, p, a, b) for j in range(2) for p in range(2) for a, b in links]))
    costs = [transfer.transfer(job, plan).cost for plan in trees]
    assert 0 < bound <= min(costs)


def test_the_bound_of_a_tiny_job_is_close_to_its_optimum() -> None:
    job = small_job(5, regions=4, ends=2, partitions=1)
    every = [(a, b) for a in range(4) for b in range(4) if a != b]
    best = np.inf
    for size in range(1, 5):
        for chosen in itertools.combinations(every, size):
            plan = np.array([(j, 0, a, b) for j in range(2) for a, b in chosen])
            try:
                best = min(best, transfer.transfer(job, plan).cost)
            except transfer.BrokenPlanError:
                continue
    assert 0.9 * best <= bounds.solve(job) <= best


def test_any_multipliers_give_a_bound() -> None:
    job = small_job(3)
    lagrange = bounds._Lagrange(job)
    optimum = bounds.solve(job)
    direct = transfer.transfer(job, job.direct()).cost
    rng = np.random.default_rng(0)
    for scale in (0.0, 1e-7, 1e-5, 1e-3):
        value, _ = lagrange.value(scale * rng.random(len(lagrange.capacity)))
        assert value <= direct
        assert value <= optimum * 1.001


def test_the_recorded_table_of_bounds_is_not_stale() -> None:
    known = bounds._table()
    assert {digest for job in splits.every_job().values() if (digest := bounds.digest(job)) not in known} == set()
    assert all(known[bounds.digest(job)] <= transfer.transfer(job, job.direct()).cost for job in _all_jobs())


def _all_jobs() -> list[Any]:
    return list(splits.every_job().values())


def test_a_digest_tells_jobs_apart() -> None:
    digests = [bounds.digest(job) for job in _all_jobs()]
    assert len(set(digests)) == len(digests)
    assert bounds.digest(small_job(1)) == bounds.digest(small_job(1)) != bounds.digest(small_job(2))


def test_generated_networks_are_complete_and_priced() -> None:
    net = network.generate(7)
    assert len(net.links) == 71 * 70 == len({tuple(link) for link in net.links.tolist()})
    assert (net.links[:, 0] != net.links[:, 1]).all()
    assert net.cost.min() > 0
    assert net.throughput.min() >= 0.3
    assert np.unique(net.cost).size > 10
    assert {len(regions) for regions in net.by_provider().values()} == {25, 22, 24}


def test_relabelling_changes_names_only() -> None:
    net = network.generate(7, {"aws": 4, "gcp": 3})
    other = network.relabelled(net, 1)
    assert sorted(zip(other.cost.tolist(), other.throughput.tolist(), strict=True)) == sorted(
        zip(net.cost.tolist(), net.throughput.tolist(), strict=True)
    )
    assert len(set(other.regions)) == 7
    assert sorted(other.providers()) == sorted(net.providers())
    for (a, b), cost in zip(other.links.tolist(), other.cost.tolist(), strict=True):
        owners = (network.provider(other.regions[a]), network.provider(other.regions[b]))
        assert cost in {
            c
            for (x, y), c in zip(net.links.tolist(), net.cost.tolist(), strict=True)
            if (network.provider(net.regions[x]), network.provider(net.regions[y])) == owners
        }


def test_profiles_are_read_in_the_order_of_the_throughput_file(tmp_path: Path) -> None:
    (tmp_path / "cost.csv").write_text("src,dest,cost\na:x,b:y,0.09\nb:y,a:x,0.02\nb:y,b:y,0\n")
    (tmp_path / "t.csv").write_text("src_region,dst_region,throughput_sent\nb:y,a:x,2e9\nb:y,b:y,9e9\na:x,b:y,5e9\n")
    net = network.read_profiles(tmp_path / "cost.csv", tmp_path / "t.csv")
    assert net.regions == ("b:y", "a:x")
    assert net.links.tolist() == [[0, 1], [1, 0]]
    assert net.cost.tolist() == [0.02, 0.09]
    assert net.throughput.tolist() == [4.0, 10.0]


HEADER = (
    "tag,src_region,src_tier,src_instance_class,dst_region,dst_tier,dst_instance_class,iperf3_connections,"
    "iperf3_runtime,throughput_sent,throughput_recieved,cpu_utilization,success,stdout_path,stderr_path"
)
ROW = "t1,aws:a,PREMIUM,m5,gcp:b,PREMIUM,n2,64,5,4967291935.167428,4739257059.661877,7.6,True,/log/o,/log/e"


def test_the_public_throughput_profile_loses_three_columns() -> None:
    out = convert("cloudcast/throughput.csv", f"{HEADER}\r\n{ROW}\r\n".encode())
    assert out.decode().splitlines() == [
        HEADER.removeprefix("tag,").removesuffix(",stdout_path,stderr_path"),
        ROW.removeprefix("t1,").removesuffix(",/log/o,/log/e"),
    ]
    assert b"\r" not in out
    assert convert("cloudcast/throughput.csv", out) == out
    assert convert("cloudcast/intra_aws.json", b"{}\n") == b"{}\n"


def test_a_profile_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="has no column src_region"):
        convert("cloudcast/throughput.csv", b"a,b\n1,2\n")
    with pytest.raises(ValueError, match="line 2 has 2 fields, expected 15"):
        convert("cloudcast/throughput.csv", f"{HEADER}\n1,2\n".encode())
