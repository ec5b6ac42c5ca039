from collections import Counter

import numpy as np

from adrs_ray.config import IslandsConfig, SelectorConfig
from adrs_ray.selector import Elite, migration
from adrs_ray.selector.parents import choose_parent, choose_partner

ELITES = [Elite(f"0-{n}", float(n), {}, (0.0, 0.0), f"f{n}", f"s{n}") for n in range(5)]


def counts(config: SelectorConfig, draws: int = 4000) -> Counter[str]:
    rng = np.random.default_rng(0)
    return Counter(choose_parent(ELITES, config, rng).candidate for _ in range(draws))


def test_exploration_draws_all_cells_alike():
    found = counts(SelectorConfig(exploration=1.0, exploitation=0.0))
    assert all(abs(found[e.candidate] - 800) < 120 for e in ELITES)


def test_exploitation_prefers_better_scores_linearly():
    found = counts(SelectorConfig(exploration=0.0, exploitation=1.0), 15_000)
    for n in range(5):
        assert abs(found[f"0-{n}"] - (n + 1) * 1000) < 150


def test_the_rest_goes_to_the_best():
    assert counts(SelectorConfig(exploration=0.0, exploitation=0.0)) == {"0-4": 4000}


def test_a_partner_is_another_elite():
    rng = np.random.default_rng(0)
    partners = {choose_partner(ELITES, ELITES[2], rng).candidate for _ in range(200)}  # type: ignore[union-attr]
    assert partners == {"0-0", "0-1", "0-3", "0-4"}
    assert choose_partner(ELITES[:1], ELITES[0], rng) is None


def test_ring_migration_sends_the_best_unsent():
    config = IslandsConfig(count=3, migration_interval=4, migration_count=2)
    assert [migration.destination(i, config) for i in range(3)] == [1, 2, 0]
    assert [d for d in range(12) if migration.is_due(d, config)] == [3, 7, 11]
    assert [e.candidate for e in migration.emigrants(ELITES, {"0-4"}, config)] == ["0-3", "0-2"]


def test_no_migration_when_alone_or_switched_off():
    assert migration.destination(0, IslandsConfig(count=1)) is None
    off = IslandsConfig(count=4, migration="none")
    assert migration.destination(0, off) is None
    assert not any(migration.is_due(d, off) for d in range(100))
