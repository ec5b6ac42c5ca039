"""Tests marked `torch` are skipped, with a message, where torch is not installed."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if importlib.util.find_spec("torch") is None:
        skip = pytest.mark.skip(reason="torch is not installed: make test TORCH=torch==2.13.0")
        for item in items:
            if "torch" in item.keywords:
                item.add_marker(skip)
