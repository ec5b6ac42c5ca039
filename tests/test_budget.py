from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.budget import Progress, Purse, stop_reason
from adrs_ray.config import BudgetConfig


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.booleans()), max_size=80))
def test_never_more_than_the_limit_whatever_is_lost(limit, steps):
    """Islands take grants, settle all of them or are lost with some under way and come back."""
    purse = Purse(limit)
    settled = 0
    for island, want, lost in steps:
        count = purse.offer(want)
        purse.grant(island, count)
        under_way = count // 2 if lost else 0
        for _ in range(count - under_way if lost else count):
            purse.settle(island)
            settled += 1
        if lost:
            purse.reopen(island, under_way)
            for _ in range(under_way):
                purse.settle(island)
                settled += 1
        assert settled <= limit
        assert purse.remaining == limit - settled - purse.outstanding
    purse.lapse({})
    while purse.offer(1):
        purse.grant(0, 1)
        purse.settle(0)
        settled += 1
    assert settled == limit


def test_a_closed_purse_grants_nothing():
    purse = Purse(10)
    purse.close()
    assert purse.offer(5) == 0


def progress(**changes: object) -> Progress:
    values: dict[str, object] = {"candidates": 5, "wall_s": 1.0, "best_score": 0.5, "since_best": 3}
    return Progress(**(values | changes))  # type: ignore[arg-type]


def test_each_rule_stops_and_says_why():
    config = BudgetConfig(max_candidates=10, max_wall_s=60, target_score=0.9, patience=4)
    assert stop_reason(progress(), config) is None
    assert "10 candidates" in (stop_reason(progress(candidates=10), config) or "")
    assert "60 s" in (stop_reason(progress(wall_s=60.0), config) or "")
    assert "0.9" in (stop_reason(progress(best_score=0.95), config) or "")
    assert "last 4" in (stop_reason(progress(since_best=4), config) or "")
    assert stop_reason(progress(best_score=None, candidates=0), config) is None
