"""Which of several servers of a model answers a request: chosen by the client, without a hop between.

The view of the pool is a value that the driver hands to every island.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Server:
    """One replica that answers."""

    id: str
    """Of this start of it: a replica that was started again is another server."""
    base_url: str
    """Such as http://10.0.0.7:8000/v1."""
    load: float = 0.0
    """Requests that it runs or lets wait, of everybody, as it said last."""


@dataclass(frozen=True, slots=True)
class PoolView:
    """What of the pool answers now."""

    servers: Mapping[str, tuple[Server, ...]] = field(default_factory=dict)
    """By name among the config's `models`."""
    share: float = 1.0
    """This run's part of every replica's `pool.max_in_flight`: 1 over the runs that use the pool."""
    key: str | None = field(default=None, repr=False)
    """What the pool's own servers take as a key; None for servers that were there before."""
