"""An embedded Ray for the tests that call actors directly."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module")
def ray_here() -> Iterator[None]:
    """Ray in this process, ended with the module: other tests start their own."""
    import ray

    from cluster.runtime import connect

    connect(None, 4)
    yield
    ray.shutdown()
