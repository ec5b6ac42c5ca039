"""Tests marked `torch` are skipped, with a message, where torch is not installed; how hypothesis tries things."""

from __future__ import annotations

import importlib.util
import os

import pytest
from hypothesis import HealthCheck, settings

# Examples are drawn slowly on a machine that does other things at the same time; that is no failure. In CI the same
# ones are drawn every time, and fewer: what a change breaks is then of the change, and known in time.
CI = bool(os.environ.get("CI"))
settings.register_profile(
    "adrs",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=CI,
    max_examples=50 if CI else 100,
)
settings.load_profile("adrs")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        skip = pytest.mark.skip(reason="torch is not installed: make test TORCH=torch==2.13.0")
        for item in items:
            if "torch" in item.keywords:
                item.add_marker(skip)
