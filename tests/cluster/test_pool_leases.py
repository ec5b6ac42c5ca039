"""Who holds a shared pool, and what runs must agree on to share it. Without Ray."""

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import override, parse_config
from cluster.shared_pool import LEASE_S, Leases, disagreement, shared_part


def test_a_lease_ends_with_silence_and_a_pool_with_its_last_lease():
    leases = Leases(0.0)
    assert not leases.abandoned(LEASE_S - 0.1)
    assert leases.renew("a", 1.0)
    assert not leases.renew("a", 5.0)
    assert leases.renew("b", 5.0)
    assert len(leases) == 2
    assert leases.leave("b", 6.0)
    assert not leases.leave("b", 6.0)
    assert leases.expire(5.0 + LEASE_S - 0.1) == []
    assert not leases.abandoned(1000.0)
    assert leases.expire(5.0 + LEASE_S) == ["a"]
    assert len(leases) == 0


def test_after_the_last_leaves_the_pool_is_kept_for_the_next_run():
    leases = Leases(0.0)
    leases.renew("a", 0.0)
    leases.leave("a", 10.0)
    assert not leases.abandoned(10.0 + LEASE_S - 0.1)
    assert leases.abandoned(10.0 + LEASE_S)


@given(st.lists(st.tuples(st.sampled_from(["renew", "leave", "expire"]), st.sampled_from("abc"), st.floats(0, 9))))
def test_who_renewed_within_the_lease_has_it(steps):
    leases, now, last = Leases(0.0), 0.0, {}
    for step, run, wait in steps:
        now += wait
        if step == "renew":
            leases.renew(run, now)
            last[run] = now
        elif step == "leave":
            leases.leave(run, now)
            last.pop(run, None)
        leases.expire(now)
        last = {run: then for run, then in last.items() if now < then + LEASE_S}
        assert len(leases) == len(last)
        assert not (last and leases.abandoned(now))


def test_runs_share_a_pool_of_the_same_engines_whatever_else_they_do():
    one = parse_config(
        {
            "generator": {"kind": "openai"},
            "models": {"small": {"model": "s"}},
            "pool": {"name": "ours", "models": {"small": {"replicas": 2}}},
        },
        "test",
    )
    same = override(one, {"seed": 9, "models.small.temperature": 0.1, "islands.count": 3})
    assert disagreement("ours", shared_part(one), shared_part(same)) is None
    for key, value in {
        "pool.models.small.replicas": 3,
        "models.small.context_tokens": 9000,
        "pool.python": "/p",
    }.items():
        other = override(one, {key: value})
        line = disagreement("ours", shared_part(one), shared_part(other))
        assert line is not None
        assert key in line
        assert repr(value) in line
