"""The retry policy: what is tried again, and when."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adrs_ray.generator.retry import (
    BASE_S,
    CAP_S,
    LONGEST_RETRY_AFTER_S,
    Fate,
    backoff_s,
    fate_of_lost_connection,
    fate_of_status,
    retry_after_s,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@given(st.integers(1, 10**6), st.one_of(st.none(), st.floats(0, LONGEST_RETRY_AFTER_S)), st.integers(0, 2**32))
def test_a_wait_is_at_least_what_the_server_asked_for_and_never_above_it_by_more_than_the_cap(attempt, asked, seed):
    wait = backoff_s(attempt, asked, np.random.default_rng(seed))
    assert (asked or 0.0) <= wait <= (asked or 0.0) + min(CAP_S, BASE_S * 2.0 ** min(attempt - 1, 100))


def test_waits_grow_exponentially_and_differ_between_requests():
    means = [np.mean([backoff_s(a, None, np.random.default_rng((a, s))) for s in range(400)]) for a in range(1, 6)]
    for earlier, later in pairwise(means):
        assert 1.7 < later / earlier < 2.3
    assert len({backoff_s(3, 1.0, np.random.default_rng(seed)) for seed in range(50)}) == 50


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("-3", 0.0),
        ("1e999", LONGEST_RETRY_AFTER_S),
        ("86400", LONGEST_RETRY_AFTER_S),
        ("nan", None),
        ("soon", None),
        ("", None),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - timedelta(days=1), usegmt=True), 0.0),
        ("Fri, 02 Jan 2026 03:05:05 -0000", 60.0),
        ("Fri, 99 Jan 2026 03:05:05 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header, seconds):
    assert retry_after_s(header, NOW) == seconds


@given(st.text(max_size=60))
def test_any_header_is_read_without_an_exception(header):
    seconds = retry_after_s(header, NOW)
    assert seconds is None or (0 <= seconds <= LONGEST_RETRY_AFTER_S and not math.isnan(seconds))


@pytest.mark.parametrize(
    ("fate", "statuses"),
    [
        (Fate.AGAIN, [408, 409, 425, 429, 500, 502, 503, 507, 529]),
        (Fate.CHARGED, [504, 524]),
        (Fate.FATAL, [301, 307, 401, 402, 403, 404, 405]),
        (Fate.REFUSED, [400, 413, 415, 422, 451]),
    ],
)
def test_a_status_has_one_fate(fate, statuses):
    assert {fate_of_status(status) for status in statuses} == {fate}


def test_an_account_without_quota_is_not_asked_again():
    assert fate_of_status(429, "insufficient_quota") is Fate.FATAL
    assert fate_of_status(429, "rate_limit_exceeded") is Fate.AGAIN


def test_only_what_was_never_sent_is_free():
    class ConnectError(Exception): ...

    class ReadError(Exception): ...

    assert fate_of_lost_connection(ConnectError()) is Fate.AGAIN
    assert fate_of_lost_connection(ReadError()) is Fate.CHARGED
    assert fate_of_lost_connection(None) is Fate.CHARGED
