"""Circuit breakers: when a server that failed is asked again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.generator.breaker import FIRST_PAUSE_S, LONGEST_PAUSE_S, OPENS_AFTER, PROBE_S, Breaker


def test_it_opens_after_failures_in_a_row_and_not_before():
    breaker = Breaker()
    for _ in range(OPENS_AFTER - 1):
        breaker.failed(breaker.enter(0.0), 0.0)
    assert breaker.closed
    breaker.succeeded()
    for _ in range(OPENS_AFTER - 1):
        breaker.failed(breaker.enter(0.0), 0.0)
    assert breaker.closed
    breaker.failed(breaker.enter(0.0), 0.0)
    assert breaker.wait_s(0.0) == FIRST_PAUSE_S


def test_a_lost_connection_opens_it_at_once_and_requests_lost_with_it_count_as_one():
    breaker = Breaker()
    stamps = [breaker.enter(0.0) for _ in range(50)]
    for stamp in stamps:
        breaker.failed(stamp, 1.0, lost=True)
    assert breaker.wait_s(1.0) == FIRST_PAUSE_S
    with pytest.raises(ValueError, match="open"):
        breaker.enter(1.5)


def test_pauses_double_up_to_the_longest_and_a_success_begins_anew():
    breaker, now, pauses = Breaker(), 0.0, []
    for _ in range(8):
        breaker.failed(breaker.enter(now), now, lost=True)
        pauses.append(breaker.wait_s(now))
        now += pauses[-1]
    assert pauses == [min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**n) for n in range(8)]
    breaker.enter(now)
    breaker.succeeded()
    assert breaker.closed
    breaker.failed(breaker.enter(now), now, lost=True)
    assert breaker.wait_s(now) == FIRST_PAUSE_S


def test_half_open_it_lets_one_through_at_a_time_and_another_when_that_one_neither_fails_nor_ends():
    breaker = Breaker()
    breaker.failed(breaker.enter(0.0), 0.0, lost=True)
    breaker.enter(FIRST_PAUSE_S)
    assert breaker.wait_s(FIRST_PAUSE_S) == PROBE_S
    breaker.enter(FIRST_PAUSE_S + PROBE_S)
    assert not breaker.closed


def test_what_a_server_asks_for_is_waited_for():
    breaker = Breaker()
    breaker.failed(breaker.enter(0.0), 0.0, pause_s=77.0)
    assert breaker.wait_s(0.0) == 77.0


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["ok", "failed", "lost", "late", "nothing"])), max_size=80))
def test_nobody_passes_while_it_is_open_and_it_never_stays_open_for_longer_than_the_longest_pause(steps):
    breaker, now, old, failures, opened_until = Breaker(), 0.0, 0, 0, 0.0
    for pause, what in steps:
        now += pause
        wait = breaker.wait_s(now)
        assert 0 <= wait <= LONGEST_PAUSE_S
        if wait > 0:
            with pytest.raises(ValueError, match="open"):
                breaker.enter(now)
        elif what != "late":
            assert now >= opened_until
            stamp = breaker.enter(now)
            if what == "ok":
                breaker.succeeded()
                failures = 0
                assert breaker.closed
            elif what in ("failed", "lost"):
                failures += 1
                breaker.failed(stamp, now, lost=what == "lost")
                assert breaker.closed <= (failures < OPENS_AFTER and what == "failed")
                opened_until = now + breaker.wait_s(now)
        if what == "late" and not breaker.closed:
            before = breaker.wait_s(now)
            breaker.failed(old - 1, now, lost=True)
            assert breaker.wait_s(now) == before
