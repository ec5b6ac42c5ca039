from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.config import IslandsConfig
from adrs_ray.selector import Elite, migration

ELITES = [Elite(f"0-{n}", float(n), {}, (0.0, 0.0), f"f{n}", f"s{n}") for n in range(5)]
RING, STAR, NONE = (
    IslandsConfig.model_validate({"migration": name, "migration_interval": 4}) for name in ("ring", "star", "none")
)


def test_a_ring_goes_on_to_the_next_active_number():
    assert [migration.targets(i, [0, 1, 2], RING) for i in range(3)] == [(1,), (2,), (0,)]
    assert [migration.targets(i, [7, 2, 4], RING) for i in (2, 4, 7)] == [(4,), (7,), (2,)]


def test_the_hub_of_a_star_is_the_lowest_active_number():
    assert [migration.targets(i, [5, 3, 9], STAR) for i in (3, 5, 9)] == [(5, 9), (3,), (3,)]


def test_nobody_receives_when_alone_or_switched_off():
    for config in (RING, STAR):
        assert migration.targets(4, [4], config) == ()
        assert not any(migration.is_due(d, [4], config) for d in range(50))
    assert migration.targets(0, [0, 1, 2], NONE) == ()
    assert not any(migration.is_due(d, [0, 1, 2], NONE) for d in range(50))


@given(st.sets(st.integers(0, 50), min_size=2, max_size=8))
def test_a_ring_reaches_every_island_once_and_a_star_all_in_two_steps(active):
    start = island = min(active)
    visited = []
    for _ in active:
        (island,) = migration.targets(island, sorted(active, reverse=True), RING)
        visited.append(island)
    assert sorted(visited) == sorted(active)
    assert island == start
    hub = {migration.targets(i, list(active), STAR) for i in active if i != start}
    assert hub == {(start,)}
    assert set(migration.targets(start, list(active), STAR)) == active - {start}


def test_migration_is_due_after_every_interval():
    assert [d for d in range(12) if migration.is_due(d, [0, 1], RING)] == [3, 7, 11]


def test_the_best_that_were_not_sent_emigrate():
    config = IslandsConfig(migration_count=2)
    assert [e.candidate for e in migration.emigrants(ELITES, {"0-4"}, config)] == ["0-3", "0-2"]
