"""The chaos run (`python -m tests.benchmarks.chaos`), short: random kills lose nothing and leave nothing behind."""

from collections import Counter

import pytest

from adrs_ray.storage.journal import SETTLED, EventKind
from tests.benchmarks.chaos import attack

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_random_kills_lose_nothing_and_leave_nothing():
    chaos, events, left, code = attack(minutes=0.6, every_s=2.0, seed=5)
    assert sum(len(times) for times in chaos.back_s.values()) >= 2
    assert chaos.changed == 0
    assert max(Counter(e.candidate for e in events if e.kind in SETTLED).values()) == 1
    verdicts = Counter((e.candidate, e.body["split"]) for e in events if e.kind is EventKind.MEASURED)
    assert max(verdicts.values()) == 1
    assert code == 143
    assert left == {}
